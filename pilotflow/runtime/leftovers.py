"""Processes of runs whose program is gone: what detached itself and outlived everything.

Every process of a run carries an environment variable that names the run and its program. The
next start of a run ends those whose program does not exist any more, and says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from pathlib import Path

from pilotflow.ids import RUN_VARIABLE


def mark(run_id: str, pid: int) -> str:
    """The variable's value for processes of a run: run id, program's pid and its start time."""
    return f"{run_id}:{pid}:{_start_time(pid)}"


def end_those_of_dead_programs(log: logging.Logger) -> list[int]:
    """End our user's processes that belong to runs whose program is gone; returns their pids."""
    ended: list[int] = []
    needle = f"{RUN_VARIABLE}=".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:  # another user's, or gone
            continue
        if needle not in environment:
            continue
        value = next(v[len(needle) :] for v in environment.split(b"\0") if v.startswith(needle)).decode()
        run_id, _, program = value.partition(":")
        pid, _, start = program.partition(":")
        if not pid.isdigit() or _start_time(int(pid)) == start:
            continue
        log.warning("ending process %s, left over from run %s whose program (pid %s) is gone", entry, run_id, pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(int(entry), signal.SIGKILL)
            ended.append(int(entry))
    return ended


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if there is none of that pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
