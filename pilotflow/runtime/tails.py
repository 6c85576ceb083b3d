"""The end of a text file, as messages show it."""

from __future__ import annotations

import os
from typing import Final

TAIL_LINES: Final = 15
"""Lines that an error shows."""
TAIL_BYTES: Final = 8192
"""Bytes in which they are looked for."""


def tail(path: str | os.PathLike[str], lines: int = TAIL_LINES) -> str:
    """The last lines of a text file, or nothing if there are none or it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return last_lines(text, lines)


def last_lines(text: str, lines: int = TAIL_LINES) -> str:
    """So much of a text."""
    return "\n".join(text.rstrip().splitlines()[-lines:])
