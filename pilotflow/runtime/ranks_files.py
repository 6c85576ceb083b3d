"""The files through which a step's ranks get their call and leave their results.

A step has a directory of its own (0700) under the run directory. Files, not sockets, because the ranks run on
several nodes: the run directory is what all of them can reach anyway (managers read the connection file
there), its permissions protect what is in it as they protect the run's keys, and there is no port to choose,
to encrypt, or to be blocked by a firewall. A rank that is too late or too early finds the same bytes, and
what the dead have written is still there.

call            the function and its arguments, read by every rank
hosts           one line for each rank, its host
result.RANK     what a rank returned or raised
ended.RANK      exit code and host of a rank that failed (see `launchers.rank_text`)
first           the rank that failed first
returned.RANK   the rank's function has returned, of tasks that promise files
last            a rank has found that all have returned
opened          rank 0 has emptied the files that the task's output goes to
stdout, stderr  what the ranks and their launcher printed

Files are written aside and renamed, so that they are whole when they appear, and are opened by their names,
never looked for in a listing: directory listings of network file systems may be old.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pilotflow.memfile import buffer_of, size_of
from pilotflow.names import ImportPath
from pilotflow.runtime.link import Sit
from pilotflow.serialize import Packed

APPEAR_S: Final = 60.0
"""A rank waits so long for a file that was written before it was started: caches of network file systems."""
_POLL_S: Final = 0.02
_LENGTH_BYTES: Final = 8
_FAILED: Final = "ended"


class CallFile(msgspec.Struct, frozen=True):
    """The head of `call`; the frames of the arguments follow.

    Attributes:
        name: the app's name, for messages.
        body: the function, see `pilotflow.bodies.pack_function`.
        payload, layout: its arguments, as in `records.Task`.
        sizes: bytes of each frame.
        path: the submitting program's.
        every_rank: every rank leaves its result, not only rank 0.
        max_bytes: largest result.
        task, attempt, seat: what `current_task` tells of the task.
    """

    name: str
    body: bytes
    payload: bytes
    layout: tuple[int, ...]
    sizes: tuple[int, ...]
    path: ImportPath
    every_rank: bool
    max_bytes: int
    task: int = 0
    attempt: int = 0
    seat: Sit | None = None


class ResultFile(msgspec.Struct, frozen=True):
    """The head of `result.RANK`; the frames of the value or the exception follow.

    Attributes:
        ok: whether it is a value.
        host: where the rank ran.
        payload, layout: as in `records.Result`.
        sizes: bytes of each frame.
        of_all: the exception is about what all ranks have done together.
    """

    ok: bool
    host: str
    payload: bytes
    layout: tuple[int, ...]
    sizes: tuple[int, ...]
    of_all: bool = False


class Ended(msgspec.Struct, frozen=True):
    """What `ended.RANK` says: a shell's exit code (128 + signal), and the host."""

    code: int
    host: str


Head = TypeVar("Head", CallFile, ResultFile)


def sizes_of(packed: Packed) -> tuple[int, ...]:
    """Bytes of each frame of a payload."""
    return tuple(map(size_of, packed.frames))


def write(path: Path, head: CallFile | ResultFile, frames: Sequence[Any]) -> None:
    """Write a file, whole and readable by nobody else.

    Raises:
        OSError: it cannot be written.
    """
    encoded = msgspec.msgpack.encode(head)
    with _aside(path) as file:
        file.write(len(encoded).to_bytes(_LENGTH_BYTES, "big"))
        file.write(encoded)
        for frame in frames:
            file.write(buffer_of(frame))
    _put(path)


def write_text(path: Path, text: str) -> None:
    """Write a file of text, in the same way.

    Raises:
        OSError: it cannot be written.
    """
    with _aside(path) as file:
        file.write(text.encode())
    _put(path)


def _aside(path: Path) -> Any:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.fdopen(os.open(path.with_name(f".{path.name}"), flags, 0o600), "wb")


def _put(path: Path) -> None:
    path.with_name(f".{path.name}").replace(path)


