"""What a manager's pool knows of its workers, and what it orders the shell to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from pilotflow.messages import Task


class Cancelled(NamedTuple):
    """A cancel that waits for a worker: under which token, and whether it kills."""

    token: int
    running: bool


@dataclass(eq=False)
class Worker:
    """One worker process. `tasks` are those sent to it, the running one first."""

    id: int
    ready: bool = False
    tasks: deque[Task] = field(default_factory=deque)
    functions: set[int] = field(default_factory=set)
    head_since: float = 0.0
    announced: bool = False
    ending: bool = False  # ordered to be killed
    cancelled: dict[int, Cancelled] = field(default_factory=dict)  # tasks of it that are to be ended
    retracted: set[int] = field(default_factory=set)  # tasks of it that are to be handed back if unread


@dataclass(frozen=True)
class Give:
    """Send this task to that worker, with its function if it does not have it."""

    worker: Worker
    task: Task
    frames: Sequence[Any]


@dataclass(frozen=True)
class Kill:
    """End that worker and everything it started."""

    worker: Worker


@dataclass(frozen=True)
class Spawn:
    """Start a worker with this number."""

    worker: Worker


@dataclass(frozen=True)
class Recall:
    """Take back what that worker has not read yet, and report it to `on_recalled`."""

    worker: Worker


Order: TypeAlias = Give | Kill | Spawn | Recall
