"""Multi-node tasks that are about to start: their managers are asked whether their nodes are really empty.

The exchange has reserved the nodes. A manager answers when nothing runs on its node any more; when
all have, the task goes to the one that leads, with the names of all nodes.
"""

from __future__ import annotations

from collections.abc import Iterable


class Gatherings:
    """Which managers have not answered yet, by task."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[int, set[int]]] = {}  # task -> attempt, managers

    def begin(self, id: int, attempt: int, managers: Iterable[int]) -> None:
        """The managers of this attempt have been asked."""
        self._waiting[id] = attempt, set(managers)

    def answer(self, id: int, attempt: int, manager: int) -> bool:
        """A manager's node is empty; True if it was the last one that was waited for."""
        waiting = self._waiting.get(id)
        if waiting is None or waiting[0] != attempt:
            return False
        waiting[1].discard(manager)
        if waiting[1]:
            return False
        del self._waiting[id]
        return True

    def missing(self, id: int) -> int:
        """How many managers have not answered; 0 if the task is not being prepared."""
        waiting = self._waiting.get(id)
        return 0 if waiting is None else len(waiting[1])

    def end(self, id: int) -> bool:
        """The attempt is given up; whether it was still being prepared."""
        return self._waiting.pop(id, None) is not None
