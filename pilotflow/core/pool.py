"""The manager's mind: which worker gets which task, and what the interchange is told.

A manager holds *leased* tasks in a queue by request class and gives them to workers as resources
allow. A worker whose tasks are known to be short is sent a few ahead, so that it never waits; what
it has not read can be recalled when another worker idles, so nothing waits behind a long task.
Results are kept until the client has recorded them.

The shell (`pilotflow.runtime.manager`) calls an `on_...` method for everything that happens, then
carries out `take_orders` and sends `take_letter`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from pilotflow.core.orders import Give, Kill, Order, Recall, Spawn, Warn, Worker
from pilotflow.core.placement import Seat
from pilotflow.core.pool_limits import PoolLimits
from pilotflow.core.pool_recalls import PoolRecalls
from pilotflow.core.post import Letter
from pilotflow.messages.manager import (
    Begun,
    CancelOutcome,
    Function,
    Leaving,
    NodeReady,
    Place,
    ReserveNode,
    Returned,
    Run,
    WorkerSetupFailed,
)
from pilotflow.messages.records import Excess, ForgetFunctions, Result, Status, Task, encode_excess
from pilotflow.resources import Request

__all__ = ["Give", "Kill", "Order", "Pool", "Recall", "Spawn", "Warn", "Worker"]

PIPE_HORIZON_US = 5_000
"""A worker is sent ahead at most this much expected work..."""
PIPE_MAX = 32
"""...and at most this many tasks."""
BEGUN_AFTER_S = 1.0
"""Tasks are announced as running when they have been for this long."""
UNBORN_PAUSE_S = 1.0
"""After a worker could not be started no other one is tried for so long, as long as there are some."""
IDLE_DEATHS_MAX = 10
"""Workers that die in a row without a task, or in the executor's setup, before the manager gives up."""


