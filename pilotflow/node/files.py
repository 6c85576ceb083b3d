"""Reading what the kernel says about a node: missing, unreadable and rubbish files are no answer, never an error."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_MAX_BYTES: Final = 1 << 20
"""As much of a file as is read; the longest of interest, mountinfo, has some hundred bytes a mount."""
_MAX_CPU: Final = 1 << 16
"""CPU ids above this are rubbish; Linux can be built for at most 8192 CPUs."""
_NUMBER = re.compile(r"-?[0-9]{1,20}")
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


class Files:
    """Files below a root directory, "/" on a real node, named by their absolute paths there."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, name: str) -> str | None:
        """A file's text, or None if it cannot be read."""
        try:
            with open(self._path(name), "rb") as file:
                return file.read(_MAX_BYTES).decode("utf-8", "replace")
        except (OSError, ValueError):  # a name may hold a zero byte
            return None

    def number(self, name: str) -> int | None:
        """The whole number that a file consists of, or None."""
        return number(self.text(name))

    def names(self, directory: str) -> list[str]:
        """The names in a directory, sorted; empty if it cannot be read."""
        try:
            return sorted(os.listdir(self._path(directory)))
        except (OSError, ValueError):
            return []

    def target(self, name: str) -> str:
        """The last part of the path that a symbolic link leads to, as sysfs names devices."""
        return os.path.basename(os.path.realpath(self._path(name)))

    def _path(self, name: str) -> Path:
        return self._root / name.lstrip("/")


def number(text: str | None) -> int | None:
    """A decimal whole number, with blanks around it perhaps, or None."""
    stripped = (text or "").strip()
    return int(stripped) if _NUMBER.fullmatch(stripped) else None


def cpu_list(text: str | None) -> frozenset[int] | None:
    """The CPU ids of a list as the kernel writes it, "0-3,8", or None if it is not one.

    Source: "List format" in cpuset(7).
    """
    cpus: set[int] = set()
    for part in (text or "").strip().split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < _MAX_CPU:
            return None
        cpus.update(range(first, last + 1))
    return frozenset(cpus)
