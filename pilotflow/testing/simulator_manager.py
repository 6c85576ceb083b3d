"""The simulator's managers: the real pool, around workers that take simulated time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import msgspec

from pilotflow.core.beats import InterchangeWatch, beat_s, next_beat
from pilotflow.core.pool import Give, Kill, Pool, Recall, Spawn, Worker
from pilotflow.core.post import Post
from pilotflow.messages.manager import (
    Cancel,
    Class,
    Drain,
    Function,
    ManagerAlive,
    ManagerRefused,
    Place,
    Recorded,
    Register,
    Registered,
    Reregister,
    ReserveNode,
    Retract,
    Run,
    Stop,
    to_manager,
)
from pilotflow.messages.records import ForgetFunctions, Result, Status, Task
from pilotflow.resources import Capacity
from pilotflow.testing.simulator_actors import INTERCHANGE, PYTHON, VERSION
from pilotflow.testing.simulator_network import Clock, Network

KILL_DELAY_S = 0.002
START_DELAY_S = 0.05


class How(Enum):
    """How a simulated task ends."""

    OK = "ok"
    ERROR = "error"
    CRASH = "crash"


class Plan(msgspec.Struct, array_like=True):
    """What a simulated task does: the content of its payload."""

    seconds: float = 0.001
    how: How = How.OK
    result_bytes: int = 0


def payload_of(plan: Plan) -> bytes:
    """The payload of a task that does this."""
    return msgspec.msgpack.encode(plan)


def plan_of(payload: bytes) -> Plan:
    """What a task does, from its payload, which may have been joined with results that it needs."""
    if payload[:1] == b"\0":
        payload = msgspec.msgpack.decode(payload[1:], type=list[bytes])[0]
    return msgspec.msgpack.decode(payload, type=Plan)


class SimWorker:
    """A worker process: takes one packet after the other."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.unread: deque[tuple[Task, Sequence[bytes]]] = deque()
        self.current: Task | None = None
        self.ready = False
        self.alive = True


