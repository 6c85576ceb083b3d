"""How many payload frames may be out at once: each is a memory file, and descriptors are few."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, Final

from pilotflow.messages.records import Task

FRAMES_MAX: Final = 1000
"""Payload frames of tasks that have been submitted and have not ended, unless one task has more."""


class FrameWindow:
    """Holds back tasks with payload frames while too many of such are out. Others pass."""

    def __init__(self, limit: int = FRAMES_MAX) -> None:
        self._limit = limit
        self._out: dict[int, int] = {}  # task -> its frames
        self._count = 0
        self._queue: deque[tuple[Task, Sequence[Any]]] = deque()
        self._held: set[int] = set()

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, id: int) -> bool:
        """Whether a task is held back."""
        return id in self._held

    @property
    def held(self) -> Collection[int]:
        """The tasks that are held back."""
        return self._held

    def admit(self, tasks: Sequence[Task], frames: Sequence[Any]) -> tuple[list[Task], list[Any]]:
        """Tasks, and their frames, that may go now: of these, and of those held back before."""
        at = 0
        passing: list[Task] = []
        for task in tasks:
            n = sum(task.layout) if task.layout else 0
            if n:
                self._queue.append((task, frames[at : at + n]))
                self._held.add(task.id)
                at += n
            else:
                passing.append(task)
        going: list[Any] = []
        while self._queue:
            task, parts = self._queue[0]
            if task.id in self._held:
                again = self._out.pop(task.id, 0)
                if self._out and self._count - again + len(parts) > self._limit and not again:
                    break
                self._held.remove(task.id)
                self._count += len(parts) - again
                self._out[task.id] = len(parts)
                passing.append(task)
                going += parts
            self._queue.popleft()
        return passing, going

    def end(self, id: int) -> None:
        """A task has ended: there is room for others."""
        self._held.discard(id)
        self._count -= self._out.pop(id, 0)
