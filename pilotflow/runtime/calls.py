"""Calls the functions of tasks: unpacks, calls, packs, whatever happens on the way."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from pilotflow.bodies import unpack_function
from pilotflow.errors import BashExitError, SerializationError
from pilotflow.messages.records import Status, Task
from pilotflow.missing import note_node
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime.tasks import described, invoke, is_command
from pilotflow.serialize import Packed, pack, unpack_call


class Calls:
    """The functions of a run's tasks, as far as they are known here.

    Args:
        max_bytes: largest result that the run's links carry.
        snapshot: whether a result is copied, since the task's objects may change before it is sent.
    """

    def __init__(self, max_bytes: int, *, snapshot: bool = False) -> None:
        self._max_bytes = max_bytes
        self._snapshot = snapshot
        self._bodies: dict[int, bytes] = {}
        self._functions: dict[int, Callable[..., Any]] = {}
        self._exit_code: int | None = None  # of the command that the last task ran

    def call(self, task: Task, frames: list[Any]) -> tuple[Status, Packed]:
        """Run a task; how it has ended, and its result or error."""
        self._exit_code = None
        try:
            function = self._functions.get(task.fn) or self._load(task.fn)
            try:
                args, kwargs = unpack_call(task.payload, task.layout, frames)
            except SerializationError as error:
                raise _unreadable(task, frames, function, error) from error.__cause__
            frames.clear()
            value = function(*args, **kwargs)
            if is_command(function):
                self._exit_code = 0
        except BaseException as error:  # noqa: BLE001  SystemExit too is the task's result
            if isinstance(error, BashExitError):
                self._exit_code = error.exit_code
            elif isinstance(error, ModuleNotFoundError):
                note_node(error, socket.gethostname())
            return Status.ERROR, pack_exception(error)
        args = kwargs = None  # type: ignore[assignment]
        try:
            packed = pack(value, snapshot=self._snapshot)
        except (SerializationError, KeyboardInterrupt) as error:
            return Status.ERROR, pack_exception(_unsendable(value, function, error))
        if packed.layout and packed.nbytes > self._max_bytes:
            text = (
                f"the result has {packed.nbytes} bytes, more than the run's max_message_bytes={self._max_bytes}; "
                "raise that limit, or write the result to a file and return its path"
            )
            return Status.ERROR, pack_exception(SerializationError(text))
        return Status.OK, packed

    def _load(self, fn: int) -> Callable[..., Any]:
        function = self._functions[fn] = unpack_function(self._bodies[fn])
        return function


def _unsendable(value: Any, function: Callable[..., Any], error: BaseException) -> SerializationError:
    from pilotflow.blame import unsendable_result  # only after a failure

    name = "" if function is invoke else described(function)[0]
    return SerializationError(unsendable_result(value, name, error))


def _unreadable(
    task: Task, frames: Sequence[Any], function: Callable[..., Any], error: SerializationError
) -> SerializationError:
    from pilotflow.blame import broken_argument  # only after a failure

    name, ours = described(function)
    where = broken_argument(task.payload, task.layout, frames, ours)
    what = f"argument {where}" if where else "an argument, or a result that it needs,"
    return SerializationError(f"in a call of '{name}': {what} cannot be unpickled on the worker: {error}")
