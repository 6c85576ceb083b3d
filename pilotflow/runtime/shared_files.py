"""Shared values where tasks use them: files that every process of a node maps into its memory."""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from pilotflow.errors import SerializationError
from pilotflow.framefile import parsed, pieces, write_pieces
from pilotflow.runtime import node_files
from pilotflow.runtime.filesystems import is_local
from pilotflow.serialize import Packed, unpack

MAGIC: Final = b"pfshare1"


class SharedFile(NamedTuple):
    """What travels in the place of a shared value: it becomes the value where it is unpickled.

    Attributes:
        path: its file in the run directory.
        what: the value, in words.
        node_copy: whether each node copies the file; None to do so if it is on a network file system.
    """

    path: str
    what: str
    node_copy: bool | None

    def __reduce__(self) -> tuple[Any, ...]:
        return opened, tuple(self)


def write(directory: Path, packed: Packed) -> Path:
    """Write a value into a directory, under a name that is made of its content.

    Raises:
        OSError: it cannot be written.
    """
    aside = directory / f"{secrets.token_hex(8)}.part"
    content = hashlib.blake2b(digest_size=20)
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            write_pieces(file.write, pieces(MAGIC, b"", packed), content)
        path = directory / content.hexdigest()
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return path


def opened(path: str, what: str, node_copy: bool | None) -> Any:
    """A shared value: arrays in it lie in memory that all processes of this node share, and cannot be changed.

    Raises:
        SerializationError: it is not there any more, or its file is damaged.
    """
    try:
        data = _mapped(path, node_copy)
    except FileNotFoundError:
        raise SerializationError(
            f"the shared {what} is not there any more: {path} is gone. A shared value lasts as long as its run, and as "
            "its program keeps it or tasks take it; share it again"
        ) from None
    except (OSError, ValueError) as error:
        raise SerializationError(f"the shared {what} in {path} cannot be read on this node: {error}") from None
    found = parsed(data, MAGIC)
    if found is None:
        raise SerializationError(f"the shared {what} in {path} is damaged; share it again")
    return unpack(*found[1], in_place=True)


@lru_cache(maxsize=2)  # the next task will want it, and finds its pages where they are
def _mapped(path: str, node_copy: bool | None) -> memoryview:
    source = Path(path)
    copy = node_files.copied(source) if _is_to_be_copied(source.parent, node_copy) else None
    with open(copy or source, "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _is_to_be_copied(directory: Path, node_copy: bool | None) -> bool:
    return not _is_local(directory) if node_copy is None else node_copy


@lru_cache(maxsize=16)
def _is_local(directory: Path) -> bool:
    return is_local(directory / "x")
