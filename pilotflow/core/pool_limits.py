"""What a manager does with tasks that take more than they had asked for, and before its block ends."""

from __future__ import annotations

from collections.abc import Mapping

from pilotflow.core.orders import Warn, Worker
from pilotflow.core.pool_books import PoolBooks
from pilotflow.core.room import NO_SEAT
from pilotflow.messages.records import Excess, Result, Status, Task, encode_excess


class PoolLimits(PoolBooks):
    """Enforces limits on the tasks that workers run."""

    def on_placed(self, worker: Worker) -> None:
        """The batch system was asked to start the worker's task; its time does not run yet."""
        worker.placed = True

    def on_begun(self, worker: Worker, now: float) -> None:
        """A task that was placed has begun."""
        worker.placed, worker.head_since = False, now

    def enforce_runtimes(self, now: float) -> None:
        """Warn tasks that have run too long, and end those that were warned; call it every `LOOK_PERIOD_S`."""
        for worker, limit_s in self._limited():
            if worker.excess is None:
                request = self.room.request(worker.tasks[0].cls)
                worker.excess = self.watch.runtime_exceeded(worker, limit_s, request, now)
                if worker.excess is not None:
                    worker.kill_at = now + self.watch.grace_s
                    self._orders.append(Warn(worker))
            elif now >= worker.kill_at and not worker.ending:
                self._kill(worker)

    def on_memory(self, taken: Mapping[int, int]) -> None:
        """What the tasks of these workers use, in bytes."""
        for id, nbytes in taken.items():
            worker = self.workers.get(id)
            if worker is None or not worker.tasks or worker.ending:
                continue
            worker.peak_bytes = max(worker.peak_bytes, nbytes)
            if self.capacity.depth_limited:
                continue
            excess = self.watch.memory_exceeded(worker, self.room.request(worker.tasks[0].cls), nbytes)
            if excess is not None:
                worker.excess = excess
                self._kill(worker)

    def expect_end(self) -> None:
        """The block is being ended by somebody: what fails from now on is handed back."""
        for worker in self.workers.values():
            worker.warned = worker.warned or bool(worker.tasks)

    def warn_of_end(self) -> None:
        """The block ends soon: tell all running tasks. What fails of them from now on is handed back."""
        for worker in self.workers.values():
            if worker.tasks and not worker.warned:
                worker.warned = True
                self._orders.append(Warn(worker))

    def recycle(self, worker: Worker) -> None:
        """An idle worker has grown too big: another one takes its place."""
        if not worker.tasks and not worker.ending:
            self._kill(worker)

    @property
    def limits_runtimes(self) -> bool:
        """Whether any running task has a `runtime` or `timeout` that is enforced."""
        return bool(self._limited())

    def limit_s(self, cls: int) -> float | None:
        """How long a task of the class may run here. A depth-limited manager ignores requests, but no timeout."""
        request = self.room.request(cls)
        return request.timeout_s if self.capacity.depth_limited else request.limit_s

    def _limited(self) -> list[tuple[Worker, float]]:
        """Workers whose running task is limited in time, and its limit; a step keeps to its own."""
        if not self.room.any_runtime:
            return []
        return [
            (worker, limit_s)
            for worker in self.workers.values()
            if worker.tasks
            and not worker.placed
            and (limit_s := self.limit_s(worker.tasks[0].cls)) is not None
            and not self.has_ranks(worker.tasks[0].cls)
        ]

    def _excess_result(self, worker: Worker, task: Task, excess: Excess) -> Result:
        seat = worker.seat or NO_SEAT
        payload = encode_excess(excess)
        return Result(
            task.id,
            task.attempt,
            Status.EXCEEDED,
            payload,
            peak_bytes=worker.peak_bytes,
            cores=seat.cores,
            gpus=seat.gpus,
        )
