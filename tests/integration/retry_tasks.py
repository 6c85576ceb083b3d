"""Tasks that fail a few times, or take too long, as tests say. Imports little."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def fail_times(path: str, times: int) -> int:
    """Write the time to a file, and fail as long as it has no more than that many lines."""
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{time.monotonic()}\n")
    tries = len(Path(path).read_text(encoding="ascii").splitlines())
    if tries <= times:
        raise ConnectionError(f"try {tries}")
    return tries


def tries_of(path: Path) -> list[float]:
    return [float(line) for line in path.read_text(encoding="ascii").splitlines()]


def sleep_then_fail(seconds: float, path: str) -> None:
    with open(path, "a", encoding="ascii") as file:
        file.write("0\n")
    time.sleep(seconds)
    raise ConnectionError("after its sleep")


def fail_twice_then_sleep(seconds: float, path: str) -> None:
    """Fail after so long, but at the third try take a minute."""
    tries = len(Path(path).read_text(encoding="ascii").splitlines()) if Path(path).exists() else 0
    sleep_then_fail(seconds if tries < 2 else 60.0, path)


def sleep_in_c(path: str) -> None:
    """Block every signal, and wait in C code that no exception can interrupt."""
    import ctypes
    import signal

    Path(path).write_text(str(os.getpid()), encoding="ascii")
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    libc = ctypes.CDLL(None)
    for _ in range(100):
        libc.sleep(60)


def what_came(value: Any, other: Any = None) -> Any:
    return type(value).__name__, str(value), other
