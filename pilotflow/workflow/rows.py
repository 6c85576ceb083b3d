"""Rows of the store of a workflow's run, for who writes them (`store`) and who reads them (`history`)."""

from __future__ import annotations

from typing import Final, NamedTuple

FILE: Final = "run.db"
"""The store's name in the run directory."""


class ResultRow(NamedTuple):
    """An ended attempt, in the order of the columns of `results`.

    Attributes:
        job, attempt: which.
        how: "completed", "failed", "terminated", "cancelled" or "lost".
        exit_code: None if there is none.
        started_us, duration_us, cpu_us: Unix time of its start; microseconds.
        peak_bytes: the most memory that it was seen to use.
        manager: its manager's number.
        cores, gpus: what it had of its node, as JSON.
        cause: what ended it, for `recover`: "exit", "memory", "runtime", "walltime", "lost", "request" or "".
        words: what is to be said of it.
        at: Unix time of the record.
    """

    job: int
    attempt: int
    how: str
    exit_code: int | None
    started_us: int = 0
    duration_us: int = 0
    cpu_us: int = 0
    peak_bytes: int = 0
    manager: int = 0
    cores: str = "[]"
    gpus: str = "[]"
    cause: str = ""
    words: str = ""
    at: float = 0.0


class JobRow(NamedTuple):
    """What changes of a job: see the columns of `jobs`.

    Attributes:
        state: where it is.
        attempt: the number of its last attempt; 0 before the first.
        failures: attempts that have failed by themselves since it was last reset.
        wire: the last of its attempts that is over, by the interchange's numbers.
        script, code: what runs before its next attempt, after which exit code.
        changed: Unix time.
        job: its number; last, as the statement has it.
    """

    state: int
    attempt: int
    failures: int
    wire: int
    script: str | None
    code: int | None
    changed: float
    job: int


class Life(NamedTuple):
    """One program's time with the run."""

    life: int
    epoch: int
    pid: int
    host: str
    began: float
    ended: float | None
    how: str | None
