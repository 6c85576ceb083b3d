"""What a task can learn about itself while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from pilotflow.errors import ConfigError, RunClosed
from pilotflow.ids import WORKER_VARIABLE
from pilotflow.messages.records import Task
from pilotflow.resources import DEFAULT_REQUEST, Request

RANK_VARIABLE: Final = "PILOTFLOW_RANK"
"""Environment variable with the number of a rank, in each process of a task that has several."""
SCRATCH_VARIABLE: Final = "PILOTFLOW_SCRATCH"
"""Environment variable with the scratch directory of a task that has asked for one."""


class Seated(Protocol):
    """What a worker knows of its task's place."""

    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    runtime_s: float | None
    ends_at: float | None
    request: Request
    run_directory: str
    scratch: str
    nodes: tuple[str, ...]


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
        name: of its app or function.
        run_directory: of its run.
        scratch: its own directory, if it has asked for one with `scratch=True`, else None.
        request: what it has asked for, in exact numbers.
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
    name: str = ""
    run_directory: Path = field(default_factory=Path)
    scratch: Path | None = None
    request: Request = DEFAULT_REQUEST

    def time_left(self) -> float | None:
        """Seconds until the task's runtime or its block's walltime is over, whichever comes first; None for no end.

        Example:
            >>> while work and current_task().time_left() > 30: ...
        """
        ends = [self.ends_at] if self.ends_at is not None else []
        if self.runtime_s is not None:
            ends.append(self.started_at + self.runtime_s)
        return max(0.0, min(ends) - time.time()) if ends else None


RUNNING: ContextVar[tuple[Task, int, Seated, Mapping[int, str]] | None] = ContextVar(
    "pilotflow_running_task", default=None
)
"""The worker's task, its start in ns since 1970, its seat, and the names of functions by their numbers.

Threads that a task starts have it if they copy the context.
"""
_SCRATCH: ContextVar[Path | None] = ContextVar("pilotflow_scratch", default=None)


def current_task() -> TaskContext:
    """The task that is running here.

    Raises:
        RunClosed: no task runs here.
    """
    running = RUNNING.get()
    if running is None:
        raise RunClosed("No task is running here: current_task() is for the functions that workers call.")
    task, started_ns, seat, names = running
    return TaskContext(
        task.id,
        task.attempt,
        socket.gethostname(),
        os.environ.get(WORKER_VARIABLE, ""),
        seat.cores,
        seat.gpus,
        seat.runtime_s,
        started_ns / 1e9,
        seat.ends_at,
        names.get(task.fn, ""),
        Path(seat.run_directory),
        _SCRATCH.get(),
        seat.request,
    )


@contextlib.contextmanager
def scratch_directory(name: str) -> Iterator[Path]:
    """A directory for the task that runs here: removed when it has ended well, kept for who looks for a reason if not.

    Args:
        name: the task's.

    Raises:
        ConfigError: it cannot be made.
    """
    running = RUNNING.get()
    if running is None:
        raise ConfigError(f"'{name}' has asked for a scratch directory, which only tasks on workers have.")
    task, _, seat, _ = running
    rank = os.environ.get(RANK_VARIABLE)
    path = Path(seat.scratch, f"{name}-{task.id:06d}-{task.attempt}" + ("" if rank is None else f"-{rank}"))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the scratch directory of '{name}' cannot be made on {socket.gethostname()}: {error}. Set scratch_dir of the "
            "run's configuration to a place where every node can write."
        ) from None
    token = _SCRATCH.set(path)
    try:
        yield path
    finally:
        _SCRATCH.reset(token)
    shutil.rmtree(path, ignore_errors=True)
