"""Blocks of one executor under any history of events: its promises hold, and nothing is ever a storm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pilotflow.core.block_records import (
    Action,
    BlockLimits,
    BlockState,
    BlockStatus,
    CancelBlock,
    DrainBlock,
    GiveUp,
    Phase,
    RequestBlock,
)
from pilotflow.core.blocks import BlockScaler
from pilotflow.core.scaling import Planner, Queue
from pilotflow.messages.records import BlockLoad, ClassLoad
from pilotflow.resources import Capacity, Request
from tests.core.blocks_bench import DONE, FAILED, LIMITS, RUNNING, SHAPE, Bench

WORDS = (
    "submit",
    "refuse",
    "run",
    "complete",
    "fail",
    "miss",
    "up",
    "up2",
    "lost",
    "left",
    "busy",
    "free",
    "wait",
    "suspend",
)
HISTORY = st.lists(
    st.tuples(st.sampled_from(WORDS), st.integers(0, 3), st.sampled_from([0.0, 0.1, 1.0, 7.0, 40.0])), max_size=60
)
ANY_LIMITS = st.builds(
    lambda init, low, high, parallelism, nodes, idle: replace(
        LIMITS,
        max_blocks=max(init, low, high),
        init_blocks=init,
        min_blocks=low,
        parallelism=parallelism,
        shape=structs.replace(SHAPE, nodes=nodes),
        max_idletime_s=idle,
    ),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(1, 2),
    st.sampled_from([0.0, 5.0]),
)


class World:
    """Any order of events, true to nothing but the names of blocks; promises are checked at each step."""

    def __init__(self, limits: BlockLimits) -> None:
        self.limits = limits
        self.scaler = BlockScaler("cpu", limits)
        self.now = 0.0
        self.exists: list[str] = []
        self.seen: set[str] = set()
        self.busy: set[str] = set()
        self.joined: set[str] = set()  # has ever had a manager
        self.managed: set[str] = set()  # has one
        self.failed_in_a_row = 0
        self.give_ups = 0
        self.cancelled: set[str] = set()
        self.waiting = 0

    def decide(self) -> list[Action]:
        queue = Queue([ClassLoad(Request(), (), self.waiting)] if self.waiting else [])
        missing = Planner().missing(queue, [self.scaler.supply(self.now)])
        return self.scaler.decide(self.now, missing.get("cpu", 0))

    def tell_load(self, waiting: int = 0) -> None:
        self.waiting = waiting
        loads = [BlockLoad(name, 1, int(name in self.busy), 2, 1.0, False) for name in sorted(self.managed)]
        queue = Queue([ClassLoad(Request(), (), waiting)] if waiting else [])
        self.scaler.on_load(loads, queue, self.now)

    def apply(self, word: str, which: int, wait_s: float) -> None:
        self.now += wait_s
        self.tell_load(0 if word != "wait" else which)
        if self.exists:
            self._apply_to(self.exists[which % len(self.exists)], word)
        self.check(self.decide())

    def _apply_to(self, name: str, word: str) -> None:
        scaler, now = self.scaler, self.now
        match word:
            case "submit":
                scaler.on_submitted(name, f"id-{name}", now)
            case "refuse":
                scaler.on_submit_failed(name, "no", now)
                self._ended(name)
            case "run":
                scaler.on_status(name, RUNNING, now)
            case "suspend":
                scaler.on_status(name, BlockStatus(BlockState.SUSPENDED), now)
            case "complete" | "fail":
                scaler.on_status(name, DONE if word == "complete" else FAILED, now)
                self._ended(name)
            case "miss":
                scaler.on_status(name, BlockStatus(BlockState.MISSING), now)
                if name not in {i.block for i in scaler.describe() if i.phase is not Phase.ENDED}:
                    self._ended(name)
            case "up" | "up2":
                scaler.on_manager_up(name, word, Capacity(2000, slots=2), now)
                self.joined.add(name)
                self.managed.add(name)
                self.failed_in_a_row = 0
            case "lost" | "left":
                for node in ("up", "up2"):
                    scaler.on_manager_down(name, node, now, planned=word == "left")
                self.busy.discard(name)
                self.managed.discard(name)
                self.tell_load()
            case "busy" if name in self.managed:
                self.busy.add(name)
                self.tell_load()
            case _:
                self.busy.discard(name)
                self.tell_load()

    def _ended(self, name: str) -> None:
        self.exists.remove(name)
        self.busy.discard(name)
        self.failed_in_a_row += name not in self.joined
        self.managed.discard(name)

    def check(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case RequestBlock(name):
                    assert name not in self.seen, "a name was used twice"
                    assert not self.give_ups, "requested after giving up"
                    self.seen.add(name)
                    self.exists.append(name)
                case DrainBlock(name):
                    assert name not in self.busy, "drained a block with work"
                    assert name in self.exists
                case CancelBlock(name):
                    # A manager may come back after the order; the order stands.
                    assert name not in self.busy or name in self.cancelled, "ended a block with work"
                    assert name in self.exists
                    self.cancelled.add(name)
                case GiveUp():
                    self.give_ups += 1
                    assert not self.exists, "gave up although a block may still come"
                    assert self.failed_in_a_row >= self.limits.start_retries
        assert len(self.exists) <= self.limits.max_blocks
        assert self.give_ups <= 1
        assert self.decide() == [], "the same moment asks for something again"


@given(limits=ANY_LIMITS, history=HISTORY)
@settings(deadline=None, max_examples=150)
def test_no_history_breaks_a_promise(limits: BlockLimits, history: list[tuple[str, int, float]]) -> None:
    world = World(limits)
    world.check(world.decide())
    for word, which, wait_s in history:
        world.apply(word, which, wait_s)


@given(limits=ANY_LIMITS, history=HISTORY)
@settings(deadline=None, max_examples=100)
def test_after_any_history_waiting_work_gets_a_block_or_an_end(
    limits: BlockLimits, history: list[tuple[str, int, float]]
) -> None:
    world = World(limits)
    world.check(world.decide())
    for word, which, wait_s in history:
        world.apply(word, which, wait_s)
    scaler = world.scaler
    for name in list(world.exists):  # whatever there was, ends
        scaler.on_status(name, FAILED, world.now)
    world.tell_load(1)
    for _ in range(200):
        world.now += 1
        if any(isinstance(action, (RequestBlock, GiveUp)) for action in world.decide()):
            return
        if scaler.given_up:
            return
    raise AssertionError("a task waits, no block exists, and nothing is done about it")


@given(limits=ANY_LIMITS, dies_after_s=st.sampled_from([0.0, 0.5, 5.0]), joins=st.booleans())
@settings(deadline=None, max_examples=60)
def test_blocks_that_always_die_are_never_a_storm(limits: BlockLimits, dies_after_s: float, joins: bool) -> None:
    bench = Bench()
    bench.scaler = BlockScaler("cpu", limits)
    requests: list[float] = []
    for _ in range(3000):
        bench.load(queued=100)
        names = [action.name for action in bench.decide(0.1) if isinstance(action, RequestBlock)]
        requests += [bench.now] * len(names)
        bench.submit(*names)
        for name in names if joins else ():
            bench.up(name)
        bench.now += dies_after_s if names else 0
        for name in names:
            bench.status(name, FAILED)
    assert bench.scaler.given_up is (not joins)
    if joins:
        recent = [moment for moment in requests if moment > bench.now - 120]
        assert len(recent) <= 3 * limits.max_blocks
    else:
        assert len(requests) <= limits.max_blocks + limits.start_retries
