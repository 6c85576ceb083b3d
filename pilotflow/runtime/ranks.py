"""What every rank of a Python task runs: it reads the call, calls, and leaves its result.

    python -m pilotflow.runtime.ranks DIRECTORY

The function may use mpi4py, or whatever else finds its peers by the environment. A rank that fails leaves its
exception and ends at once, without a finalizing of MPI that would wait for the others for ever; the launcher
then ends the others.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pilotflow.bodies import unpack_function
from pilotflow.context import RUNNING
from pilotflow.errors import PilotflowError, SerializationError
from pilotflow.messages.records import Task
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime import ranks_files
from pilotflow.runtime.pythons import Python
from pilotflow.runtime.ranks_files import CallFile, ResultFile
from pilotflow.runtime.task_output import Output, flush_output
from pilotflow.runtime.tasks import Setting
from pilotflow.serialize import Packed, pack, unpack_call

FAILED: Final = 1
"""Exit code of a rank whose function raised."""
_OPENED: Final = "opened"
"""File into which rank 0 writes when the output files are empty."""


def rank_argv(directory: Path, python: Python) -> list[str]:
    """The command of one rank.

    Args:
        directory: the step's directory.
        python: how Python is started on the nodes.
    """
    return python.argv("pilotflow.runtime.ranks", str(directory))


def main() -> None:
    """Run one rank, as the command line and the environment say. Returns only if all went well."""
    directory, rank = Path(sys.argv[1]), int(os.environ["PILOTFLOW_RANK"])
    ok, packed = True, Packed(b"")
    every_rank, of_all = True, False
    try:
        call, frames = ranks_files.read_when_there(directory / "call", CallFile)
        every_rank = call.every_rank
        sys.path[:] = call.path.around(sys.path)
        value = _call(call, frames, directory, rank)
        if every_rank or rank == 0:
            packed = _packed(value, call)
    except _Broken as broken:
        ok, of_all, packed = False, True, pack_exception(broken.__cause__ or broken)
    except BaseException as error:  # noqa: BLE001  SystemExit too is the task's result
        ok, packed = False, pack_exception(_without_this_module(error))
    flush_output()
    if not ok:
        ranks_files.claim_first(directory, rank)
    if not ok or every_rank or rank == 0:
        head = ResultFile(ok, platform.node(), packed.payload, packed.layout, ranks_files.sizes_of(packed), of_all)
        ranks_files.write(directory / f"result.{rank}", head, packed.frames)
    if not ok:
        os._exit(FAILED)


def _call(call: CallFile, frames: list[Any], directory: Path, rank: int) -> Any:
    function = unpack_function(call.body)
    try:
        args, kwargs = unpack_call(call.payload, call.layout, frames)
    except SerializationError as error:
        raise _unreadable(call, frames, function, error) from error.__cause__
    frames.clear()
    args = _shared_output(args, directory, rank)
    # A rank that ends first cannot see what others have promised to write: the last one looks.
    promise = next((arg for arg in args if type(arg) is Setting and (arg.outputs or arg.streams)), None)
    args = tuple(arg._replace(outputs=(), uploads=(), streams=()) if type(arg) is Setting else arg for arg in args)
    if call.seat is not None:
        task = Task(call.task, call.attempt, 0, 0, b"")
        RUNNING.set((task, time.time_ns(), call.seat, {0: call.name}))
    value = function(*args, **kwargs)
    if promise is not None and ranks_files.is_last(directory, rank, int(os.environ["PILOTFLOW_NUM_RANKS"])):
        _keep(promise, call.name)
    return value


class _Broken(Exception):
    """What all ranks together have promised is not there; the cause says what."""


def _keep(promise: Setting, name: str) -> None:
    for path in promise.outputs:
        with contextlib.suppress(OSError):  # opening a directory brings a network file system's view of it up to date
            os.close(os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        with promise.with_streams_stored():
            promise.keep_promise(name)
    except PilotflowError as error:
        raise _Broken from error


def _unreadable(
    call: CallFile, frames: Sequence[Any], function: Callable[..., Any], error: SerializationError
) -> SerializationError:
    from pilotflow.blame import broken_argument  # only after a failure

    where = broken_argument(call.payload, call.layout, frames)
    what = f"argument {where}" if where else "an argument, or a result that it needs,"
    name = getattr(function, "__name__", call.name)
    return SerializationError(f"in a call of '{name}': {what} cannot be unpickled on {platform.node()}: {error}")


def _packed(value: Any, call: CallFile) -> Packed:
    try:
        packed = pack(value, snapshot=False)
    except SerializationError as error:
        from pilotflow.blame import unsendable_result  # only after a failure

        raise SerializationError(unsendable_result(value, call.name, error)) from error.__cause__
    if packed.layout and packed.nbytes > call.max_bytes:
        raise SerializationError(
            f"the result has {packed.nbytes} bytes, more than the run's max_message_bytes={call.max_bytes}; "
            "raise that limit, or write the result to a file and return its path"
        )
    return packed


def _without_this_module(error: BaseException) -> BaseException:
    """The exception without the frames of this module above the user's own."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    return error.with_traceback(tb)


def _shared_output(args: tuple[Any, ...], directory: Path, rank: int) -> tuple[Any, ...]:
    """The arguments, with output files that all ranks append to; rank 0 empties those that begin anew."""
    outputs = [arg for arg in args if type(arg) is Output]
    if not outputs:
        return args
    if rank == 0:
        for path, mode in (place for output in outputs for place in output if place is not None):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if mode.startswith("w"):
                open(path, "wb").close()
        _may_open(directory, say_so=True)
    else:
        while not _may_open(directory):  # rank 0 may fail before; the launcher then ends this rank
            time.sleep(0.01)
    return tuple(_appending(arg) if type(arg) is Output else arg for arg in args)


def _may_open(directory: Path, *, say_so: bool = False) -> bool:
    """Whether rank 0 has said that the output files are empty.

    The file is made by whoever comes first: a network file system may go on for half a minute to say that a
    file is not there, but opening one brings its size up to date.
    """
    fd = os.open(directory / _OPENED, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if say_so:
        os.write(fd, b"1")
    size = os.fstat(fd).st_size
    os.close(fd)
    return size > 0


def _appending(output: Output) -> Output:
    return Output(*(None if place is None else (place[0], "a") for place in output))


if __name__ == "__main__":
    main()
