"""What a task can learn about itself while it runs."""

from __future__ import annotations

import os
import socket
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from pilotflow.errors import RunClosed
from pilotflow.ids import WORKER_VARIABLE


class Seated(Protocol):
    """What a worker knows of its task's place."""

    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    runtime_s: float | None
    ends_at: float | None


@dataclass(frozen=True)
class TaskContext:
    """The task that is running here.

    Attributes:
        id: its number in the run.
        attempt: which attempt this is; it grows, but not always by one.
        node: the host it runs on.
        worker: its worker's number on that node.
        cores, gpus: logical indices of what it has of the node.
        runtime_s: its time limit in seconds, or None.
        started_at: when it began, in seconds since 1970.
        ends_at: when its block ends, in seconds since 1970, or None if that is not known.
    """

    id: int
    attempt: int
    node: str
    worker: str
    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    runtime_s: float | None
    started_at: float
    ends_at: float | None

    def time_left(self) -> float | None:
        """Seconds until the task's runtime or its block's walltime is over, whichever comes first; None for no end.

        Example:
            >>> while work and current_task().time_left() > 30: ...
        """
        ends = [self.ends_at] if self.ends_at is not None else []
        if self.runtime_s is not None:
            ends.append(self.started_at + self.runtime_s)
        return max(0.0, min(ends) - time.time()) if ends else None


RUNNING: ContextVar[tuple[int, int, int, Seated] | None] = ContextVar("pilotflow_running_task", default=None)
"""Id, attempt, start in ns since 1970, and seat of the worker's task.

Threads that a task starts have it if they copy the context.
"""


def current_task() -> TaskContext:
    """The task that is running here.

    Raises:
        RunClosed: no task runs here.
    """
    running = RUNNING.get()
    if running is None:
        raise RunClosed("No task is running here: current_task() is for the functions that workers call.")
    id, attempt, started_ns, seat = running
    return TaskContext(
        id,
        attempt,
        socket.gethostname(),
        os.environ.get(WORKER_VARIABLE, ""),
        seat.cores,
        seat.gpus,
        seat.runtime_s,
        started_ns / 1e9,
        seat.ends_at,
    )
