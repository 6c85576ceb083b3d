"""Tickets: what a task waits for that need not run as things are (see `pilotflow.caching.memo`)."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final

LOOK: Final = "a look into the cache, when its arguments are there"


class Ticket(Future[None]):
    """Given to a task when it has to run after all.

    Args:
        task_id: the task that it waits for, an equal one or one whose result is part of its key; or 0.
        name: of that task, or what is waited for, in words.
    """

    def __init__(self, task_id: int = 0, name: str = LOOK) -> None:
        super().__init__()
        self.task_id = task_id
        self.name = name
