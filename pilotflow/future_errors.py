"""The exceptions that futures end with, from what the interchange tells of their tasks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final, Generic, TypeVar

import msgspec

from pilotflow.core.graph import Oversized
from pilotflow.errors import (
    BashExitError,
    BlockStartError,
    DependencyError,
    InternalError,
    MemoryLimitExceeded,
    PilotflowError,
    RequestTooLarge,
    SerializationError,
    TaskError,
    TaskTimeout,
    WalltimeExceeded,
    WorkerLost,
)
from pilotflow.messages.records import ENDED_WHILE_IT_RAN, Excess, Status, decode_excess
from pilotflow.missing import explain_surroundings
from pilotflow.remote_errors import add_note, unpack_exception
from pilotflow.runtime.tails import tail
from pilotflow.serialize import Packed
from pilotflow.units import format_duration, format_memory

T = TypeVar("T")

_CHAIN_MAX: Final = 9
"""Tasks that a `DependencyError` names."""
NOT_THERE_YET: Final = "it stands for a part of a result that is not there yet"
_HAS_RUN: Final = (Status.LOST, Status.EXCEEDED)
"""How tasks end that have run, and of which we say how they ended."""


class TaskFuture(Future[T], Generic[T]):
    """A future of one of our tasks, as errors name it.

    Attributes:
        task_id: the task's number in its run.
        name: name of the app or function.
        stdout, stderr: paths of the files that the task's output goes to, or None.
    """

    task_id: int
    name: str
    # Most tasks have none, so these are the class's and set in an instance's dictionary when there are some.
    label: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    # Only of those that failed: whether somebody has asked why, and who is told of that.
    is_seen: bool = False
    when_seen: Callable[[], None] | None = None


def failure_of(future: TaskFuture[Any], status: Status, packed: Packed) -> BaseException:
    """The exception of a task that has ended so; it tells where the task's output is, if that went to files.

    What the task raised stays as it is, and has that as a note. In what we say ourselves it is the last line.
    """
    error = error_of(status, packed, future.name)
    future.is_seen = True
    if future.when_seen is not None:
        future.when_seen()
    output = _output_of(future, error)
    if output and status is Status.ERROR:
        add_note(error, output)
    elif output and status in _HAS_RUN:
        error.args = (f"{error}\n{output}", *error.args[1:])
    return error


def _output_of(future: TaskFuture[Any], error: BaseException) -> str:
    """Where a task's output is, in words; empty if it went to no file, or the error tells already."""
    out, err = future.stdout, future.stderr
    if isinstance(error, BashExitError) and error.stderr is not None:
        err = None
    task = f"of {_named(future)}"
    if out is not None and err is not None:
        return f"The stdout {task} is in {out}, its stderr in {err}" if out != err else f"The output {task} is in {out}"
    if out is None and err is None:
        return ""
    return f"The stdout {task} is in {out}" if err is None else f"The stderr {task} is in {err}"


def error_of(status: Status, packed: Packed, name: str) -> BaseException:
    """The exception of a task that has ended so; `name` is the task's."""
    if status is Status.ERROR:
        return explain_surroundings(unpack_exception(*packed))
    if status is Status.EXCEEDED:
        return _excess_error(decode_excess(packed.payload), name)
    lines: list[str] = msgspec.msgpack.decode(packed.payload)
    if status is Status.LOST:
        last_words = lines[-1].partition("\n")[2] if lines else ""
        lines = [line.partition("\n")[0] for line in lines]
        history = "\n".join(f"  {line}" for line in lines)
        tries = "once" if len(lines) == 1 else f"{len(lines)} times"
        advice = "Look for crashes or memory exhaustion in the task; raise crash_limit if the nodes are at fault."
        if lines and ENDED_WHILE_IT_RAN in lines[-1]:
            advice = (
                "It is never run twice, since its crash_limit is 1. Say its `runtime`, so that it starts only where "
                "there is time for it, or raise crash_limit if it may run again."
            )
        text = f"The worker running '{name}' was lost {tries}, which is its crash limit:\n{history}\n"
        return WorkerLost(f"{text}{last_words}\n{advice}" if last_words else f"{text}{advice}", tuple(lines))
    if status is Status.TOO_LARGE:
        return RequestTooLarge(f"Task '{name}' can run nowhere in this run. {' '.join(lines)}")
    if status is Status.UNSTARTABLE:
        return BlockStartError("\n".join(lines))
    return InternalError(f"task '{name}' ended as {status!r}, which no future understands")


