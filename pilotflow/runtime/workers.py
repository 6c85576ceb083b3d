"""A manager's worker processes: their links, their zygote, what they are told and what they say."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from pilotflow.core.orders import Give, Worker
from pilotflow.core.placement import Seat
from pilotflow.core.pool import Pool
from pilotflow.launchers.steps import LOCALHOST
from pilotflow.memfile import buffer_of
from pilotflow.messages.records import Status, Task
from pilotflow.messages.views import Whereabouts
from pilotflow.node.environment import THREAD_VARIABLES, task_affinity, task_environment
from pilotflow.node.report import NodeReport
from pilotflow.runtime import link, packets, zygote
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.crew import Crew
from pilotflow.runtime.last_words import LastWords
from pilotflow.runtime.link import WorkerLink
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import Options
from pilotflow.runtime.process_state import is_stopped
from pilotflow.runtime.worker_watch import WorkerWatch

if TYPE_CHECKING:
    from pilotflow.runtime.steps import Steps

TRIM_S: Final = 10.0
"""Commands that run for longer have what they have written to their worker's stderr cut this often, if it is too much."""


class Workers(Crew):
    """Workers that are processes of this node.

    Args:
        loop: calls us when a worker or the zygote has something to say.
        pool: the manager's mind.
        zygote_: what forks the workers.
        report: the node as measured.
        options, connection: the manager's.
        started: when the block began, by the monotonic clock.
        log: the manager's log.
    """

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        zygote_: zygote.Zygote,
        report: NodeReport,
        options: Options,
        connection: Connection,
        started: float,
        log: logging.Logger,
    ) -> None:
        super().__init__(loop, pool, options, connection, started, log)
        self._zygote = zygote_
        self._report = report
        self._links: dict[int, WorkerLink] = {}
        self._buffer = packets.new_buffer()
        self._steps: Steps | None = None  # made for the first task of several ranks
        self._watch = WorkerWatch(pool, zygote_.pid)
        self._last_words = LastWords(connection.directory, options.directory)
        self._trim_at = 0.0
        loop.add(zygote_.channel.fileno(), self._hear_zygote)

    @property
    def any(self) -> bool:
        """Whether any worker is there."""
        return bool(self._links)

    def set_up(self, payload: bytes) -> None:
        """See `Crew.set_up`; workers that are there already are told."""
        if payload != self._setup:
            super().set_up(payload)
            for worker in self._pool.workers.values():
                if worker.id in self._links:
                    self._send_setup(worker)

    def forget(self, fns: AbstractSet[int]) -> None:
        """See `Crew.forget`; workers that know them are told."""
        for worker in self._pool.workers.values():
            if (known := worker.functions & fns) and worker.id in self._links:
                worker.functions -= known
                self._send(worker.id, self._links[worker.id], link.Forget(sorted(known)), ())

    def kill_all(self) -> None:
        """End every worker and what it has started."""
        for worker in self._pool.workers.values():
            self._order(lambda worker=worker: self._zygote.kill(worker.id))  # type: ignore[misc]

    def trouble(self, now: float, limit_s: float) -> str:
        """Why no workers can be had any more, if so: the zygote does not answer. While nothing runs, that is no matter."""
        if not self._pool.busy:
            return ""
        deaf_s = self._zygote.silent_for(now)
        if deaf_s <= limit_s:
            return ""
        zygote.kill_tree(self._zygote.pid)  # its channel then says that all workers are dead
        return f"its zygote (pid {self._zygote.pid}) has answered nothing for {deaf_s:.0f} s"

    def seen(self, place: Whereabouts) -> Whereabouts:
        """See `Crew.seen`."""
        worker = None if place.running_s is None else self._pool.workers.get(place.worker or 0)
        pid = None if worker is None else self._watch.pid_of(worker)
        return place if pid is None else structs.replace(place, pid=pid, stopped=is_stopped(pid))

    def close(self) -> None:
        """All is over: the zygote ends when its channel closes."""
        self._zygote.channel.close()

    @property
    def due_at(self) -> float:
        """When `look` must be called again."""
        due_at = self._watch.due_at
        if self._steps is not None:
            due_at = min(due_at, self._steps.due_at)
        return self._next_look(due_at)

    def look(self, now: float) -> None:
        """See whether running tasks keep within their limits."""
        if self._pool.busy:
            self._watch.look(now)
            if self._steps is not None:
                self._steps.look(now)
            self._keep_to_runtimes(now)
            if now >= self._trim_at:
                self._trim_at = now + TRIM_S
                if any(worker.tasks and now - worker.head_since >= TRIM_S for worker in self._pool.workers.values()):
                    self._zygote.trim()

    # ---- orders -----------------------------------------------------------------------------

    def _spawn(self, worker: Worker) -> None:
        its_link = self._links[worker.id] = WorkerLink(self._loop, lambda: self._hear_worker(worker))
        if self._setup:
            self._send_setup(worker)
        self._order(lambda: self._zygote.spawn(worker.id, its_link.theirs))

    def _send_setup(self, worker: Worker) -> None:
        worker.setting_up = True
        self._send(worker.id, self._links[worker.id], link.Setup(), (self._setup,))

    def _kill(self, worker: Worker) -> None:
        if self._steps is not None and self._steps.has(worker):
            self._steps.stop(worker, "it was cancelled")  # its worker goes when all ranks have ended
        else:
            self._kill_process(worker)

    def _kill_process(self, worker: Worker) -> None:
        self._order(lambda: self._zygote.kill(worker.id))

    def _warn(self, worker: Worker) -> None:
        self._order(lambda: self._zygote.warn(worker.id))

    def _order(self, order: Callable[[], None]) -> None:
        try:
            order()
        except OSError as error:  # it is dead, which its channel will say
            self._log.error("the zygote takes no orders: %s", error)

    def _send(self, number: int, its_link: WorkerLink, message: link.ToWorker, frames: Sequence[Any]) -> None:
        self._deliver(number, its_link, its_link.placed(message), frames)

    def _deliver(self, number: int, its_link: WorkerLink, header: bytes, frames: Sequence[Any]) -> None:
        try:
            its_link.send(header, frames)
        except ConnectionError:
            return  # it has died; its death is reported soon, and the task is among those it had
        except OSError as error:  # no memory, no descriptor: this task cannot be had here now
            self._log.error("worker %d cannot be sent anything (%s); ending it", number, error)
            self._order(lambda: self._zygote.kill(number))

    def _give(self, order: Give) -> None:
        worker, task = order.worker, order.task
        its_link = self._links[worker.id]
        if self._pool.has_ranks(task.cls):
            worker.told = None
            self._made_steps().start(worker, task, order.frames)
            return
        if order.seat is not None:
            self._send(worker.id, its_link, self._sit(order.seat, task), ())
            if task.id in self._pool.places:
                worker.told = None  # the next task has other nodes
        if len(worker.tasks) == 1:
            self._watch.begins(worker, self._pool.room.request(task.cls).memory_bytes > 0)
        if task.fn not in worker.functions:
            worker.functions.add(task.fn)
            function = self._pool.functions[task.fn]
            self._send(worker.id, its_link, link.GiveFunction(task.fn, function.name), (function.body,))
        self._send(worker.id, its_link, link.GiveTask(task), order.frames)

    def _made_steps(self) -> Steps:
        if self._steps is None:
            from pilotflow.runtime.steps import Steps  # most managers never need it, and all must start fast

            self._steps = Steps(self._loop, self._pool, self._options, self._connection, self._kill_process, self._log)
        return self._steps

    def _sit(self, seat: Seat, task: Task) -> link.Sit:
        cpus = task_affinity(seat, self._report)
        environ = {} if self._pool.capacity.depth_limited else task_environment(seat, self._report, {})
        sit = self._seat_of(task.cls, seat.cores, seat.gpus, environ, cpus)
        place = self._pool.places.get(task.id)
        if place is not None:  # one program for all of them, which starts a process for each core
            sit.nodes = (LOCALHOST,) * len(place.nodes) if self._options.local else tuple(place.nodes)
            sit.environ |= {name: "1" for name in THREAD_VARIABLES if name in environ}
            if cpus is not None:
                sit.cpus = sorted(cpu for core in self._report.cores for cpu in core.cpus)
        return sit

    # ---- news -------------------------------------------------------------------------------

    def _recall(self, worker: Worker) -> None:
        """Take back tasks sent ahead. What comes back with them is sent again as it was."""
        its_link = self._links[worker.id]
        tasks: list[tuple[int, int]] = []
        for header, message, frames in its_link.take_back(self._buffer):
            if isinstance(message, link.GiveTask) and not frames:
                tasks.append((message.task.id, message.task.attempt))
            else:
                self._deliver(worker.id, its_link, header, frames)
        self._pool.on_recalled(worker, tasks)

    def _hear_worker(self, worker: Worker, to_the_end: bool = False) -> None:
        now = time.monotonic()
        buffer, pool, ours = self._buffer, self._pool, self._links[worker.id].ours
        while True:
            try:
                packet = packets.receive(ours, buffer, packets.DONTWAIT)
                if packet is None:
                    return
                header, frames = packet
                message = link.decode_from_worker(header)
                if frames or type(message) is not link.TaskDone or message.result.layout:
                    link.check_frames(message, frames)
            except (BlockingIOError, ConnectionError):
                return
            except ValueError as error:  # a task has written into the link
                self._log.error("worker %d sends rubbish (%s); ending it", worker.id, error)
                self._kill(worker)
                return
            if isinstance(message, link.TaskDone):
                failed = message.result.status is not Status.OK
                pool.on_result(worker, message.result, frames, now, failed and self._watch.system_killed())
            elif isinstance(message, link.Ready):
                pool.on_ready(worker)
            elif isinstance(message, link.IsSetUp):
                pool.on_set_up(worker)
            else:
                pool.on_setup_failed(bytes(buffer_of(frames[0])))
            if not (self._loop.busy or to_the_end):  # if there is more after all, the loop comes back
                return

    def _hear_zygote(self) -> None:
        reports = self._zygote.reports()
        if reports is None:
            self._loop.remove(self._zygote.channel.fileno())
            self._log.error("the zygote has died, and all workers with it")
            for lost in list(self._pool.workers.values()):
                self._bury(lost, "died with the manager's zygote")
            self._pool.on_no_workers("its zygote died")
            return
        for kind, number, value in reports:
            worker = self._pool.workers.get(number)
            if worker is not None and kind == zygote.BORN:
                self._watch.born(worker, value)
            elif worker is not None and kind == zygote.UNBORN:
                self._unborn(worker, f"could not be forked: {os.strerror(value)}")
            elif worker is not None and kind == zygote.DIED:
                self._bury(worker, zygote.in_words(value))

    def _unborn(self, worker: Worker, how: str) -> None:
        self._log.warning("worker %d %s", worker.id, how)
        self._links.pop(worker.id).close()
        self._pool.on_unborn(worker, how, time.monotonic())

    def _bury(self, worker: Worker, how: str) -> None:
        its_link = self._links.get(worker.id)
        if its_link is not None:  # else it was not even started
            self._hear_worker(worker, to_the_end=True)  # results it had sent before it died
            unread = []
            for _, message, frames in its_link.take_back(self._buffer):
                if isinstance(message, link.GiveTask):
                    unread.append((message.task.id, message.task.attempt))
                    self._pool.keep_frames(message.task.id, frames)
                elif isinstance(message, link.Setup):
                    worker.setting_up = False  # it has not even begun
            self._pool.on_recalled(worker, unread)
            its_link.close()
            del self._links[worker.id]
        if worker.tasks and not worker.ending:
            self._log.warning("worker %d %s while running task %d", worker.id, how, worker.tasks[0].id)
        pid, last_words = self._watch.pid_of(worker), ""
        if pid is not None and (worker.tasks or worker.setting_up) and not worker.ending:
            last_words = self._last_words.of(pid, time.monotonic() - worker.head_since)
        self._watch.died(worker)
        out_of_memory = "SIGKILL" in how and self._watch.system_killed()
        self._pool.on_death(worker, how, self._where, out_of_memory, last_words=last_words)
