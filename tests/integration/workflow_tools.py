"""Workflows for tests, the programs that run them, and how to kill what belongs to a run."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import psutil

from pilotflow.core.job_states import ENDED, JobState
from pilotflow.ids import RUN_VARIABLE
from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.control import ask_status
from pilotflow.workflow.coordinator import create
from pilotflow.workflow.holding import is_held
from pilotflow.workflow.options import RunOptions
from pilotflow.workflow.records import Job, Workflow
from tests.command_line import pilotflow

Cli: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

PATIENCE_S = 60.0
MARK = 'echo "$TORC_ATTEMPT_ID" >> "$PILOTFLOW_HOME_DIR/marks/$TORC_JOB_NAME"'
"""A command that leaves a line for each attempt at its job."""
GATE = "while [ ! -e go ]; do sleep 0.05; done"
"""A command that waits for a file."""


def a_job(index: int, command: str = "true", *depends_on: int, **words: Any) -> Job:
    return Job(
        index=index, name=words.pop("name", f"job{index}"), stage=0, command=command, depends_on=depends_on, **words
    )


def a_workflow(*jobs: Job, **words: Any) -> Workflow:
    return Workflow(name="test", path="test.yaml", jobs=jobs, stages=("jobs",), **words)


def a_run(directory: Path, workflow: Workflow, **options: Any) -> Path:
    """The run directory of a new run, in `directory/runs`, whose home is `directory`."""
    (directory / "marks").mkdir(exist_ok=True)
    before = os.getcwd()
    os.chdir(directory)
    try:
        return create(workflow, RunOptions(**{"num_cpus": 2, **options}), directory / "runs")
    finally:
        os.chdir(before)


class Program:
    """A process that has a run, in the background."""

    def __init__(self, run: Path) -> None:
        self.run = run
        with (run / "program.err").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pilotflow.workflow.coordinator", str(run)], stdout=output, stderr=output
            )

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            said = (self.run / "program.err").read_text() + (self.run / "pilotflow.log").read_text()[-3000:]
            raise AssertionError(f"it has not ended; jobs: {states(self.run)}\n{said}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def query(run: Path, text: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{(run / 'run.db').as_uri()}?mode=ro", uri=True, timeout=10)) as database:
        return database.execute(text, values).fetchall()


def states(run: Path) -> dict[str, int]:
    return {
        JobState(state).word: count for state, count in query(run, "SELECT state, COUNT(*) FROM jobs GROUP BY state")
    }


def completed(run: Path) -> set[str]:
    rows = query(run, "SELECT name FROM jobs WHERE state = ?", int(JobState.COMPLETED))
    return {name for (name,) in rows}


def ended(run: Path) -> int:
    """How many jobs have ended, one way or another."""
    states = ", ".join(str(int(state)) for state in ENDED)
    return int(query(run, f"SELECT COUNT(*) FROM jobs WHERE state IN ({states})")[0][0])


def mark(run: Path, name: str) -> list[int]:
    """Of one job that has begun, its attempts' numbers."""
    return list(map(int, (run.parent.parent / "marks" / name).read_text().split()))


def marks(run: Path) -> dict[str, list[int]]:
    """Of each job that has begun, its attempts' numbers."""
    found = {path.name: path.read_text() for path in (run.parent.parent / "marks").iterdir()}
    return {name: list(map(int, text.split())) for name, text in found.items()}


def interchange_pid(run: Path) -> int:
    return ask_status(read_connection(run / "connection.json"), 10.0).pid


def marked(run: Path, what: bytes) -> list[int]:
    """Processes of a run with this in their command line."""
    run_id = dict(query(run, "SELECT key, value FROM run"))["run_id"].encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
            line = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            continue
        if RUN_VARIABLE.encode() + b"=" + run_id in environment and what in line:
            found.append(int(entry))
    return found


def of_a_manager(run: Path, generation: int) -> int:
    """A manager's process (0), its zygote (1), or one of its workers (2): all have one command line."""
    parent = {}
    for pid in marked(run, b"pilotflow.runtime.manager"):
        with contextlib.suppress(psutil.NoSuchProcess):  # as one that was to become a job's command, and has ended
            parent[pid] = psutil.Process(pid).ppid()

    def age(pid: int) -> int:
        return 1 + age(parent[pid]) if parent[pid] in parent else 0

    return next(pid for pid in parent if age(pid) == generation)


def job_processes(run: Path) -> list[int]:
    """Processes that jobs have started: children of workers."""
    family = set(marked(run, b"pilotflow.runtime.manager"))
    found = []
    for pid in set(marked(run, b"")) - family:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).ppid() in family:
                found.append(pid)
    return sorted(found)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def nothing_left(run: Path) -> bool:
    """Whether no process of a run is there any more, and nobody has it."""
    return not marked(run, b"") and not is_held(run)


def command_line(directory: Path) -> Cli:
    """Calls `pilotflow` in a directory; `code` is the exit code that is expected."""

    def call(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = pilotflow(*words, cwd=directory, env={})
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return call
