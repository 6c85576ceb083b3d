"""The end of a text file, as messages show it: few lines, short ones, and nothing that a terminal would obey."""

from __future__ import annotations

import os
import re
import stat
from typing import Final

TAIL_LINES: Final = 15
"""Lines that an error shows."""
TAIL_BYTES: Final = 8192
"""Bytes in which they are looked for."""
LINE_CHARS: Final = 1000
"""A longer line is shown by its beginning..."""
LINE_END_CHARS: Final = 300
"""...and so much of its end."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])")
"""What colours text, moves the cursor, or names the window (ECMA-48)."""
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffd]+")
_INSIDE_A_CHARACTER = bytes(range(0x80, 0xC0))
"""Bytes with which no UTF-8 character begins."""


def tail(path: str | os.PathLike[str], lines: int = TAIL_LINES) -> str:
    """The last lines of a text file, or nothing if there are none or it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return tail_of(fd, 0, lines)
    finally:
        os.close(fd)


def tail_of(fd: int, start: int, lines: int = TAIL_LINES) -> str:
    """The last lines that stand in an open file behind this byte, or nothing if there are none or it cannot be read."""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):  # what is read from a pipe is gone
            return ""
        start = start if start <= found.st_size else 0  # who opens /dev/stderr to write has emptied it
        begin = max(start, found.st_size - TAIL_BYTES)
        data = os.pread(fd, TAIL_BYTES, begin)
    except OSError:  # of a file system that is gone
        return ""
    if begin == start:
        return last_lines(data.decode(errors="replace"), lines)
    return last_lines(data.lstrip(_INSIDE_A_CHARACTER).decode(errors="replace"), lines, whole=False)


def last_lines(text: str, lines: int = TAIL_LINES, *, whole: bool = True) -> str:
    """So much of a text, as it is to be read.

    Args:
        text: with anything in it.
        lines: how many at most.
        whole: whether its first line is all there.
    """
    all_lines = text.rstrip().split("\n")
    shown = [_readable(line) for line in all_lines[-lines:]]
    if not whole and len(all_lines) <= lines:
        shown[0] = f"[...] {shown[0]}"
    return "\n".join(shown)


def _readable(line: str) -> str:
    """A line as a terminal would leave it: what a progress bar has written last, without colours, and not too long."""
    line = line.rstrip("\r").rpartition("\r")[2]
    line = _UNSHOWN.sub("\ufffd", _ESCAPES.sub("", line))
    cut = len(line) - LINE_CHARS
    if cut <= 0:
        return line
    return f"{line[: LINE_CHARS - LINE_END_CHARS]} [... {cut:,} characters ...] {line[-LINE_END_CHARS:]}"
