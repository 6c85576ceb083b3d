"""Attempts at jobs: what is known of them, and how the next ones travel."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pilotflow.bodies import pack_function
from pilotflow.core.advice import Advice, Fact, advise
from pilotflow.core.workflow import JobGraph
from pilotflow.futures import AppFuture
from pilotflow.resources import Request
from pilotflow.runtime.durable_client import DurableClient
from pilotflow.serialize import Packed, pack_call
from pilotflow.units import format_duration
from pilotflow.workflow.calls import Calls, make_task
from pilotflow.workflow.records import Job
from pilotflow.workflow.rows import JobRow
from pilotflow.workflow.setting import Setting
from pilotflow.workflow.store import Restored

HELPED: Final = ("memory", "runtime", "walltime")
HELPED_MAX: Final = 3
"""A job that has failed so often is not helped by itself any more."""
SLACK_S: Final = 0.05
"""What is left of a `timeout` is worth another attempt if it is more than this."""


@dataclass
class Tries:
    """What is known of the attempts at each job, by number.

    Attributes:
        attempts: the number of the last one; 0 before the first.
        wires: the last one that is over, by the interchange's numbers.
        after: what runs before the next one, after which exit code.
        spent_s: time that those which have failed took, of jobs with a `timeout`.
        values: user data as JSON, by its number.
        requests: what jobs ask for instead of what their definition says, oldest first.
    """

    attempts: list[int]
    wires: list[int]
    after: dict[int, tuple[str | None, int]]
    values: dict[int, str]
    requests: list[tuple[int, Request]]
    spent_s: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, restored: Restored) -> Tries:
        """As the store knows them."""
        return cls(
            restored.attempts,
            restored.wires,
            dict(restored.scripts),
            dict(restored.user_data),
            restored.requests,
            dict(restored.spent_s),
        )

    def reached(self, number: int, wire: int) -> None:
        """An attempt at a job is over that has this number on the wire."""
        self.wires[number] = max(wire, self.wires[number])

    def spend(self, job: Job, seconds: float) -> str:
        """An attempt at a job has failed after so long; in words, whether that was the last that its `timeout` allows."""
        if job.timeout_s is None:
            return ""
        spent_s = self.spent_s[job.index] = self.spent_s.get(job.index, 0.0) + seconds
        return f"its timeout of {format_duration(job.timeout_s)} is over" if spent_s >= job.timeout_s - SLACK_S else ""

    def keep(self, result: str, numbers: Mapping[str, int]) -> list[tuple[int, str]]:
        """Take over the user data that a job has made; returns each value as JSON, with its number."""
        made = [(numbers[name], json.dumps(value)) for name, value in json.loads(result).items()]
        self.values.update(made)
        return made

    def rows(self, numbers: Iterable[int], graph: JobGraph, now: float) -> list[JobRow]:
        """What the store is to know of these jobs."""
        rows: list[JobRow] = []
        for number in numbers:
            script, code = self.after.get(number, (None, None))
            attempt, wire, failures = self.attempts[number], self.wires[number], graph.failures[number]
            rows.append(JobRow(int(graph.states[number]), attempt, failures, wire, script, code, now, number))
        return rows


class Parcel(NamedTuple):
    """One attempt, ready to be submitted: in the order in which `DurableClient.submit_again` takes it."""

    future: AppFuture[Any]
    fn: int
    cls: int
    packed: Packed
    wire: int


class Packer:
    """Packs attempts at jobs for one client after another.

    Classes and the function are numbered in the order of the jobs, so that the client of a later program
    numbers them in the same way.
    """

    def __init__(self, setting: Setting, tries: Tries) -> None:
        self._setting = setting
        self._jobs = setting.workflow.jobs
        self._tries = tries
        self._calls = Calls(setting.workflow, setting.directory, setting.home)
        self._classes: dict[tuple[Request, tuple[str, ...]], int] = {}
        self._requests: dict[int, Request] = {}
        self.fn = 0

    def define(self, client: DurableClient) -> None:
        """Make the function and the classes of all jobs known."""
        setting = self._setting
        file = setting.directory / "connection.json"
        task = make_task(setting.workflow, setting.directory, setting.home, file, setting.number)
        self.fn = client.definitions.function("job", pack_function(task))
        self._classes, self._requests = {}, {}
        for job in self._jobs:
            self._class_of(client, job)
        for number, request in self._tries.requests:
            self._requests[number] = request
            self._class_of(client, self._jobs[number])

    def pack(self, client: DurableClient, number: int) -> Parcel:
        """The next attempt at a job.

        Raises:
            NoValue: see `Calls.make`.
        """
        job, tries = self._jobs[number], self._tries
        left_s = None if job.timeout_s is None else job.timeout_s - tries.spent_s.get(number, 0.0)
        encoded = self._calls.make(job, tries.attempts[number], tries.values, tries.after.get(number), left_s)
        future: AppFuture[Any] = AppFuture(number + 1, job.name, client, self.fn)
        packed = pack_call((encoded,), {}, [])
        return Parcel(future, self.fn, self._class_of(client, job), packed, tries.wires[number])

    def request_of(self, number: int) -> Request:
        """What a job asks for."""
        return self._requests.get(number, self._jobs[number].request)

    def help(self, number: int, fact: Fact) -> Advice | None:
        """What a job that has failed asks for from now on; None if that would not help."""
        if fact.cause not in HELPED:
            return None
        advice = advise(self.request_of(number), fact)
        if advice.request is not None:
            self.ask_for(number, advice.request)
        return advice

    def ask_for(self, number: int, request: Request) -> None:
        """The job asks for this from now on."""
        self._tries.requests.append((number, request))
        self._requests[number] = request

    def _class_of(self, client: DurableClient, job: Job) -> int:
        key = (self.request_of(job.index), self._setting.supplies.bindings(job))
        cls = self._classes.get(key)
        if cls is None:
            cls = self._classes[key] = client.definitions.request_class(*key, self._setting.config.crash_limit)
        return cls