def read(path: Path, kind: type[Head]) -> tuple[Head, list[memoryview]]:
    """The head and the frames of a file; the frames may be changed in place.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not such a file, or not whole.
    """
    with path.open("rb", buffering=0) as file:
        head = _read_head(file, kind)
        view = memoryview(_read_bytes(file, sum(head.sizes)))
    frames, at = list[memoryview](), 0
    for size in head.sizes:
        frames.append(view[at : at + size])
        at += size
    return head, frames


def _read_head(file: FileIO, kind: type[Head]) -> Head:
    length = int.from_bytes(_read_bytes(file, _LENGTH_BYTES), "big")
    data = _read_bytes(file, min(length, os.fstat(file.fileno()).st_size))
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{file.name} is not what it should be: {error}") from None


def _read_bytes(file: FileIO, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = file.readinto(view[at:])
        if not count:
            raise ValueError(f"{file.name} ends {size - at} bytes too early")
        at += count
    return data


def read_when_there(path: Path, kind: type[Head]) -> tuple[Head, list[memoryview]]:
    """As `read`; waits up to `APPEAR_S` for a file that is there already, but not yet for this host."""
    end = time.monotonic() + APPEAR_S
    while True:
        try:
            return read(path, kind)
        except FileNotFoundError:
            if time.monotonic() > end:
                raise
        time.sleep(_POLL_S)


def read_result(directory: Path, rank: int) -> Packed | None:
    """What a rank returned, if it left a result; see `read_error` for exceptions.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    return _read_packed(directory, rank, ok=True)


def read_error(directory: Path, rank: int) -> Packed | None:
    """The exception of a rank, if it left one that can be read."""
    try:
        return _read_packed(directory, rank, ok=False)
    except (OSError, ValueError):
        return None


def _read_packed(directory: Path, rank: int, *, ok: bool) -> Packed | None:
    path = directory / f"result.{rank}"
    try:
        with path.open("rb", buffering=0) as file:
            if _read_head(file, ResultFile).ok is not ok:
                return None
    except FileNotFoundError:
        return None
    head, frames = read(path, ResultFile)
    return Packed(head.payload, head.layout, tuple(frames))


def read_ended(directory: Path, rank: int) -> Ended | None:
    """How a rank ended, if it failed and could say so."""
    try:
        code, host = (directory / f"{_FAILED}.{rank}").read_text().split()
        return Ended(int(code), host)
    except (OSError, ValueError):
        return None


def claim_first(directory: Path, rank: int) -> None:
    """Say that this rank has failed, unless another was first: only one can create the file."""
    try:
        fd = os.open(directory / "first", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    os.write(fd, f"{rank}\n".encode())
    os.close(fd)


def is_last(directory: Path, rank: int, ranks: int) -> bool:
    """Whether all ranks have returned, and nobody else was told so: true for one of those that return last.

    Each leaves its own file and looks at those of the others after that, each name for the first time, so that no
    network file system knows better: whoever leaves the last file finds all.
    """
    _create(directory / f"returned.{rank}")
    return all((directory / f"returned.{other}").exists() for other in range(ranks)) and _create(directory / "last")


def left_early(directory: Path, ranks: int) -> bool:
    """Whether, of a task that promises files, a rank has ended without having returned; then nobody was the last."""
    return any((directory / f"returned.{rank}").exists() for rank in range(ranks)) and not (directory / "last").exists()


def _create(path: Path) -> bool:
    """Make a file; False if it is there."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def read_broken(directory: Path, rank: int) -> Packed | None:
    """The exception of a rank, if it is about what all ranks have done together."""
    try:
        head, frames = read(directory / f"result.{rank}", ResultFile)
    except (OSError, ValueError):
        return None
    return Packed(head.payload, head.layout, tuple(frames)) if head.of_all else None


def read_first(directory: Path) -> int | None:
    """The rank that failed first, if one could say so."""
    try:
        return int((directory / "first").read_text())
    except (OSError, ValueError):
        return None
