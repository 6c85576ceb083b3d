"""What an ended task means for its job: exit code, cause, words."""

from __future__ import annotations

import json
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Final

from pilotflow.core.job_states import JobState
from pilotflow.errors import (
    BlockStartError,
    MemoryLimitExceeded,
    RankError,
    RequestTooLarge,
    TaskTimeout,
    WalltimeExceeded,
    WorkerLost,
)
from pilotflow.futures import AppFuture
from pilotflow.runtime.job_task import JobFailed, Outcome
from pilotflow.runtime.store import TaskRow
from pilotflow.workflow.records import ExecutionConfig
from pilotflow.workflow.rows import ResultRow

LOST_CODE: Final = 255
"""Exit code, for failure handlers, of an attempt that was lost with its worker for the last time."""
WORDS_MAX: Final = 4000
HOW: Final = {JobState.COMPLETED: "completed", JobState.FAILED: "failed", JobState.TERMINATED: "terminated"}
"""How an attempt has ended that has put its job into this state."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        exit_code: 0 is success.
        attempt: its number if the worker knows it, else 0.
        terminated: its time was over.
        cause: see `ResultRow`.
        words: what is to be said of it.
        again: whether its job may be tried again.
        unstartable: it did not run, because no block comes.
        result: user data that it made, as JSON by name.
    """

    exit_code: int
    attempt: int = 0
    terminated: bool = False
    cause: str = ""
    words: str = ""
    again: bool = True
    unstartable: bool = False
    result: str | None = None


def ended(future: AppFuture[Any], execution: ExecutionConfig) -> Ended:
    """How the task of this future, which is done, has ended."""
    try:
        error = future.exception(0)
    except CancelledError:
        return Ended(LOST_CODE, cause="cancelled", again=False)
    if error is None:
        return _as_told(Outcome(*future.result(0)))
    if isinstance(error, JobFailed):
        return _as_told(error.outcome)
    words = str(error)[:WORDS_MAX]
    if isinstance(error, RankError):
        return _of_ranks(error, words)
    if isinstance(error, MemoryLimitExceeded):
        return Ended(execution.oom_exit_code, cause="memory", words=words)
    if isinstance(error, WalltimeExceeded):
        return Ended(execution.timeout_exit_code, terminated=True, cause="walltime", words=words)
    if isinstance(error, TaskTimeout):
        return Ended(execution.timeout_exit_code, terminated=True, cause="runtime", words=words)
    if isinstance(error, WorkerLost):
        return Ended(LOST_CODE, cause="lost", words=words)
    if isinstance(error, RequestTooLarge):
        return Ended(LOST_CODE, cause="request", words=words, again=False)
    if isinstance(error, BlockStartError):
        return Ended(LOST_CODE, cause="lost", words=words, unstartable=True)
    return Ended(LOST_CODE, cause="exit", words=f"{type(error).__name__}: {words}", again=False)


def _as_told(outcome: Outcome, before: str = "") -> Ended:
    cause = "runtime" if outcome.terminated else "exit" if outcome.exit_code else ""
    words = before + outcome.words[len(before) - WORDS_MAX :]
    return Ended(outcome.exit_code, outcome.attempt, outcome.terminated, cause, words, result=outcome.result)


def _of_ranks(error: RankError, words: str) -> Ended:
    """A job over several nodes ends as the rank that failed first."""
    rank = error.__cause__ and error.__cause__.__cause__  # between them is the remote text
    if isinstance(rank, JobFailed):
        more = f", and {len(error.failed) - 1} more" if len(error.failed) > 1 else ""
        return _as_told(rank.outcome, f"rank {error.rank} on {error.host or 'its node'}{more}:\n")
    code = error.exit_code
    if not code:  # it has ended well before its time, or nobody knows how
        return Ended(LOST_CODE, cause="exit", words=words)
    return Ended(code if code > 0 else 128 - code, cause="exit", words=words)


def result_row(job: int, attempt: int, how: str, task: TaskRow, end: Ended, at: float) -> ResultRow:
    """The row of an attempt, from what the interchange and the worker say of it."""
    _, _, _, _, started_us, duration_us, manager, cpu_us, peak_bytes, _, cores, gpus = task
    return ResultRow(
        job,
        attempt,
        how,
        end.exit_code,
        started_us,
        duration_us,
        cpu_us,
        peak_bytes,
        manager,
        json.dumps(cores),
        json.dumps(gpus),
        end.cause,
        end.words.encode("utf-8", "replace").decode(),
        at,
    )


def cut_row(job: int, attempt: int, how: str, words: str, at: float) -> ResultRow:
    """The row of an attempt that did not come to an end of its own."""
    return ResultRow(job, attempt, how, None, cause=how, words=words, at=at)
