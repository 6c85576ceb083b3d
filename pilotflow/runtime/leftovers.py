"""Processes of runs whose program is gone: what detached itself, or was not known to anybody yet.

Every process of a run carries, from its first moment, an environment variable that names the run and
its program. When the program is gone, the run's interchange ends what carries the mark, as its last
act; if it is gone too, the next start of any run does, and says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pilotflow.ids import RUN_VARIABLE

GRACE_S: Final = 2.0
"""Processes of a run that is ending have this long to go by themselves."""
_INTERCHANGE: Final = b"pilotflow.runtime.interchange"


class _Marked(NamedTuple):
    """A living process of ours that carries a run's mark, and the mark's parts."""

    pid: int
    run_id: str
    place: str
    program: str
    program_start: str


def mark(run_id: str, pid: int) -> str:
    """The variable's value for processes of a run: its id, and its program's place, pid and start time."""
    return f"{run_id}:{_place()}:{pid}:{_start_time(pid)}"


def durable_mark(run_id: str) -> str:
    """The same for a run that outlives its program: nobody ends its processes but those who go on with it."""
    return f"{run_id}:{_place()}:durable:0"


def is_dead(mark: str) -> bool:
    """Whether a mark names a process of this place, and that is gone."""
    place, pid, start = mark.split(":")[1:]
    return place == _place() and pid.isdigit() and _start_time(int(pid)) != start


def end_those_of_dead_programs(log: logging.Logger) -> list[int]:
    """End our user's processes that belong to runs whose program is gone; returns their pids.

    Only programs of this host and pid namespace are judged: of others nothing can be known here. A run
    whose interchange is still at work is left to it: it cancels pending blocks before it goes.
    """
    here = _place()
    lost = [
        marked
        for marked in _everyone_marked()
        if marked.place == here
        and marked.program.isdigit()
        and _start_time(int(marked.program)) != marked.program_start
    ]
    ending = {marked.run_id for marked in lost if _is_interchange_at_work(marked.pid)}
    return _end([marked for marked in lost if marked.run_id not in ending], log)


def end_those_of(run_id: str, log: logging.Logger) -> list[int]:
    """End what is left here of one run, for whose end everything has been done; returns the pids.

    What ends by itself within `GRACE_S` is waited for.
    """
    deadline = time.monotonic() + GRACE_S
    while left := [marked for marked in _everyone_marked() if marked.run_id == run_id]:
        if time.monotonic() >= deadline:
            return _end(left, log)
        time.sleep(0.05)
    return []


def end_interchange_of(run_id: str, log: logging.Logger) -> list[int]:
    """End the interchange of a run that does not answer, and nothing else; returns the pids."""
    return _end(
        [marked for marked in _everyone_marked() if marked.run_id == run_id and _is_interchange(marked.pid)], log
    )


def _end(left: list[_Marked], log: logging.Logger) -> list[int]:
    ended: list[int] = []
    for pid, run_id, _, program, _ in left:
        log.warning("ending process %d, left over from run %s whose program (pid %s) is gone", pid, run_id, program)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            ended.append(pid)
    return ended


def _everyone_marked() -> Iterator[_Marked]:
    """Our user's living processes that carry a mark, but for this one."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            if os.stat(f"/proc/{entry}").st_uid != os.getuid():
                continue
            environment = Path(f"/proc/{entry}/environ").read_bytes()  # a zombie's is empty
        except OSError:  # it is gone
            continue
        parts = _mark_in(environment)
        if parts is not None:
            yield _Marked(int(entry), *parts)


def _mark_in(environment: bytes) -> tuple[str, str, str, str] | None:
    """The parts of the mark in a process's environment."""
    name = f"{RUN_VARIABLE}=".encode()
    for variable in environment.split(b"\0"):
        if variable.startswith(name):
            parts = variable[len(name) :].decode("utf-8", "replace").split(":")
            if len(parts) == 4:
                return parts[0], parts[1], parts[2], parts[3]
    return None


def _is_interchange(pid: int) -> bool:
    try:
        return _INTERCHANGE in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_interchange_at_work(pid: int) -> bool:
    """Whether this is an interchange, and neither dead nor stopped."""
    fields = _stat(pid)
    return _is_interchange(pid) and bool(fields) and fields[0] not in "TtZX"


def _place() -> str:
    """Where pids mean what they mean here: this host, and this pid namespace."""
    return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty if there is none of that pid."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on; empty if there is none of that pid."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()
