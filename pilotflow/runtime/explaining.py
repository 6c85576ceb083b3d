"""`run.explain`: the question to the interchange, the store, or the future itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Final, TypeVar

from pilotflow.core.desk import NAME_MAX
from pilotflow.errors import ConfigError, InfrastructureError, PilotflowError, RunClosed
from pilotflow.explanation import Explanation, Kind, Reason, State, listed
from pilotflow.futures import AppFuture
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.control import ask_explanation
from pilotflow.runtime.past import explain_past, past_names
from pilotflow.runtime.store import FLUSH_PERIOD_S
from pilotflow.units import did_you_mean, kind

T = TypeVar("T")

TIMEOUT_S: Final = 10.0
"""The interchange answers within this time even if others do not answer it."""
RECORD_TIMEOUT_S: Final = 3 * FLUSH_PERIOD_S
"""The end of a task is in the store within this time."""


def explain(connection_file: Path, task: AppFuture[Any] | int | str) -> Explanation:
    """Why a task is not running, where it runs, or how it has ended.

    Args:
        connection_file: the run's.
        task: its future, its number, its name or its label. Of several with the name, one that waits.

    Raises:
        ConfigError: there is no such task, or no such run.
        RunClosed: the run is over, and its record does not have the task.
        InfrastructureError: nobody who would know can be reached, or answers in time.
    """
    asked = _asked(task)
    connection = read_connection(connection_file)
    record = Path(connection.directory) / "run.db"
    if isinstance(task, AppFuture) and task.done():
        return _of_future(record, task)
    try:
        answer = ask_explanation(connection, asked, TIMEOUT_S)
    except RunClosed:
        past = explain_past(record, asked)
        if past is None:
            hint = "" if asked.isdecimal() else did_you_mean(asked, past_names(record))
            raise RunClosed(f"Run {connection.run_id} is over, and its record has no task '{asked}'{hint}.") from None
        return past
    if answer.state not in {State.UNKNOWN, State.ENDED}:
        return answer
    if isinstance(task, AppFuture) and task.done():
        return _of_future(record, task)
    ended = str(answer.task) if answer.task else asked
    past = _waited_for(record, lambda: explain_past(record, ended))
    if past is not None:
        return past
    if answer.state is State.UNKNOWN:
        raise _unknown(connection, record, asked, answer)
    return answer


def _asked(task: object) -> str:
    if isinstance(task, AppFuture):
        return str(task.task_id)
    if isinstance(task, bool) or not isinstance(task, (int, str)):
        raise ConfigError(f"explain(task) takes a future, a task's number or its name, not {kind(task)}.")
    asked = str(task).strip()
    if not 0 < len(asked) <= NAME_MAX:
        raise ConfigError("explain(task) takes a task's number or its name, as text that is not empty or very long.")
    return asked


def _waited_for(record: Path, look: Callable[[], T]) -> T:
    """What is found in the store, which may be a moment behind."""
    deadline = time.monotonic() + RECORD_TIMEOUT_S
    while not (found := look()) and record.exists() and time.monotonic() < deadline:
        time.sleep(FLUSH_PERIOD_S / 5)
    return found


def _of_future(record: Path, future: AppFuture[Any]) -> Explanation:
    """How it ended, and when, if the store has that already."""
    try:
        error = future.exception(0)
    except CancelledError:
        state, kind_, text = State.CANCELLED, Kind.CANCELLED, "Its future was cancelled."
    else:
        if error is None:
            state, kind_, text = State.DONE, Kind.DONE, "It has a result."
        else:
            state, kind_, text = State.FAILED, Kind.FAILED, f"{type(error).__name__}: {error}"
    past = explain_past(record, str(future.task_id))
    if past is not None and past.state is state:
        return past
    return Explanation(future.task_id, future.name, state, (Reason(kind_, text),))


def _unknown(connection: Connection, record: Path, asked: str, answer: Explanation) -> PilotflowError:
    reason = answer.reasons[0]
    if reason.kind is Kind.SILENT:
        return InfrastructureError(f"Nothing is known of task '{asked}' here. {reason.text} {reason.advice}".strip())
    run = f"Run {connection.run_id}"
    kept = "and its record has none that ended" if record.exists() else "and it keeps no record of those that ended"
    if asked.isdecimal():
        return ConfigError(f"{run} has no task {asked}: no such task is pending, {kept}.")
    names = past_names(record)
    known = f" Its tasks are called: {listed(sorted(names))}." if names else ""
    hint = did_you_mean(asked, names)
    return ConfigError(f"{run} has no task called '{asked}'{hint}: none is pending, {kept}.{known}")
