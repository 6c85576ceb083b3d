"""What the kernel says of a process, by its state in /proc/PID/stat, see proc_pid_stat(5)."""

from __future__ import annotations

import os
from typing import Final

_STOPPED: Final = b"Tt"
_STUCK: Final = b"DTtZX"
"""Stopped, dead, or in the kernel's hands, where the freezer of version 1 of cgroups also keeps whom it freezes."""


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (SIGSTOP), or a debugger."""
    state = _state(pid)
    return bool(state) and state in _STOPPED


def goes_on(pid: int) -> bool:
    """Whether nothing says that a process is stopped, frozen or dead; so also of one of another namespace, whose pid is 0."""
    state = _state(pid)
    return state not in _STUCK if state else not pid or _exists(pid)


def _exists(pid: int) -> bool:
    """Whether there is such a process, where /proc does not say so."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _state(pid: int) -> bytes:
    """One letter; empty if there is no such process, or none that is shown to us."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(256).rpartition(b") ")[2][:1]
    except OSError:
        return b""
