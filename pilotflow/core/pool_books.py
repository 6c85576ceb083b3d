"""What a manager keeps: leased tasks and their frames, workers, what is free, results not yet recorded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Any

from pilotflow.core.durations import Durations
from pilotflow.core.orders import Kill, Order, Spawn, Worker
from pilotflow.core.placement import Layout, Seat
from pilotflow.core.post import Letter
from pilotflow.core.room import Room
from pilotflow.core.watch import Watch
from pilotflow.messages.manager import Done, Function, NodeReady, Place, Register, Returned, WorkerSetupFailed
from pilotflow.messages.records import Result, Task
from pilotflow.resources import Capacity


class PoolBooks:
    """State of one manager.

    Args:
        capacity: what it offers.
        layout: where its cores and GPUs are; one NUMA domain if not given.
        watch: what enforces the limits that users wrote; the defaults if not given.
        one_shot: each task is a step of the batch system with a process of its own: it takes whole cores and
            GPUs, and nothing is sent ahead.
    """

    def __init__(
        self,
        capacity: Capacity,
        layout: Layout | None = None,
        watch: Watch | None = None,
        *,
        one_shot: bool = False,
    ) -> None:
        self.capacity = capacity
        self.draining = False
        self.broken = ""  # why no worker can be had, if so
        self.workers: dict[int, Worker] = {}
        self.functions: dict[int, Function] = {}
        self.unrecorded: dict[int, tuple[Done, list[Any]]] = {}
        self.room = Room(capacity, layout, whole=one_shot)
        self._one_shot = one_shot
        self.watch = watch or Watch()
        self.places: dict[int, Place] = {}  # of multi-node tasks
        self._reserved_for: list[NodeReady] = []  # said as soon as nothing runs here
        self._queues: dict[int, deque[Task]] = {}  # class -> leased and not given to a worker
        self._held: dict[int, Task] = {}  # every leased task, running or not
        self._frames: dict[int, Sequence[Any]] = {}
        self._idle: dict[int, Worker] = {}
        self._told: dict[tuple[Seat, int], int] = {}  # seat and class -> the worker that was told of them last
        self._durations = Durations()
        self._orders: list[Order] = []
        self._letter = Letter()
        self._results: list[Result] = []
        self._result_frames: list[Any] = []
        self._seq = 0
        self._next_worker = 0
        self._idle_deaths = 0
        self._setup_deaths = 0
        self._grow_from = -inf  # when another worker may be tried
        self._recalled_at: dict[int, int] = {}  # worker -> tasks it had at its last recall
        cores = -(-capacity.cpus_milli // 1000)
        for _ in range(capacity.slots if capacity.depth_limited else min(capacity.slots, max(1, cores))):
            self._spawn()

    # ---- what it holds ----------------------------------------------------------------------

    def has_ranks(self, cls: int) -> bool:
        """Whether tasks of the class are several processes that the launcher starts; else a worker runs them."""
        request = self.room.request(cls)
        by_itself = request.spreads_itself and not self._one_shot
        return request.has_ranks and not by_itself and not self.capacity.depth_limited

    def register(self, template: Register) -> None:
        """Say who we are and what we hold; results not yet recorded follow."""
        running = self._started()
        started = {id for id, _ in running}
        template.leased = [(t.id, t.attempt) for t in self._held.values() if t.id not in started]
        template.running = running
        # What was to be said to the interchange that did not know us is out of date, but this:
        kept = [message for message in self._letter.messages if isinstance(message, WorkerSetupFailed)]
        self._letter = Letter([template, *kept])
        for done, frames in self.unrecorded.values():
            self._letter.messages.append(done)
            self._letter.frames += frames

    def queued(self) -> list[Task]:
        """Leased tasks that no worker has."""
        return [task for queue in self._queues.values() for task in queue]

    def held(self) -> list[Task]:
        """Every leased task."""
        return list(self._held.values())

    @property
    def busy(self) -> bool:
        """Whether any task is held."""
        return bool(self._held)

    def _forget(self, task: Task) -> None:
        if self._held.get(task.id) is task:  # a later attempt may have come already
            del self._held[task.id]
            self._frames.pop(task.id, None)
            if self.places:
                self.places.pop(task.id, None)

    def _started(self) -> list[tuple[int, int]]:
        return [(w.tasks[0].id, w.tasks[0].attempt) for w in self.workers.values() if w.tasks]

    def _return_waiting(self) -> None:
        returned: list[tuple[int, int]] = []
        for queue in self._queues.values():
            for task in queue:
                self._forget(task)
                returned.append((task.id, task.attempt))
            queue.clear()
        if returned:
            self._letter.messages.append(Returned(returned))

    def _close_batch(self) -> None:
        if not self._results:
            return
        self._seq += 1
        done = Done(self._seq, self._results)
        self.unrecorded[self._seq] = (done, self._result_frames)
        self._letter.messages.append(done)
        self._letter.frames += self._result_frames
        self._results, self._result_frames = [], []

    def _spawn(self) -> None:
        worker = Worker(self._next_worker)
        self._next_worker += 1
        self.workers[worker.id] = worker
        self._orders.append(Spawn(worker))

    def _kill(self, worker: Worker) -> None:
        worker.ending = True
        self._idle.pop(worker.id, None)
        self._orders.append(Kill(worker))

    def _forget_told(self, worker: Worker) -> None:
        """It is in no seat any more, or in another one."""
        if worker.told is not None and self._told.get(worker.told) == worker.id:
            del self._told[worker.told]

    def _leave_seat(self, worker: Worker, cls: int) -> None:
        """The worker has nothing more to do."""
        assert worker.seat is not None
        self.room.free(cls, worker.seat)
        worker.seat = None
        if not worker.ending:
            self._idle[worker.id] = worker
