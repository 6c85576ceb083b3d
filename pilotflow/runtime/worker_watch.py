"""The manager's eye on its workers: memory of each task, and processes that the system has killed.

A warm worker has memory of its own, so what a task uses is measured above the level that its worker
had when the task began.
"""

from __future__ import annotations

import math

from pilotflow.core.orders import Worker
from pilotflow.core.pool import Pool
from pilotflow.runtime.memory_watch import MemoryWatch, Watched

GROWN_BYTES = 1 << 30
"""A worker that keeps so much more, while it is idle, than when it was born, is replaced."""


class WorkerWatch:
    """Samples the memory of busy workers and tells the pool.

    Args:
        pool: whose workers they are.
        zygote: the process that forked them, to which their orphans are handed.
    """

    def __init__(self, pool: Pool, zygote: int) -> None:
        self._pool = pool
        self._memory = MemoryWatch(zygote)
        self._pids: dict[int, int] = {}
        self._levels: dict[int, int] = {}
        self._born: dict[int, int] = {}
        self._due_at = 0.0
        self._memory.oom_kills()  # those of others, before us

    @property
    def due_at(self) -> float:
        """When `look` must be called again; never while nothing runs."""
        return self._due_at if self._pool.busy else math.inf

    def born(self, worker: Worker, pid: int) -> None:
        """A worker has started."""
        self._pids[worker.id] = pid
        self._levels[worker.id] = self._born[worker.id] = self._memory.level(pid)

    def pid_of(self, worker: Worker) -> int | None:
        """The worker's process, if it was born."""
        return self._pids.get(worker.id)

    def died(self, worker: Worker) -> None:
        """A worker has ended."""
        self._pids.pop(worker.id, None)
        self._levels.pop(worker.id, None)
        self._born.pop(worker.id, None)

    def begins(self, worker: Worker, limited: bool) -> None:
        """A worker is given a task while it has none; `limited`: its memory is to be enforced."""
        if limited and (pid := self._pids.get(worker.id)) is not None:
            self._levels[worker.id] = self._memory.level(pid)

    def look(self, now: float) -> None:
        """Sample, if it is time."""
        if now < self._due_at:
            return
        busy: dict[int, Watched] = {}
        for worker in list(self._pool.workers.values()):
            pid = self._pids.get(worker.id)
            if pid is None:
                continue
            if not worker.tasks:
                self._look_at_idle(worker, pid)
                continue
            limit = self._pool.room.request(worker.tasks[0].cls).memory_bytes
            busy[worker.id] = Watched(pid, self._levels[worker.id] + limit if limit else None)
        if busy:
            used = self._memory.sample(busy, now)
            self._pool.on_memory({id: max(0, use.memory_bytes - self._levels[id]) for id, use in used.items()})
        self._due_at = now + self._memory.interval_s

    def _look_at_idle(self, worker: Worker, pid: int) -> None:
        """A worker that keeps too much of what its tasks have used makes room for a new one."""
        level = self._levels[worker.id] = self._memory.level(pid)
        if level > self._born[worker.id] + GROWN_BYTES:
            self._pool.recycle(worker)

    def system_killed(self) -> bool:
        """Whether the system has killed processes here for lack of memory since the last call."""
        return self._memory.oom_kills() > 0
