"""Process groups of this machine, found in /proc: who belongs to a session, and how to end them all.

A session is named "PID:START", its leader's process id and start time in clock ticks since boot, so
that a process id which was given to somebody else in the meantime is never mistaken for it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final, NamedTuple

GRACE_S: Final = 2.0
"""Seconds between SIGTERM and SIGKILL."""
STUBBORN_S: Final = 5.0
"""Seconds after the first SIGKILL when a process that is still there is given up (it hangs in the kernel)."""
_GONE: Final = frozenset("ZXx")


class Process(NamedTuple):
    """One line of /proc/PID/stat."""

    pid: int
    state: str
    parent: int
    group: int
    session: int
    start: int


def read(pid: int) -> Process | None:
    """The process with this id, or None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return Process(pid, fields[0].decode(), int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def name_of(pid: int) -> str:
    """The session that this process leads, as "PID:START".

    Raises:
        ProcessLookupError: there is no such process.
    """
    process = read(pid)
    if process is None:
        raise ProcessLookupError(f"no process {pid}")
    return f"{pid}:{process.start}"


def parse(name: str) -> tuple[int, int] | None:
    """Process id and start time from "PID:START", or None if it is not of that form."""
    pid, _, start = name.partition(":")
    return (int(pid), int(start)) if pid.isdecimal() and start.isdecimal() and int(pid) > 1 else None


def is_running(pid: int, start: int) -> bool:
    """Whether this very process is still there and has not ended."""
    process = read(pid)
    return process is not None and process.start == start and process.state not in _GONE


def members(leader: int) -> dict[int, Process]:
    """All living processes of a session, and their descendants in other sessions; parents come before their children.

    A shell whose command is ended before itself goes on with the next one.
    """
    everyone = {int(name): p for name in os.listdir("/proc") if name.isdecimal() and (p := read(int(name)))}
    children: dict[int, list[int]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: dict[int, Process] = {}
    own = {process.pid for process in everyone.values() if leader in {process.pid, process.session}}
    to_do = sorted(own, key=lambda pid: everyone[pid].parent not in own)  # those without a parent here are taken first
    while to_do:
        pid = to_do.pop()
        if pid not in found:
            found[pid] = everyone[pid]
            to_do.extend(children.get(pid, ()))
    return {pid: process for pid, process in found.items() if process.state not in _GONE}


class Ending:
    """Ends a session: SIGTERM at once, SIGKILL after `GRACE_S`. Call `step` until it says True.

    Args:
        leader: process id of the session's leader. Nobody else may have that id: the leader lives, or is
            a zombie, or something is left of its session.
        now: monotonic clock, in seconds.
    """

    def __init__(self, leader: int, now: float) -> None:
        self._leader = leader
        self._kill_at = now + GRACE_S
        self._known: dict[int, int] = {}  # process id: start time of every process seen, also if it left the tree
        self._signal(signal.SIGTERM)

    def step(self, now: float) -> bool:
        """Go on; True when all processes are gone, or cannot be ended."""
        if now >= self._kill_at:
            left = self._signal(signal.SIGKILL)
            return not left or now >= self._kill_at + STUBBORN_S
        return not self._left()

    def _left(self) -> list[Process]:
        current = members(self._leader)
        left = [p for pid, start in self._known.items() if pid not in current and (p := _same(pid, start))]
        self._known.update((pid, process.start) for pid, process in current.items())
        return [*current.values(), *left]

    def _signal(self, number: signal.Signals) -> bool:
        left = self._left()
        if any(process.group == self._leader for process in left):
            _quietly(os.killpg, self._leader, number)  # all at once, also what is being forked now
        for process in left:
            if process.group != self._leader:
                _quietly(os.kill, process.pid, number)
                if number == signal.SIGTERM:
                    _quietly(os.kill, process.pid, signal.SIGCONT)
        if number == signal.SIGTERM and left:
            _quietly(os.killpg, self._leader, signal.SIGCONT)  # what is stopped could not obey
        return bool(left)


def _same(pid: int, start: int) -> Process | None:
    process = read(pid)
    return process if process and process.start == start and process.state not in _GONE else None


def _quietly(send: object, target: int, number: signal.Signals) -> None:
    assert callable(send)
    try:
        send(target, number)
    except (ProcessLookupError, PermissionError):
        pass  # it is gone, or it belongs to somebody else now
