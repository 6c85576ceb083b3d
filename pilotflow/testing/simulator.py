"""A whole run in one thread: real cores, a clock that jumps, a network that misbehaves by seed.

    sim = Simulation(seed=7, faults=Faults(drop=0.02, delay_s=(0.0, 0.2)))
    sim.add_manager(slots=4)
    future = sim.submit(seconds=3.0)
    sim.run(until=lambda: future.status is not None)

Everything that travels is encoded and decoded. After each step the invariants of
`simulator_checks` hold, or an `AssertionError` says which does not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from pilotflow.core.exchange import Exchange
from pilotflow.messages.client import DefineClass, DefineFunction
from pilotflow.messages.records import Task
from pilotflow.resources import DEFAULT_REQUEST, Capacity, Request
from pilotflow.serialize import Packed
from pilotflow.testing.simulator_actors import CLIENT, INTERCHANGE, SimClient, SimFuture, SimInterchange
from pilotflow.testing.simulator_checks import check_agreement, check_exchange, check_pool
from pilotflow.testing.simulator_manager import How, Plan, SimManager, payload_of
from pilotflow.testing.simulator_network import Clock, Faults, Network

__all__ = ["CLIENT", "INTERCHANGE", "Faults", "How", "Plan", "SimFuture", "SimManager", "Simulation"]

STEPS_MAX = 1_000_000


class Simulation:
    """A client, an interchange and managers.

    Args:
        seed: of everything random.
        faults: what goes wrong with letters; may be changed on the way, in `network.faults`.
        heartbeat_limit_s: as in a real run.
        patience_s: managers end when they have heard nothing for so long.
        check: whether invariants are checked after each step.
    """

    def __init__(
        self,
        seed: int = 0,
        faults: Faults | None = None,
        heartbeat_limit_s: float = 30.0,
        patience_s: float = 600.0,
        check: bool = True,
    ) -> None:
        self.random = Random(seed)
        self.clock = Clock()
        self.network = Network(self.clock, self.random, faults or Faults())
        self.managers: dict[str, SimManager] = {}
        self.begun: Counter[int] = Counter()  # executions of each task
        self.running_on: list[tuple[str, int]] = []  # manager and task of each execution, in order
        self._attempts: set[tuple[str, int, int]] = set()
        self._checking = check
        self._heartbeat_limit_s = heartbeat_limit_s
        self._patience_s = patience_s
        self._classes: dict[tuple[Request, tuple[str, ...], int], int] = {}
        self._functions: dict[str, int] = {}
        self._next_task = 1
        self._neighbours: dict[str, SimManager] = {}
        self.interchange = SimInterchange(
            self.clock, self.network, heartbeat_limit_s, self._check_exchange, self._neighbours
        )
        self.client = SimClient(self.clock, self.network, heartbeat_limit_s)

    # ---- building ---------------------------------------------------------------------------

    def add_manager(
        self,
        slots: int = 1,
        executor: str = "cpu",
        block: str = "",
        cpus: int | None = None,
        *,
        memory_bytes: int = 0,
        gpus: Sequence[str] = (),
        depth_limited: bool = False,
        walltime_s: float | None = None,
        local: bool = False,
    ) -> SimManager:
        """A manager starts; without `cpus` it has one for each slot. A `local` one is on the interchange's host."""
        name = f"m{len(self.managers) + 1}"
        cpus_milli = 1000 * (slots if cpus is None else cpus)
        capacity = Capacity(cpus_milli, memory_bytes, tuple(gpus), slots, depth_limited)
        manager = self.managers[name] = SimManager(
            name,
            self.clock,
            self.network,
            executor,
            block or f"block-{name}",
            capacity,
            self._heartbeat_limit_s,
            self._patience_s,
            self._observe,
            self._check_pool,
            walltime_s,
            local,
        )
        if local:
            self._neighbours[name] = manager
        return manager

    def submit_many(
        self,
        plans: Sequence[Plan],
        *,
        function: str = "f",
        request: Request = DEFAULT_REQUEST,
        executors: tuple[str, ...] = (),
        crash_limit: int = 5,
        retries: int = 0,
        needs: Sequence[int] = (),
        as_frames: bool = False,
    ) -> list[SimFuture]:
        """Submit a task for each plan, in one letter; `needs` are tasks that all of them wait for."""
        fn = self._function(function)
        cls = self._class(request, executors, crash_limit)
        tasks: list[tuple[Task, Sequence[bytes], int, Sequence[Packed | int]]] = []
        for plan in plans:
            payload = payload_of(plan)
            id = self._next_task
            self._next_task += 1
            if as_frames:
                tasks.append((Task(id, 0, fn, cls, b"", (1, 0)), (payload,), retries, ()))
            else:
                tasks.append((Task(id, 0, fn, cls, payload), (), retries, needs))
        return self.client.submit(tasks)

    def submit(self, seconds: float = 0.001, how: How = How.OK, **options: object) -> SimFuture:
        """Submit one task; options as in `submit_many`."""
        return self.submit_many([Plan(seconds, how)], **options)[0]  # type: ignore[arg-type]

    def _function(self, name: str) -> int:
        if name not in self._functions:
            self._functions[name] = len(self._functions) + 1
            self.client.say(DefineFunction(self._functions[name], name.encode(), name.encode()))
        return self._functions[name]

    def _class(self, request: Request, executors: tuple[str, ...], crash_limit: int) -> int:
        key = (request, executors, crash_limit)
        if key not in self._classes:
            self._classes[key] = len(self._classes) + 1
            self.client.say(DefineClass(self._classes[key], request, executors, crash_limit))
        return self._classes[key]

    # ---- running ----------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The simulated time, in seconds."""
        return self.clock.now

    def run(self, until: Callable[[], bool] | None = None, limit_s: float = 3600.0) -> float:
        """Run until the condition holds (without one: until every task has ended); returns the seconds it took.

        Raises:
            AssertionError: an invariant does not hold, or the condition does not within the limit.
        """
        done = until or (lambda: not self.client.graph.pending)
        start = self.now
        for _ in range(STEPS_MAX):
            if done():
                return self.now - start
            assert self.now - start <= limit_s, f"not done after {limit_s:g} simulated seconds: {self.describe()}"
            assert self.clock.step(), "nothing will ever happen again"
        raise AssertionError(f"not done after {STEPS_MAX} steps: {self.describe()}")

    def run_for(self, seconds: float) -> None:
        """Run for so many simulated seconds."""
        end = self.now + seconds
        self.clock.at(end, lambda: None)
        self.run(until=lambda: self.now >= end, limit_s=seconds + 1)

    def settle(self, seconds: float = 1.0) -> None:
        """Let everything that is on its way arrive, then check that both sides agree and nothing is left over."""
        self.run_for(seconds)
        for manager in self.managers.values():
            if self._is_quiet(manager):
                check_agreement(self.interchange.exchange, manager)
        if not self.client.graph.pending:
            self._check_nothing_left()

    def describe(self) -> str:
        """What has not ended, and who is there."""
        pending = sorted(self.client.graph.pending)[:10]
        alive = [f"{m.name}{' frozen' if m.frozen else ''}" for m in self.managers.values() if m.alive]
        scheduler = self.interchange.exchange.scheduler
        where = {id: holder.node if (holder := scheduler.holder(id)) else id in scheduler.tasks for id in pending}
        return f"pending {where}, managers {alive}, known {list(self.interchange.exchange.peers)}"

    # ---- watching ---------------------------------------------------------------------------

    def _observe(self, manager: SimManager, task: Task) -> None:
        self.begun[task.id] += 1
        self.running_on.append((manager.name, task.id))
        key = (manager.name, task.id, task.attempt)
        assert key not in self._attempts, f"attempt {task.attempt} at task {task.id} begins twice"
        self._attempts.add(key)

    def _check_exchange(self, exchange: Exchange) -> None:
        if self._checking:
            check_exchange(exchange)

    def _check_pool(self, manager: SimManager) -> None:
        if self._checking:
            check_pool(manager)

    def _is_quiet(self, manager: SimManager) -> bool:
        here = self.interchange.post.session(manager.name)
        there = manager.post.session(INTERCHANGE)
        return (
            manager.alive
            and not manager.frozen
            and here is not None
            and there is not None
            and here.their_stream == there.stream
            and there.their_stream == here.stream
            and (here.received, there.received) == (there.sent, here.sent)
        )

    def _check_nothing_left(self) -> None:
        exchange = self.interchange.exchange
        held = {id for id, task in exchange.scheduler.tasks.items() if task.manager}
        assert not held & self.client.futures.keys() or not self.client.unanswered
        for table in exchange.tables():
            assert not [id for id in table if exchange.scheduler.find(id) is None], "an exchange's table has a leak"
        assert not self.client.unanswered, f"cancels without an answer: {self.client.unanswered}"
