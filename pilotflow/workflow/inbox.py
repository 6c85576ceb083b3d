"""What comes to a workflow's engine from other threads: the ends of tasks, and what people want."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple, TypeAlias

from pilotflow.errors import InterchangeLost
from pilotflow.messages.client import Instruction, ManagerDown, ManagerUp
from pilotflow.runtime.store import TaskRow

BATCH_MAX: Final = 5000
"""Events that one transaction takes in: the first dependents need not wait for all."""


class TasksEnded(NamedTuple):
    """Attempts have ended, in these batches."""

    rows: list[TaskRow]
    batches: list[tuple[int, int]]


class TasksBegun(NamedTuple):
    """Attempts run."""

    attempts: Sequence[tuple[int, int]]


class TasksLost(NamedTuple):
    """Attempts were lost and are followed by others."""

    attempts: Sequence[tuple[int, int, str]]


class CancelJobs(NamedTuple):
    """Somebody wants these jobs cancelled; None for all."""

    jobs: Sequence[int] | None


class Stop(NamedTuple):
    """Somebody wants the program to end; the run can be resumed."""

    why: str


class BlocksAre(NamedTuple):
    """There are these blocks now, and no other."""

    names: frozenset[str]


class ActionEnded(NamedTuple):
    """An action was carried out."""

    number: int
    words: str


Event: TypeAlias = (
    TasksEnded
    | TasksBegun
    | TasksLost
    | CancelJobs
    | Stop
    | ActionEnded
    | BlocksAre
    | ManagerUp
    | ManagerDown
    | InterchangeLost
    | Instruction
)


class Inbox:
    """What comes to the engine, from any thread; the journal of its run."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Event] = SimpleQueue()

    def ended(self, rows: list[TaskRow], batches: list[tuple[int, int]]) -> None:
        """See `Journal`."""
        self._queue.put(TasksEnded(rows, batches))

    def begun(self, attempts: Sequence[tuple[int, int]]) -> None:
        """See `Journal`."""
        self._queue.put(TasksBegun(attempts))

    def crashed(self, attempts: Sequence[tuple[int, int, str]]) -> None:
        """See `Journal`."""
        self._queue.put(TasksLost(attempts))

    def manager(self, event: ManagerUp | ManagerDown) -> None:
        """See `Journal`."""
        self._queue.put(event)

    def instructed(self, event: Instruction) -> None:
        """See `Journal`."""
        self._queue.put(event)

    def lost(self, error: InterchangeLost) -> None:
        """See `Journal`."""
        self._queue.put(error)

    def put(self, event: Event) -> None:
        """Anything else."""
        self._queue.put(event)

    def take(self, timeout_s: float | None) -> list[Event]:
        """What has come, at least one thing unless that takes longer than the timeout."""
        events: list[Event] = []
        size = 0
        with contextlib.suppress(Empty):
            while size < BATCH_MAX:
                event = self._queue.get(timeout=timeout_s) if not events else self._queue.get_nowait()
                events.append(event)
                size += len(event.rows) if isinstance(event, TasksEnded) else 1
        return events
