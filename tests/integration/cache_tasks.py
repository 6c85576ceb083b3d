"""Functions that tests of the cache run; each call leaves a line in a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any


def noted(log: str, value: Any = None) -> Any:
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{value!r}\n")
    return value


def double(x: Any, log: str) -> Any:
    noted(log, x)
    return x * 2


def fail_once(x: int, log: str, cue: str | None = None) -> int:
    """Fails the first time, and not before that file is there."""
    first = not Path(log).exists()
    noted(log, x)
    if first:
        _await(cue)
        raise ValueError("not yet")
    return x


def wait_for(path: str, log: str) -> str:
    noted(log, "waits")
    _await(path)
    return "seen"


def _await(path: str | None) -> None:
    deadline = time.monotonic() + 60
    while path is not None and not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def writes(log: str, stdout: str = "") -> str:
    noted(log)
    print("printed")
    return stdout


def command(word: str, log: str) -> str:
    return f"echo {word} >> {log}; echo {word}"
