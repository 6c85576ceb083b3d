"""Who has a run: one program at a time, by a lock on a file in its directory."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from pilotflow.errors import ConfigError

LOCK: Final = "coordinator.lock"
LOOKS: Final = 10
LOOK_S: Final = 0.05


class Held(NamedTuple):
    """Who has a run."""

    pid: int
    host: str


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Have the run, as the only program.

    Raises:
        ConfigError: another one has it.
    """
    with _open_lock(directory) as file:
        if not _lock_soon(file):
            held = holder(directory)
            who = f" (pid {held.pid} on {held.host})" if held is not None else ""
            raise ConfigError(
                f"Run {directory.name} is running: another program has it{who}. "
                f"See it with `pilotflow attach {directory.name}`, or end it with `pilotflow cancel {directory.name}`."
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()} {os.uname().nodename}\n")
        file.flush()
        yield


def _lock_soon(file: IO[str]) -> bool:
    """Lock it; whoever only looks whether it is locked is gone in a moment."""
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(LOOK_S)
        else:
            return True
    return False


def is_held(directory: Path) -> bool:
    """Whether a program of this host has the run."""
    try:
        with open(directory / LOCK, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _open_lock(directory: Path) -> IO[str]:
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return os.fdopen(fd, "r+", encoding="utf-8")


def holder(directory: Path) -> Held | None:
    """Who had the run last, as it says itself."""
    try:
        pid, host = (directory / LOCK).read_text(encoding="utf-8").split()
        return Held(int(pid), host)
    except (OSError, ValueError):
        return None
