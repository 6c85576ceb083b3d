"""What a job's inputs were like when it was handed out, to see later whether they have changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

HASHED_MAX: Final = 1 << 20
"""Files up to this many bytes are known by their content, larger ones by size and time of change."""


class Print(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a file: bytes, time of change in ns, and a digest of its content if it is small."""

    size: int
    changed_ns: int
    digest: str = ""


def print_of(path: Path) -> Print | None:
    """What a file is like; None if it is not there. A directory is known by its time of change."""
    try:
        stat = path.stat()
        small = stat.st_size <= HASHED_MAX and path.is_file()
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if small else ""
    except OSError:
        return None
    return Print(stat.st_size, stat.st_mtime_ns, digest)


def encode_prints(paths: Iterable[str], home: Path) -> str:
    """Of each file what it is like, as JSON by path."""
    found = {path: print_of(Path(os.path.join(home, path))) for path in paths}
    return msgspec.json.encode(found).decode()


def changed_since(recorded: str, home: Path) -> list[str]:
    """Paths of the files that are not as they were recorded."""
    before: Mapping[str, Print | None] = msgspec.json.decode(recorded, type=dict[str, Print | None])
    return [path for path, was in before.items() if _differs(was, Path(os.path.join(home, path)))]


def _differs(was: Print | None, path: Path) -> bool:
    now = print_of(path)
    if was is None or now is None:
        return was is not now
    if (was.size, was.changed_ns) == (now.size, now.changed_ns):
        return False
    return not was.digest or was.digest != now.digest
