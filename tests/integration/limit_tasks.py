"""Tasks for tests of seats and limits; workers import them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pilotflow import current_task


def sleep_and_clean(path: str, seconds: float) -> None:
    try:
        time.sleep(seconds)
    finally:
        Path(path).write_text("cleaned")


def never_end() -> None:
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001  what it must not be able to do
            continue


def fill(nbytes: int, seconds: float) -> int:
    held = bytearray(nbytes)
    held[::4096] = b"x" * len(range(0, nbytes, 4096))
    time.sleep(seconds)
    return len(held)


def environment(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def use(seconds: float) -> tuple[int, int, str, int]:
    """(start, end, visible GPUs, pid), times in nanoseconds of the monotonic clock."""
    start = time.monotonic_ns()
    time.sleep(seconds)
    return start, time.monotonic_ns(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.getpid()


def wait_for(path: str) -> str:
    while not Path(path).exists():
        time.sleep(0.01)
    return path


def wait_or_use(path: str | None) -> str | None:
    """Wait for a file, or be short."""
    return None if path is None else wait_for(path)


def hold(seconds: float) -> tuple[int, int, str, tuple[int, ...]]:
    """(start, end, visible GPUs, cores), times in nanoseconds of the monotonic clock."""
    start = time.monotonic_ns()
    time.sleep(seconds)
    return start, time.monotonic_ns(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), current_task().cores


def affinity(path: str | None = None) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(cores, ids of the CPUs that it may run on, pid), after a file is there."""
    if path is not None:
        wait_for(path)
    return current_task().cores, tuple(sorted(os.sched_getaffinity(0))), os.getpid()


def note_warning(path: str) -> str:
    """Handle the first warning like a program that saves its state, and go on; the next time there is no need."""
    saved = Path(path)
    if saved.exists():
        return saved.read_text()
    left = current_task().time_left()
    assert left is not None
    warned: list[float] = []
    signal.signal(signal.SIGTERM, lambda *_: warned.append(current_task().time_left() or 0.0))
    while not warned:
        time.sleep(0.01)
    saved.write_text(f"{left} {warned[0]}")
    time.sleep(600)
    return "never"


def sleep_and_note(path: str, seconds: float) -> None:
    """Add a line when it begins."""
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(seconds)


def fill_and_note(path: str, nbytes: int) -> int:
    """Add a line, and then take memory."""
    sleep_and_note(path, 0.0)
    return fill(nbytes, 5.0)


def time_left() -> tuple[int, float | None, tuple[int, ...]]:
    task = current_task()
    return task.id, task.time_left(), task.cores


_KEPT: list[bytearray] = []


def leak(nbytes: int) -> int:
    held = bytearray(nbytes)
    held[::4096] = b"x" * len(range(0, nbytes, 4096))
    _KEPT.append(held)
    return os.getpid()