def _excess_error(excess: Excess, name: str) -> TaskError:
    asked, taken = excess.asked, excess.taken
    if excess.kind == "runtime":
        return TaskTimeout(
            f"'{name}' ran for {format_duration(taken)} on {excess.where} and was ended: its runtime is "
            f"{format_duration(asked)}. Ask for a longer runtime, or give it less to do."
        )
    if excess.kind == "timeout":
        return TaskTimeout(
            f"'{name}' ran for {format_duration(taken)} and was ended on {excess.where}: its timeout is "
            f"{format_duration(asked)}, for all its attempts together. Give it a longer timeout, or less to do."
        )
    if excess.kind == "walltime":
        return WalltimeExceeded(
            f"'{name}' was running when the walltime of its block was over, {excess.asked:g} times; it got at most "
            f"{format_duration(taken)}, the last time on {excess.where}. Give the executor's blocks a longer "
            "walltime, or say the task's runtime, so that it only starts where it can end.",
            taken,
        )
    used = f"used {format_memory(int(taken))}" if taken else "used too much memory"
    wanted = f"it asked for {format_memory(int(asked))}" if asked else "it had not said how much it needs"
    if excess.by_system:
        text = (
            f"'{name}' was ended by the system, because the memory of {excess.where} was exhausted; {used}, {wanted}."
        )
    else:
        text = f"'{name}' {used} on {excess.where} and was ended: {wanted}."
    return MemoryLimitExceeded(f"{text} Ask for more memory, or give it less to do.", int(asked), int(taken))


def dependency_failed(
    need: Future[Any], dependent: Future[Any], error: BaseException | None = None, did: str = "did not run"
) -> DependencyError:
    """The error of a task that needed this one; `__cause__` is what failed first.

    Args:
        need: what the task needed.
        dependent: the task's future.
        error: why that result cannot be used, if `need` itself did not fail.
        did: what became of the task, in words.
    """
    cause = CancelledError() if need.cancelled() else need.exception() or error
    root: BaseException | None
    if isinstance(cause, DependencyError) and cause.chain:
        chain, root = (_named(need), *cause.chain), cause.__cause__ or cause
        stderr, stderr_tail = cause.stderr, cause.stderr_tail
        if len(chain) > _CHAIN_MAX:  # else the errors of a long chain of tasks fill the memory
            half = _CHAIN_MAX // 2
            chain = (*chain[:half], "...", *chain[half - _CHAIN_MAX + 1 :])
    else:
        chain, root = (_named(need),), cause
        stderr = need.stderr if isinstance(need, TaskFuture) else None
        stderr_tail = "" if stderr is None else tail(stderr)
    failure = DependencyError(
        _text(_named(dependent), did, chain, root, stderr, stderr_tail), chain, stderr, stderr_tail
    )
    failure.__cause__ = root
    return failure


def too_long(name: str, task: Oversized, limit: int | None) -> SerializationError:
    """A task's arguments have become too long with the results that it needs."""
    own, *results = task.parts
    needed = f"the {len(results)} results they need" if len(results) > 1 else "the result they need"
    longest = f"; the longest of these results has {max(results)}" if len(results) > 1 else ""
    return SerializationError(
        f"the arguments of '{name}' have {own + sum(results)} bytes with {needed}, more than max_message_bytes={limit}"
        f"{longest}; raise that limit, or have the results written to files and pass their paths"
    )


def copied(error: BaseException) -> BaseException:
    """One for each who is told, so that their tracebacks do not grow together."""
    if not isinstance(error, PilotflowError):
        return error
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def _named(future: Future[Any]) -> str:
    """A task as messages call it; other futures by their class."""
    return f"'{future.name}' (task {future.task_id})" if isinstance(future, TaskFuture) else f"'{future!r}'"


def _text(
    name: str, did: str, chain: tuple[str, ...], root: BaseException | None, stderr: str | None, stderr_tail: str
) -> str:
    how = "was cancelled" if isinstance(root, CancelledError) else f"failed: {type(root).__name__}: {root}"
    which = "which" if len(chain) == 1 else "of which the last"
    text = f"{name} {did}: it needs {' <- '.join(chain)}, {which} {how}"
    if stderr is None or isinstance(root, (BashExitError, CancelledError)):  # the first has told already
        return text
    if stderr_tail:
        return f"{text}\nThe stderr of {chain[-1]} ({stderr}) ends with:\n{stderr_tail}"
    return f"{text}\nThe stderr of {chain[-1]} ({stderr}) is empty, or cannot be read here."
