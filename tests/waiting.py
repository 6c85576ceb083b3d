"""How tests wait: for what they want to see, and with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T | Literal[False] | None], what: str = "it", timeout_s: float = 60.0) -> T:
    """What the condition gives once it is true; fails when it does not come in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if value := condition():
            return value
        now = time.monotonic()
        assert now < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(max(0.01, 2 * (now - began)))  # looks that cost much take no more than a third of the time


def logged(directory: Path, *texts: str) -> str:
    """The log of a run, once all of these are in it: a thread writes it, which a busy machine may hold up."""

    def found() -> str | None:
        log = (directory / "pilotflow.log").read_text()
        return log if all(text in log for text in texts) else None

    return until(found, f"{texts} in the log of {directory}")