class SimManager:
    """One life of a manager process.

    Args:
        name: unique; the interchange knows it by this name.
        patience_s: it ends when it has heard nothing for so long.
        local: whether it is on the interchange's host.
        observe: called with (manager, task) when a task begins.
        check: called after each turn.
        gone: called when it has ended.
    """

    def __init__(
        self,
        name: str,
        clock: Clock,
        network: Network,
        executor: str,
        block: str,
        capacity: Capacity,
        heartbeat_limit_s: float,
        patience_s: float,
        observe: Callable[[SimManager, Task], None],
        check: Callable[[SimManager], None],
        walltime_s: float | None = None,
        local: bool = False,
    ) -> None:
        self.name = name
        self.clock = clock
        self.network = network
        self.executor = executor
        self.block = block
        self.pool = Pool(capacity)
        self.post = Post(1)
        self.workers: dict[int, SimWorker] = {}
        self.alive = True
        self.registered = 0
        self.registrations = 0
        self.refused = ""
        self._frozen = False
        self._leaving = False
        self.local = local
        self._beat_s = beat_s(heartbeat_limit_s)
        self._watch = InterchangeWatch(heartbeat_limit_s, clock.now)
        self._patience_s = patience_s
        self._end_at = None if walltime_s is None else clock.now + walltime_s
        self._heard_at = clock.now
        self._observe = observe
        self._check = check
        self._decode = to_manager()
        self._mailbox: deque[Callable[[], None]] = deque()
        network.join(name, self._hear)
        if local:
            network.sure.add(name)
        self._register()
        self.turn()
        self._beat()

    # ---- what happens to it -----------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether it is stopped, as by SIGSTOP; its workers are not."""
        return self._frozen

    @property
    def goes_on(self) -> bool:
        """Whether it is neither stopped nor gone."""
        return self.alive and not self._frozen

    def hung_up(self) -> None:
        """The interchange has ended, and another one has taken its place: begin anew with that."""

        def begin_anew() -> None:
            if not self._leaving:
                self.post.forget(INTERCHANGE)
                self._register()

        self._when_awake(begin_anew)

    def freeze(self) -> None:
        """Stop the process."""
        self._frozen = True

    def thaw(self) -> None:
        """Let the process go on: it finds what has come meanwhile."""
        self._frozen = False
        self._heard_at = self.clock.now
        while self._mailbox and not self._frozen:
            self._mailbox.popleft()()

    def die(self) -> None:
        """The process and its workers end, without a word."""
        self.alive = False
        self.network.leave(self.name)
        for worker in self.workers.values():
            worker.alive = False

    def leave(self, reason: str, walltime_over_at: float | None = None) -> None:
        """A planned end: hand everything back, and go."""
        if not self._leaving and self.alive:
            self._leaving = True
            self.pool.leave(reason, walltime_over_at)
            self.clock.after(1.0, self.die)
            self.turn()

    def kill_worker(self, index: int) -> None:
        """A worker process is killed from outside."""
        living = [worker for worker in self.workers.values() if worker.alive]
        if living:
            self._kill(living[index % len(living)], "was killed by signal 9 (SIGKILL)")

    # ---- the interchange --------------------------------------------------------------------

    def _time_left(self) -> float | None:
        return None if self._end_at is None else max(0.0, self._end_at - self.clock.now)

    def _register(self) -> None:
        self.registrations += 1
        who = (VERSION, PYTHON, self.executor, self.block, self.name, self.name, 1)
        self.pool.register(Register(*who, self.pool.capacity, self._time_left(), [], []))

    def _hear(self, sender: str, header: bytes, frames: Sequence[bytes]) -> None:
        self._when_awake(lambda: self._take(header, frames))

    def _when_awake(self, action: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self._frozen:
            self._mailbox.append(lambda: self._when_awake(action))
            return
        action()
        self.turn()

    def _take(self, header: bytes, frames: Sequence[bytes]) -> None:
        self._heard_at = self.clock.now
        for messages, parts in self.post.receive(INTERCHANGE, self._decode(header), frames) or ():
            at = 0
            for message in messages:
                if isinstance(message, Run):
                    at = self.pool.on_run(message, parts, at)
                else:
                    self._obey(message)

    def _obey(self, message: Any) -> None:
        pool = self.pool
        if isinstance(message, Recorded):
            pool.on_recorded(message.seqs)
        elif isinstance(message, Function):
            pool.on_function(message)
        elif isinstance(message, ForgetFunctions):
            pool.on_forget(message)
        elif isinstance(message, Class):
            pool.on_class(message.cls, message.request)
        elif isinstance(message, Cancel):
            pool.on_cancel(message)
        elif isinstance(message, ReserveNode):
            pool.on_reserve(message)
        elif isinstance(message, Place):
            pool.on_place(message)
        elif isinstance(message, Retract):
            pool.on_retract(message.tasks)
        elif isinstance(message, Registered):
            self.registered = message.manager
        elif isinstance(message, Reregister):
            if not self._leaving:
                self.post.forget(INTERCHANGE)
                self._register()
        elif isinstance(message, ManagerRefused):
            self.refused = message.reason
            self.die()
        elif isinstance(message, Drain):
            pool.drain()
        elif isinstance(message, Stop):
            self.leave(message.reason)

    def _beat(self) -> None:
        if not self.alive:
            return
        self.clock.at(next_beat(self.clock.now, self._beat_s), self._beat)
        if self._frozen:
            return
        if not self.local and self.clock.now - self._heard_at > self._patience_s:
            self.die()
            return
        self.pool.announce_long_runs(self.clock.now)
        self._send_sign_of_life(self.clock.now)
        if self._time_left() == 0.0:
            self.leave("its block's walltime is over", self.clock.now)
        self.turn()

    def _send_sign_of_life(self, now: float) -> None:
        at_stake = self.pool.busy or not self.local
        if at_stake:
            self._watch.hurry(now)
        if now >= self._watch.due_at - 1e-6:  # a multiple of both periods may differ by less
            self._watch.ask(now, now, at_stake=at_stake)
            sign = self.post.sign_of_life(INTERCHANGE, [ManagerAlive(self._time_left())])
            if self.registered:
                self.network.send(self.name, INTERCHANGE, sign, ())

    # ---- workers ----------------------------------------------------------------------------

    def turn(self) -> None:
        """What the process's loop does after something has happened."""
        if not self.alive or self._frozen:
            return
        if self.local:
            self._send_sign_of_life(self.clock.now)  # of one that was at rest it is due at once
        if self.pool.drained and not self._leaving:
            self.leave("drained")
        if self.pool.broken:
            self.die()
            return
        while orders := self.pool.take_orders(self.clock.now):
            for order in orders:
                if isinstance(order, Give):
                    self._give(self.workers[order.worker.id], order.task, order.frames)
                elif isinstance(order, Recall):
                    self._recall(self.workers.get(order.worker.id))
                elif isinstance(order, Kill):
                    self._kill(self.workers.get(order.worker.id), "was killed by signal 9 (SIGKILL)", KILL_DELAY_S)
                elif isinstance(order, Spawn):
                    self._spawn(SimWorker(order.worker))
        self._check(self)
        letter = self.pool.take_letter()
        for _, header, frames in self.post.send({INTERCHANGE: letter} if letter.messages else {}):
            self.network.send(self.name, INTERCHANGE, header, frames)

    def _spawn(self, sim: SimWorker) -> None:
        self.workers[sim.worker.id] = sim

        def ready() -> None:
            if sim.alive:
                sim.ready = True
                self._when_awake(lambda: self.pool.on_ready(sim.worker) if sim.alive else None)
                self._pump(sim)

        self.clock.after(START_DELAY_S, ready)

    def _give(self, sim: SimWorker, task: Task, frames: Sequence[bytes]) -> None:
        sim.unread.append((task, frames))
        self._pump(sim)

    def _pump(self, sim: SimWorker) -> None:
        if not (sim.alive and sim.ready and sim.current is None and sim.unread):
            return
        task, frames = sim.unread.popleft()
        assert len(frames) == sum(task.layout), f"{task} came with {len(frames)} frames"
        sim.current = task
        self._observe(self, task)
        plan = plan_of(frames[0] if task.layout else task.payload)
        self.clock.after(plan.seconds, lambda: self._ended(sim, task, plan))

    def _ended(self, sim: SimWorker, task: Task, plan: Plan) -> None:
        if not sim.alive:
            return
        if plan.how is How.CRASH:
            self._kill(sim, "was killed by signal 11 (SIGSEGV)")
            return
        status = Status.OK if plan.how is How.OK else Status.ERROR
        microseconds = int(plan.seconds * 1e6)
        result = Result(task.id, task.attempt, status, b"%d" % task.id, (), microseconds, 1)
        frames: tuple[bytes, ...] = ()
        if plan.result_bytes:
            result.payload, result.layout, frames = b"", (1, 0), (b"x" * plan.result_bytes,)
        sim.current = None
        self._when_awake(lambda: self.pool.on_result(sim.worker, result, frames, self.clock.now))
        self._pump(sim)

    def _recall(self, sim: SimWorker | None) -> None:
        if sim is None or not sim.alive:
            return
        back = [task for task, frames in sim.unread if not frames]
        sim.unread = deque((task, frames) for task, frames in sim.unread if frames)
        self.pool.on_recalled(sim.worker, [(task.id, task.attempt) for task in back])

    def _kill(self, sim: SimWorker | None, how: str, delay_s: float = 0.0) -> None:
        if sim is None or not sim.alive:
            return

        def dead() -> None:
            if sim.alive:
                sim.alive = False
                self._when_awake(lambda: self._bury(sim, how))

        self.clock.after(delay_s, dead)

    def _bury(self, sim: SimWorker, how: str) -> None:
        self.workers.pop(sim.worker.id, None)
        for task, frames in sim.unread:
            self.pool.keep_frames(task.id, frames)
        self.pool.on_recalled(sim.worker, [(task.id, task.attempt) for task, _ in sim.unread])
        self.pool.on_death(sim.worker, how, f"on {self.name} (block {self.block})")
