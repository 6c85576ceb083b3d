"""What a manager takes back: cancelled tasks, and those that the interchange or another worker wants.

A task that no worker has is taken out of its queue. What a worker was sent ahead is recalled: what it
had not read comes back with `on_recalled`, what it had read stays with it. Only a cancel ends what runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from pilotflow.core.orders import Cancelled, Recall, Worker
from pilotflow.core.pool_books import PoolBooks
from pilotflow.messages.manager import Cancel, CancelOutcome, Returned
from pilotflow.messages.records import Task


class PoolRecalls(PoolBooks):
    """Takes tasks back from its queues and from workers."""

    def on_cancel(self, message: Cancel) -> None:
        """End these attempts, if they have not started or `running` says so."""
        wanted, refused = self._find(message.tasks)
        taken = self._take_queued(wanted)
        if taken or refused:
            self._letter.messages.append(CancelOutcome(message.token, taken, refused))
        for worker, task in self._with_workers(wanted):
            if task is worker.tasks[0] and not message.running:
                self._letter.messages.append(CancelOutcome(message.token, [], [task.id]))
                continue
            worker.cancelled[task.id] = Cancelled(message.token, message.running)
            self._orders.append(Recall(worker))
            self._kill_if_cancelled(worker)

    def on_retract(self, tasks: Sequence[tuple[int, int]]) -> None:
        """Hand back these attempts if they have not started."""
        wanted, _ = self._find(tasks)
        returned = self._take_queued(wanted)
        if returned:
            self._letter.messages.append(Returned(returned))
        for worker, task in self._with_workers(wanted):
            if task is not worker.tasks[0]:
                if not worker.retracted:
                    self._orders.append(Recall(worker))
                worker.retracted.add(task.id)

    def keep_frames(self, id: int, frames: Sequence[Any]) -> None:
        """Payload frames of a task that comes back from a worker with `on_recalled`."""
        if frames:
            self._frames[id] = frames

    def on_recalled(self, worker: Worker, ids: Sequence[tuple[int, int]]) -> None:
        """These tasks were taken back from a worker, unread."""
        taken = set(ids)
        back = [task for task in worker.tasks if (task.id, task.attempt) in taken]
        returned: list[tuple[int, int]] = []
        if back:
            worker.tasks = deque(task for task in worker.tasks if (task.id, task.attempt) not in taken)
            if not worker.tasks:
                self._leave_seat(worker, back[0].cls)
        for task in reversed(back):
            cancelled = worker.cancelled.pop(task.id, None)
            if cancelled is not None:
                self._forget(task)
                self._letter.messages.append(CancelOutcome(cancelled.token, [(task.id, task.attempt)], []))
            elif task.id in worker.retracted:
                self._forget(task)
                returned.append((task.id, task.attempt))
            else:
                self._queues.setdefault(task.cls, deque()).appendleft(task)
        worker.retracted.clear()
        if returned:
            self._letter.messages.append(Returned(returned[::-1]))
        for id, cancelled in list(worker.cancelled.items()):
            if not cancelled.running:  # the worker has read it
                del worker.cancelled[id]
                self._letter.messages.append(CancelOutcome(cancelled.token, [], [id]))

    def _kill_if_cancelled(self, worker: Worker) -> None:
        """End a worker that runs what is to be ended."""
        if worker.tasks and not worker.ending:
            cancelled = worker.cancelled.get(worker.tasks[0].id)
            if cancelled is not None and cancelled.running:
                self._kill(worker)

    def _find(self, pairs: Sequence[tuple[int, int]]) -> tuple[dict[int, Task], list[int]]:
        """The tasks of these attempts, and those that are not ours (any more)."""
        found: dict[int, Task] = {}
        unknown: list[int] = []
        for id, attempt in pairs:
            task = self._held.get(id)
            if task is not None and task.attempt == attempt:
                found[id] = task
            else:
                unknown.append(id)
        return found, unknown

    def _take_queued(self, wanted: dict[int, Task]) -> list[tuple[int, int]]:
        """Take those of the wanted tasks that no worker has out of the queues, and out of `wanted`."""
        taken: list[tuple[int, int]] = []
        for cls in {task.cls for task in wanted.values()}:
            queue = self._queues.get(cls)
            if not queue:
                continue
            rest: deque[Task] = deque()
            for task in queue:
                if task.id in wanted:
                    del wanted[task.id]
                    self._forget(task)
                    taken.append((task.id, task.attempt))
                else:
                    rest.append(task)
            self._queues[cls] = rest
        return taken

    def _with_workers(self, wanted: dict[int, Task]) -> list[tuple[Worker, Task]]:
        if not wanted:
            return []
        return [(w, task) for w in self.workers.values() for task in w.tasks if wanted.get(task.id) is task]
