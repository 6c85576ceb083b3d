"""Which failed jobs of a run can be helped, and how: from what the store says of their last attempts."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from pilotflow.core.advice import Advice, Fact, advise
from pilotflow.core.job_states import JobState
from pilotflow.core.workflow import JobGraph
from pilotflow.resources import Request
from pilotflow.workflow.history import History
from pilotflow.workflow.rows import ResultRow
from pilotflow.workflow.store import JobStore, read_requests

HELPLESS: Final = (JobState.FAILED, JobState.TERMINATED, JobState.PENDING_FAILED)


class Help(NamedTuple):
    """What is to be done for one job.

    Attributes:
        job, name: which.
        advice: what, and why.
    """

    job: int
    name: str
    advice: Advice


class Recovery(NamedTuple):
    """What `recover` does.

    Attributes:
        helped: failed jobs that run again, each with what changes.
        alike: jobs that have not run and share a requirement with one of those: what they will ask for.
        left: failed jobs for which nothing is known to help.
        again: all jobs that run again.
    """

    helped: list[Help]
    alike: dict[int, Request]
    left: list[Help]
    again: list[int]


def fact_of(row: ResultRow) -> Fact:
    """What is measured of an attempt."""
    return Fact(row.cause, row.exit_code, row.peak_bytes, row.duration_us / 1e6)


def plan_recovery(history: History, *, retry_unknown: bool = False) -> Recovery:
    """What can be done for the failed jobs of a run.

    Args:
        history: of the run.
        retry_unknown: run those again, too, for which nothing is known to help.
    """
    workflow = history.workflow()
    asked = dict(read_requests(history.database))
    states = history.states()
    failed = [number for number, state in enumerate(states) if state in HELPLESS]
    last: dict[int, ResultRow] = {row.job: row for row in history.results(failed) if row.how != "cancelled"}
    helped: list[Help] = []
    left: list[Help] = []
    raised: dict[str, Request] = {}
    for number in failed:
        job = workflow.jobs[number]
        request = asked.get(number, job.request)
        advice = advise(request, fact_of(last[number]))
        if advice.kind == "unknown" and not retry_unknown:
            left.append(Help(number, job.name, advice))
            continue
        helped.append(Help(number, job.name, advice))
        if advice.request is not None and job.requirements is not None:
            raised[job.requirements] = _larger(raised.get(job.requirements), advice.request)
    again = sorted(JobGraph(workflow.jobs, states=states).downstream(one.job for one in helped))
    mine = {one.job for one in helped}
    alike = {
        number: raised[name]
        for number, job in enumerate(workflow.jobs)
        if (name := job.requirements) in raised
        and number not in mine
        and states[number] not in (JobState.COMPLETED, *HELPLESS)
        and name is not None
    }
    return Recovery(helped, alike, left, again)


def _larger(one: Request | None, other: Request) -> Request:
    if one is None:
        return other
    memory = max(one.memory_bytes, other.memory_bytes)
    times = [each for each in (one.runtime_s, other.runtime_s) if each is not None]
    return msgspec.structs.replace(one, memory_bytes=memory, runtime_s=max(times) if times else None)


def write_requests(store: JobStore, recovery: Recovery) -> None:
    """Record what jobs ask for from now on."""
    rows: list[tuple[int, bytes, str]] = []
    for job, _, advice in recovery.helped:
        if advice.request is not None:
            rows.append((job, msgspec.msgpack.encode(advice.request), advice.why))
    rows += [(job, msgspec.msgpack.encode(request), "as others like it") for job, request in recovery.alike.items()]
    _insert(store, rows)


def _insert(store: JobStore, rows: Sequence[tuple[int, bytes, str]]) -> None:
    def write(database: sqlite3.Connection) -> None:
        database.executemany("INSERT INTO requests (job, request, why) VALUES (?, ?, ?)", rows)

    store.commit(write)
