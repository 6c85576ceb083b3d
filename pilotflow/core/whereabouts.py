"""Where a task is in a manager: with which worker, running or not."""

from __future__ import annotations

from pilotflow.core.pool_books import PoolBooks
from pilotflow.messages.views import Whereabouts


def place_of(pool: PoolBooks, id: int, attempt: int, now: float) -> Whereabouts:
    """Where this attempt at a task is."""
    for worker in pool.workers.values():
        for ahead, task in enumerate(worker.tasks):
            if (task.id, task.attempt) == (id, attempt):
                if ahead:
                    return Whereabouts(True, worker.id, None, ahead)
                return Whereabouts(True, worker.id, max(0.0, now - worker.head_since))
    waiting = pool.queued()
    for task in waiting:
        if (task.id, task.attempt) == (id, attempt):
            same = [other for other in waiting if other.cls == task.cls]
            return Whereabouts(True, None, None, same.index(task))
    return Whereabouts(False)
