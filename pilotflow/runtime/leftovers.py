"""Processes of runs whose program is gone: what detached itself and outlived everything.

Every process of a run carries an environment variable that names the run and its program. The
next start of a run ends those whose program does not exist any more, and says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from pathlib import Path

from pilotflow.ids import RUN_VARIABLE


def mark(run_id: str, pid: int) -> str:
    """The variable's value for processes of a run: its id, and its program's place, pid and start time."""
    return f"{run_id}:{_place()}:{pid}:{_start_time(pid)}"


def end_those_of_dead_programs(log: logging.Logger) -> list[int]:
    """End our user's processes that belong to runs whose program is gone; returns their pids.

    Only programs of this host and pid namespace are judged: of others nothing can be known here.
    """
    ended: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            if os.stat(f"/proc/{entry}").st_uid != os.getuid():
                continue
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:  # it is gone
            continue
        run_id, place, pid, start = _mark_in(environment)
        if place != _place() or not pid.isdigit() or _start_time(int(pid)) == start:
            continue
        log.warning("ending process %s, left over from run %s whose program (pid %s) is gone", entry, run_id, pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(entry), signal.SIGKILL)
            ended.append(int(entry))
    return ended


def _mark_in(environment: bytes) -> tuple[str, str, str, str]:
    """The parts of the mark in a process's environment; empty if there is none."""
    name = f"{RUN_VARIABLE}=".encode()
    for variable in environment.split(b"\0"):
        if variable.startswith(name):
            parts = variable[len(name) :].decode("utf-8", "replace").split(":")
            if len(parts) == 4:
                return parts[0], parts[1], parts[2], parts[3]
    return "", "", "", ""


def _place() -> str:
    """Where pids mean what they mean here: this host, and this pid namespace."""
    return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if there is none of that pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
