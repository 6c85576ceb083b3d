"""The files of a cache: one for each call whose result is known, named by the digest of its key.

A file is written aside and renamed, and says by its own digest that it is whole. So any number of
programs on any number of hosts may use one cache at once, and be killed at any moment; what a crash
of the machine has damaged counts as missing.

Its layout is that of `framefile`, with the digest at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from pilotflow.caching.keys import CallKey, Part
from pilotflow.errors import ConfigError
from pilotflow.framefile import parsed, pieces, read_header, write_pieces
from pilotflow.serialize import Packed

MAGIC: Final = b"pfcache1"
MAPPED_BYTES: Final = 1 << 20
"""Files from this size on are mapped, not read."""
ABANDONED_S: Final = 86_400.0
"""A file that another host's program has begun so long ago will not be finished."""
_END_BYTES: Final = 20
_PART: Final = re.compile("[0-9a-f]{2}")


class FileMark(msgspec.Struct, frozen=True, array_like=True):
    """A file that a call has made, as it was when the call ended."""

    path: str
    size: int
    mtime_ns: int


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a call besides its result.

    Attributes:
        app: the app's name.
        parts: what its key is made of.
        created: when the call ended, in seconds since 1970.
        files: files that the call has made; a result is of use only while they are as they were.
        stdout, stderr: where its output went, or None.
        classes: whether the result holds classes by value.
    """

    app: str
    parts: tuple[Part, ...]
    created: float
    files: tuple[FileMark, ...] = ()
    stdout: str | None = None
    stderr: str | None = None
    classes: bool = False

    def changed_file(self) -> str | None:
        """The path of a file of the call that is gone or is another now, or None."""
        return next((mark.path for mark in self.files if mark_of(mark.path) != mark), None)


def mark_of(path: str) -> FileMark | None:
    """How a file is now; None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return FileMark(path, stat.st_size, stat.st_mtime_ns)


class CacheFiles:
    """The files of one cache directory.

    Args:
        directory: made if it is not there.

    Raises:
        ConfigError: it cannot be made or used, or it is not safe.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._entries = directory / "entries"
        self._aside = directory / "aside"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = directory.stat().st_mode
            if mode & 0o002:
                raise ConfigError(
                    f"Everybody may write into the cache directory {directory}, and so run code in your programs: "
                    "results are unpickled. Take that right away (chmod o-w), or choose another directory."
                )
            for part in (self._entries, self._aside):
                part.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"Cannot use the cache directory {directory}: {error.strerror or error}. Choose another with cache=..."
            ) from None
        self._sweep()

    def read(self, digest: bytes) -> tuple[Entry, Packed] | None:
        """The entry and the result of a call, or None if there is none, or none that is whole."""
        path = self._path(digest)
        try:
            with open(path, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                data: Any = (
                    file.read() if size < MAPPED_BYTES else mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
                )
        except OSError:
            return None
        found = _parsed(memoryview(data))
        if found is None:  # it was not renamed by us in this state: a disk was full, or a machine crashed
            with contextlib.suppress(OSError):
                path.unlink()
        return found

    def write(self, key: CallKey, entry: Entry, packed: Packed) -> int:
        """Keep a result; returns how many bytes its file has.

        Raises:
            OSError: it cannot be written.
        """
        aside = self._aside / f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(6)}"
        path = self._path(key.digest)
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                whole = hashlib.blake2b(digest_size=_END_BYTES)
                write_pieces(file.write, pieces(MAGIC, msgspec.msgpack.encode(entry), packed), whole)
                file.write(whole.digest())
                size = file.tell()
            path.parent.mkdir(exist_ok=True)
            aside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise
        return size

    def header(self, digest: bytes) -> Entry | None:
        """What is known of a call besides its result."""
        try:
            with open(self._path(digest), "rb") as file:
                header = read_header(file, MAGIC)
            return None if header is None else msgspec.msgpack.decode(header, type=Entry)
        except (OSError, msgspec.MsgspecError):
            return None

    def changes(self) -> dict[str, int]:
        """The directories of entries, and when something was added to each or removed."""
        with os.scandir(self._entries) as found:
            return {entry.name: entry.stat().st_mtime_ns for entry in found if _PART.fullmatch(entry.name)}

    def digests(self, part: str) -> Iterator[bytes]:
        """The digests of the entries in one of these directories."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self._entries / part):
                with contextlib.suppress(ValueError):
                    yield bytes.fromhex(name)

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._entries / name[:2] / name

    def _sweep(self) -> None:
        """Remove files that will not be finished: their program is gone."""
        for path in self._aside.iterdir():
            host, _, rest = path.name.partition(":")
            pid = rest.partition(":")[0]
            with contextlib.suppress(OSError):
                old = time.time() - path.stat().st_mtime > ABANDONED_S
                if old or (host == socket.gethostname() and pid.isdigit() and not Path(f"/proc/{pid}").exists()):
                    path.unlink()


def _parsed(data: memoryview) -> tuple[Entry, Packed] | None:
    end = max(0, len(data) - _END_BYTES)
    if hashlib.blake2b(data[:end], digest_size=_END_BYTES).digest() != bytes(data[end:]):
        return None
    found = parsed(data[:end], MAGIC)
    if found is None:
        return None
    header, packed = found
    try:
        return msgspec.msgpack.decode(header, type=Entry), packed
    except msgspec.MsgspecError:  # of another version
        return None