class Pool(PoolRecalls, PoolLimits):
    """What a manager does with what it keeps, takes back and limits."""

    # ---- from the interchange ---------------------------------------------------------------

    def on_function(self, function: Function) -> None:
        """A function's body has come."""
        self.functions[function.fn] = function

    def on_forget(self, message: ForgetFunctions) -> set[int]:
        """There will be no more tasks of these functions; which of them are forgotten, since none is here either."""
        gone = self.functions.keys() & set(message.fns) - {task.fn for task in self._held.values()}
        for fn in gone:
            del self.functions[fn]
            self._durations.forget(fn)
        return gone

    def on_class(self, cls: int, request: Request) -> None:
        """What tasks of a class need."""
        self.room.define(cls, request)

    def on_run(self, message: Run, frames: Sequence[Any], at: int) -> int:
        """Tasks leased to us; returns where their frames end."""
        held, queues = self._held, self._queues
        for task in message.tasks:
            n = sum(task.layout) if task.layout else 0
            if n:
                self._frames[task.id] = frames[at : at + n]
                at += n
            held[task.id] = task
            queue = queues.get(task.cls)
            if queue is None:
                queue = queues[task.cls] = deque()
            queue.append(task)
        if self.draining:
            self._return_waiting()
        return at

    def on_reserve(self, message: ReserveNode) -> None:
        """A multi-node task is to start here as soon as nothing else runs."""
        self._reserved_for.append(NodeReady(message.task, message.attempt))

    def on_place(self, message: Place) -> None:
        """Where the multi-node task that follows has its nodes."""
        self.places[message.task] = message

    def on_recorded(self, seqs: Sequence[int]) -> None:
        """The client has these results."""
        for seq in seqs:
            self.unrecorded.pop(seq, None)

    def drain(self) -> None:
        """Take no more work and hand back what has not started."""
        self.draining = True
        self._return_waiting()

    def leave(self, reason: str, walltime_over_at: float | None = None) -> None:
        """Go now: everything is handed back, running tasks too; workers are killed."""
        self.draining = True
        self._close_batch()
        ran_s: list[float] = []
        if walltime_over_at is not None:
            ran_s = [walltime_over_at - worker.head_since for worker in self.workers.values() if worker.tasks]
        self._letter.messages.append(Leaving(reason, self._started(), ran_s))
        self._held.clear()
        self._queues.clear()
        self._frames.clear()
        for worker in self.workers.values():
            worker.tasks.clear()
            self._orders.append(Kill(worker))

    @property
    def drained(self) -> bool:
        """Whether nothing is left to do or to hand over."""
        return self.draining and not self._held and not self.unrecorded and not self._results

    # ---- from the workers -------------------------------------------------------------------

    def on_ready(self, worker: Worker) -> None:
        """A worker has started and can be given tasks."""
        worker.ready = True
        self._idle[worker.id] = worker

    def on_setup_failed(self, payload: bytes) -> None:
        """The executor's setup raised in a worker: no worker will do better."""
        self._letter.messages.append(WorkerSetupFailed(payload))
        self.broken = "the executor's initializer raised in a worker"

    def on_set_up(self, worker: Worker) -> None:
        """The executor's setup has gone well in a worker."""
        worker.setting_up = False
        self._setup_deaths = 0

    def on_no_workers(self, why: str) -> None:
        """No worker can be had any more."""
        self.broken = self.broken or why

    def on_peak(self, worker: Worker, nbytes: int) -> None:
        """The most memory that the worker's running task has had, as whoever watched it says."""
        worker.peak_bytes = max(worker.peak_bytes, nbytes)

    def on_result(
        self, worker: Worker, result: Result, frames: Sequence[Any], now: float, out_of_memory: bool = False
    ) -> None:
        """A worker has ended a task; `out_of_memory`: the system has killed processes here meanwhile."""
        tasks = worker.tasks
        ahead = bool(tasks) and tasks[0].id == result.id and tasks[0].attempt == result.attempt
        if not ahead and not self._put_first(worker, result):
            return  # of an attempt that is not ours any more
        task = tasks.popleft()
        self._idle_deaths = 0
        self._durations.learn(task.fn, result.duration_us)
        if worker.cancelled:
            cancelled = worker.cancelled.pop(result.id, None)
            if cancelled is not None:  # it ended before it could be ended
                self._letter.messages.append(CancelOutcome(cancelled.token, [], [result.id]))
            self._kill_if_cancelled(worker)
        if result.peak_bytes < worker.peak_bytes:
            result.peak_bytes = worker.peak_bytes
        if result.status is not Status.OK and (worker.excess or worker.warned or out_of_memory):
            if worker.warned and worker.excess is None:  # it was told that its block ends, and could not know better
                self._letter.messages.append(Returned([(task.id, task.attempt)]))
                frames, result = (), None  # type: ignore[assignment]
            else:
                excess = worker.excess or self.watch.out_of_memory(worker, self.room.request(task.cls))
                result.status, result.payload, result.layout = Status.EXCEEDED, encode_excess(excess), ()
                frames = ()
        if worker.excess is not None and not worker.ending:
            self._kill(worker)  # with what the task has left running
        self._forget(task)
        if result is not None:
            self._results.append(result)
            self._result_frames += frames
        self._next_head(worker, now)
        if not tasks:
            self._leave_seat(worker, task.cls)

    def _next_head(self, worker: Worker, now: float) -> None:
        """The worker's running task is another one now, or none."""
        worker.head_since, worker.announced = now, False
        worker.excess, worker.peak_bytes = None, 0

    def _put_first(self, worker: Worker, result: Result) -> bool:
        """A worker has overtaken what was taken back from it and sent again; False if it never had that task."""
        for task in worker.tasks:
            if task.id == result.id and task.attempt == result.attempt:
                worker.tasks.remove(task)
                worker.tasks.appendleft(task)
                return True
        return False

    def on_death(
        self,
        worker: Worker,
        how: str,
        where: str,
        out_of_memory: bool = False,
        excess: Excess | None = None,
        last_words: str = "",
    ) -> None:
        """A worker process has ended; what it had not read was recalled before this call.

        Args:
            worker: which one.
            how: in words, as in "killed by signal 9 (SIGKILL)".
            where: in words, the node and block.
            out_of_memory: the system has killed processes here for lack of memory.
            excess: what its task has taken too much of, if the batch system has ended it for that.
            last_words: what was last written to its stderr, and where that is; lines.
        """
        del self.workers[worker.id]
        self._idle.pop(worker.id, None)
        self._forget_told(worker)
        self._recalled_at.pop(worker.id, None)
        if worker.tasks:
            assert worker.seat is not None
            self.room.free(worker.tasks[0].cls, worker.seat)
            # A step is set up when it has its task. If it dies in that, the task has not begun, and waits again.
            if not worker.setting_up or worker.ending or out_of_memory or excess is not None:
                self._lose_head(worker, how, where, out_of_memory, excess, last_words)
            for task in reversed(worker.tasks):
                cancelled = worker.cancelled.get(task.id)
                if cancelled is not None:
                    self._forget(task)
                    self._letter.messages.append(CancelOutcome(cancelled.token, [(task.id, task.attempt)], []))
                else:
                    self._queues.setdefault(task.cls, deque()).appendleft(task)
            if self.draining:
                self._return_waiting()
        elif not worker.ending and not worker.setting_up:
            self._idle_deaths += 1
        if worker.setting_up and not worker.ending:
            self._died_in_setup(how, where, last_words)
        elif self._idle_deaths >= IDLE_DEATHS_MAX:
            self.broken = f"{self._idle_deaths} workers in a row died before they could take a task; the last {how}"
        if not self.broken and not self.draining:
            self._spawn()

    def _lose_head(
        self, worker: Worker, how: str, where: str, out_of_memory: bool, excess: Excess | None, last_words: str
    ) -> None:
        """The task that a worker was running when it ended has ended with it."""
        head = worker.tasks.popleft()
        self._forget(head)
        cancelled = worker.cancelled.get(head.id)
        excess = worker.excess or excess
        if excess is None and out_of_memory:
            excess = self.watch.out_of_memory(worker, self.room.request(head.cls))
        if cancelled is not None:
            self._letter.messages.append(CancelOutcome(cancelled.token, [(head.id, head.attempt)], []))
        elif excess is not None:
            self._results.append(self._excess_result(worker, head, excess))
        else:
            if worker.ending:  # in the moment in which it was sent the signal it went on to another task
                how += " to cancel the task before this one"
            detail = f"worker {where} {how}\n{last_words}".rstrip()
            self._results.append(Result(head.id, head.attempt, Status.CRASHED, detail.encode()))

    def _died_in_setup(self, how: str, where: str, last_words: str) -> None:
        self._setup_deaths += 1
        if self._setup_deaths >= IDLE_DEATHS_MAX and not self.broken:
            died = f"{self._setup_deaths} workers in a row {where} died in it; the last {how}"
            self._letter.messages.append(WorkerSetupFailed(b"", f"{died}\n{last_words}".rstrip()))
            self.broken = f"the executor's initializer: {died}"

    def on_unborn(self, worker: Worker, how: str, now: float) -> None:
        """A worker could not be started: with others go on, and try again when there may be room."""
        del self.workers[worker.id]
        self._grow_from = now + UNBORN_PAUSE_S
        if not self.workers:
            self._idle_deaths += 1
            if self._idle_deaths >= IDLE_DEATHS_MAX:
                self.broken = f"{self._idle_deaths} workers in a row could not be had; the last {how}"
            elif not self.draining:
                self._spawn()

    # ---- deciding ---------------------------------------------------------------------------

    def take_orders(self, now: float) -> list[Order]:
        """What the shell must do now."""
        if self._idle:
            self._start_on_idle(now)
        elif self._queues and len(self.workers) < self.capacity.slots:
            self._grow(now)
        self._fill_pipes()
        orders, self._orders = self._orders, []
        return orders

    def take_letter(self) -> Letter:
        """What the interchange must be told now."""
        self._close_batch()
        if self._reserved_for and not self._held:
            self._letter.messages += self._reserved_for
            self._reserved_for = []
        letter, self._letter = self._letter, Letter()
        return letter

    def announce_long_runs(self, now: float) -> None:
        """Say which tasks have been running for a while; call it about once a second."""
        begun: list[tuple[int, int]] = []
        for worker in self.workers.values():
            if worker.tasks and not worker.announced and now - worker.head_since >= BEGUN_AFTER_S:
                worker.announced = True
                begun.append((worker.tasks[0].id, worker.tasks[0].attempt))
        if begun:
            self._letter.messages.append(Begun(begun))

    def _start_on_idle(self, now: float) -> None:
        for cls, queue in self._queues.items():
            while queue and self._idle and (seat := self.room.take(cls)) is not None:
                task = queue.popleft()
                worker = self._take_idle(seat, cls)
                worker.seat = seat
                self._next_head(worker, now)
                self._give(worker, task)
        if self._idle:
            self._recall_for_idle()
        elif len(self.workers) < self.capacity.slots:
            self._grow(now)

    def _take_idle(self, seat: Seat, cls: int) -> Worker:
        """An idle worker for this seat: who had it last, since to take another one costs as much as a short task."""
        worker = self._idle.pop(self._told.get((seat, cls), -1), None)
        return worker or self._idle.popitem()[1]

    def _grow(self, now: float) -> None:
        """All workers are busy and there is room for another task: small ones may be more than cores."""
        if now < self._grow_from:
            return
        if all(worker.ready for worker in self.workers.values()) and any(
            queue and self.room.fits(cls) for cls, queue in self._queues.items()
        ):
            self._spawn()

    def _fill_pipes(self) -> None:
        """Send busy workers short tasks ahead, evenly."""
        if self._one_shot or not any(self._queues.values()):
            return
        by_class: dict[int, list[Worker]] = {}
        for worker in self.workers.values():
            # What was taken back from behind a long task must not be put there again.
            if worker.tasks and not worker.ending and self._recalled_at.get(worker.id) != worker.tasks[0].id:
                by_class.setdefault(worker.tasks[0].cls, []).append(worker)
        for cls, workers in by_class.items():
            queue = self._queues.get(cls)
            if not queue:
                continue
            share = len(queue) // len(workers) + 1
            for worker in workers:
                for _ in range(share):
                    if not queue or queue[0].layout:
                        break
                    if len(worker.tasks) > self._durations.fit(queue[0].fn, PIPE_HORIZON_US, PIPE_MAX):
                        break
                    self._give(worker, queue.popleft())

    def _recall_for_idle(self) -> None:
        """Workers idle while others have tasks ahead that would fit: take those back."""
        for worker in self.workers.values():
            if (
                len(worker.tasks) > 1
                and worker.ready
                and self._recalled_at.get(worker.id) != worker.tasks[0].id
                and self.room.fits(worker.tasks[0].cls)
            ):
                self._recalled_at[worker.id] = worker.tasks[0].id
                self._orders.append(Recall(worker))

    def _give(self, worker: Worker, task: Task) -> None:
        worker.tasks.append(task)
        seat = None
        if worker.seat is not None and worker.told != (worker.seat, task.cls):
            self._forget_told(worker)
            seat = worker.seat
            worker.told = (seat, task.cls)
            self._told[worker.told] = worker.id
        self._orders.append(Give(worker, task, self._frames.pop(task.id, ()), seat))
