"""Running a part of a run again: what failed, what was chosen, or what has changed; and what depends on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from pilotflow.core.job_states import JobState
from pilotflow.core.workflow import JobGraph
from pilotflow.errors import ConfigError
from pilotflow.units import counted
from pilotflow.workflow.fingerprints import changed_since
from pilotflow.workflow.history import History
from pilotflow.workflow.records import Job, Trigger, Workflow
from pilotflow.workflow.store import JobStore

S = JobState
REPAIRABLE: Final = (S.FAILED, S.TERMINATED, S.PENDING_FAILED, S.CANCELLED)
_WORK: Final = ("command", "invocation_script", "function", "env", "cwd", "stdin")
"""What makes a job another one. What it asks for of a node does not."""


class Rerun(NamedTuple):
    """What is to run again.

    Attributes:
        workflow: the definition that holds from now on.
        numbers: where jobs of the old definition are in this one, if it is another.
        jobs: what runs again, by number in it, in order.
        why: the reason for each; what only follows has none of its own.
        data_numbers: where user data of the old definition is in this one.
    """

    workflow: Workflow
    numbers: dict[int, int] | None
    jobs: list[int]
    why: dict[int, str]
    data_numbers: dict[int, int]


def plan_failed(history: History) -> Rerun:
    """Run again what did not end well, and what depends on it."""
    return plan_jobs(history, history.select("failed"), "it did not end well")


def plan_jobs(history: History, numbers: Sequence[int], why: str = "chosen") -> Rerun:
    """Run these jobs again, and what depends on them."""
    workflow = history.workflow()
    states = history.states()
    return Rerun(workflow, None, _with_dependents(workflow, states, numbers), dict.fromkeys(numbers, why), {})


def plan_changed(history: History, new: Workflow | None, home: Path) -> Rerun:
    """Run again what has changed since it ran, what did not end well, and what depends on those.

    Args:
        history: of the run.
        new: the workflow as it is now; None if that has not changed.
        home: from where relative paths start.
    """
    old = history.workflow()
    workflow = old if new is None else new
    states = history.states()
    numbers: dict[int, int] | None = None
    if new is not None:
        by_name = {job.name: job.index for job in new.jobs}
        numbers = {job.index: by_name[job.name] for job in old.jobs if job.name in by_name}
        moved = [S.UNINITIALIZED] * len(new.jobs)
        for before, after in numbers.items():
            moved[after] = states[before]
    else:
        moved = list(states)
    back = {after: before for before, after in (numbers or {job.index: job.index for job in old.jobs}).items()}
    prints: dict[int, str] = dict(history.database.execute("SELECT job, digest FROM inputs"))
    why: dict[int, str] = {}
    for job in workflow.jobs:
        was = back.get(job.index)
        reason = "it is new" if was is None else _reason(old, workflow, was, job, states, prints, home)
        if reason:
            why[job.index] = reason
    data = {each.name: number for number, each in enumerate(workflow.user_data)}
    data_numbers = {number: data[each.name] for number, each in enumerate(old.user_data) if each.name in data}
    return Rerun(workflow, numbers, _with_dependents(workflow, moved, why), why, data_numbers)


def _reason(
    old: Workflow,
    new: Workflow,
    before: int,
    job: Job,
    states: Sequence[JobState],
    prints: dict[int, str],
    home: Path,
) -> str:
    """Why a job that both definitions have runs again; empty if it does not."""
    was, state = old.jobs[before], states[before]
    if state in REPAIRABLE:
        return "it has failed" if state is S.FAILED else f"it was {state.word}"
    if state is not S.COMPLETED:
        return ""
    changed = [word for word in _WORK if getattr(was, word) != getattr(job, word)]
    if changed:
        return f"its {' and '.join(changed)} changed"
    if _needs(old, was) != _needs(new, job):
        return "what it depends on changed"
    for what, files in (("input", "input_files"), ("output", "output_files")):
        if _paths(old, getattr(was, files)) != _paths(new, getattr(job, files)):
            return f"its {what} files changed"
    if _given(old, was.input_user_data) != _given(new, job.input_user_data):
        return "its user data changed"
    if before in prints and (paths := changed_since(prints[before], home)):
        return f"{', '.join(paths[:3])} changed"
    missing = [path for path in _paths(new, job.output_files) if not (home / path).exists()]
    return f"{', '.join(missing[:3])} is not there" if missing else ""


def _needs(workflow: Workflow, job: Job) -> set[str]:
    return {workflow.jobs[need].name for need in job.depends_on}


def _paths(workflow: Workflow, numbers: Iterable[int]) -> list[str]:
    return [workflow.files[number].path for number in numbers]


def _given(workflow: Workflow, numbers: Iterable[int]) -> list[Any]:
    return [(data.name, data.data) for data in (workflow.user_data[number] for number in numbers) if data.given]


def _with_dependents(workflow: Workflow, states: Sequence[JobState], numbers: Iterable[int]) -> list[int]:
    graph = JobGraph(workflow.jobs, states=states)
    return sorted(graph.downstream(numbers))


def apply(store: JobStore, plan: Rerun, directory: Path) -> None:
    """Make it so; whoever goes on with the run runs them.

    Raises:
        ConfigError: nothing is to run.
    """
    if not plan.jobs:
        raise ConfigError(f"Nothing of run {directory.name} has changed or failed; nothing is to run again.")

    def write(database: sqlite3.Connection) -> None:
        if plan.numbers is not None:
            _renumber(database, plan.workflow, plan.numbers, plan.data_numbers)
        database.executemany(
            "UPDATE jobs SET state = 0, failures = 0, script = NULL, code = NULL WHERE job = ?",
            [(job,) for job in plan.jobs],
        )
        _rearm(database, plan)
        ephemeral = [number for number, data in enumerate(plan.workflow.user_data) if data.is_ephemeral]
        database.executemany("DELETE FROM user_data WHERE number = ?", [(number,) for number in ephemeral])

    if plan.numbers is None:
        store.commit(write)
    else:
        store.redefine(plan.workflow, write)
    store.event("rerun", "", counted(len(plan.jobs), "job"))


def _renumber(
    database: sqlite3.Connection, workflow: Workflow, numbers: dict[int, int], data_numbers: dict[int, int]
) -> None:
    """Bring everything that names jobs by number into accord with another definition."""
    database.execute("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER)")
    database.executemany("INSERT INTO moved VALUES (?, ?)", numbers.items())
    for table in ("results", "inputs", "requests"):
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        kept = ", ".join(f"t.{name}" if name != "job" else "m.new" for name in columns)
        database.execute(f"CREATE TEMP TABLE kept AS SELECT {kept} FROM {table} t JOIN moved m ON m.old = t.job")  # noqa: S608
        database.execute(f"DELETE FROM {table}")  # noqa: S608  names of our own
        database.execute(f"INSERT INTO {table} SELECT * FROM kept")  # noqa: S608
        database.execute("DROP TABLE kept")
    rows = {row[0]: row for row in database.execute("SELECT * FROM jobs")}
    back = {new: old for old, new in numbers.items()}
    database.execute("DELETE FROM jobs")
    nothing = (0, 0, 0, 0, None, None, None)
    database.executemany(
        "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (job.index, job.name, job.stage, *(rows[back[job.index]][3:] if job.index in back else nothing))
            for job in workflow.jobs
        ],
    )
    database.execute("DROP TABLE moved")
    made = database.execute("SELECT number, value FROM user_data").fetchall()
    values = {data_numbers[number]: value for number, value in made if number in data_numbers}
    for number, data in enumerate(workflow.user_data):
        if data.given:
            values[number] = msgspec.json.encode(data.data).decode()
    database.execute("DELETE FROM user_data")
    database.executemany("INSERT INTO user_data VALUES (?, ?)", values.items())


def _rearm(database: sqlite3.Connection, plan: Rerun) -> None:
    """Actions that wait for jobs which run again, or for the end, will fire again. The start's do if all runs again."""
    again = set(plan.jobs)
    for number, action in enumerate(plan.workflow.actions):
        whole = len(again) == len(plan.workflow.jobs)
        waits = again.intersection(action.jobs) or action.trigger is not Trigger.ON_WORKFLOW_START
        if plan.numbers is not None or whole or waits:
            database.execute("DELETE FROM actions WHERE number = ?", (number,))
