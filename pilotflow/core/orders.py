"""What a manager's pool knows of its workers, and what it orders the shell to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from pilotflow.core.placement import Seat
from pilotflow.messages.records import Excess, Task


class Cancelled(NamedTuple):
    """A cancel that waits for a worker: under which token, and whether it kills."""

    token: int
    running: bool


@dataclass(eq=False)
class Worker:
    """One worker process. `tasks` are those sent to it, the running one first; all are of one class.

    Attributes:
        seat: what its running task has of the node; those sent ahead take it over.
        told: the seat and class that it was last told of.
        peak_bytes: the most memory that its running task was seen to use.
        excess: what its running task has taken too much of; it is to end.
        kill_at: when it is killed for that, if it has not ended.
        setting_up: it has been told to call the executor's setup, and has not said that this is done.
        placed: its task has a place and no process yet: the batch system starts one.
    """

    id: int
    ready: bool = False
    tasks: deque[Task] = field(default_factory=deque)
    functions: set[int] = field(default_factory=set)
    head_since: float = 0.0
    announced: bool = False
    ending: bool = False  # ordered to be killed
    cancelled: dict[int, Cancelled] = field(default_factory=dict)  # tasks of it that are to be ended
    retracted: set[int] = field(default_factory=set)  # tasks of it that are to be handed back if unread
    seat: Seat | None = None
    told: tuple[Seat, int] | None = None
    peak_bytes: int = 0
    excess: Excess | None = None
    kill_at: float = 0.0
    setting_up: bool = False
    placed: bool = False
    warned: bool = False  # that its block ends soon


@dataclass(frozen=True)
class Give:
    """Send this task to that worker, with its function if it does not have it.

    Attributes:
        seat: what the task has of its node, if that is not what the worker was last told.
    """

    worker: Worker
    task: Task
    frames: Sequence[Any]
    seat: Seat | None = None


@dataclass(frozen=True)
class Kill:
    """End that worker and everything it started."""

    worker: Worker


@dataclass(frozen=True)
class Warn:
    """Tell that worker's task, by SIGTERM, that its time is over, or its block's soon will be."""

    worker: Worker


@dataclass(frozen=True)
class Spawn:
    """Start a worker with this number."""

    worker: Worker


@dataclass(frozen=True)
class Recall:
    """Take back what that worker has not read yet, and report it to `on_recalled`."""

    worker: Worker


Order: TypeAlias = Give | Kill | Warn | Spawn | Recall
