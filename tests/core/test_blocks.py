"""Scaling of one executor's blocks: limits, load, idleness, losses and blocks that do not start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.core import blocks as rules
from pilotflow.core.blocks import (
    Action,
    BlockLimits,
    BlockScaler,
    BlockState,
    BlockStatus,
    CancelBlock,
    DrainBlock,
    GiveUp,
    Phase,
    RequestBlock,
)
from pilotflow.messages import BlockLoad

LIMITS = BlockLimits(
    init_blocks=1,
    min_blocks=0,
    max_blocks=4,
    parallelism=1.0,
    nodes_per_block=1,
    slots_per_node_guess=2,
    max_idletime_s=10.0,
)
RUNNING = BlockStatus(BlockState.RUNNING)
FAILED = BlockStatus(BlockState.FAILED, "", 3)
DONE = BlockStatus(BlockState.COMPLETED, "", 0)


class Bench:
    """A scaler, its clock, and short words for what happens to it."""

    def __init__(self, **changes: Any) -> None:
        self.scaler = BlockScaler("cpu", replace(LIMITS, **changes))
        self.now = 1000.0

    def decide(self, after_s: float = 0.0) -> list[Action]:
        self.now += after_s
        return self.scaler.decide(self.now)

    def requested(self, after_s: float = 0.0) -> list[str]:
        """What is requested now, and nothing else."""
        actions = self.decide(after_s)
        assert all(isinstance(action, RequestBlock) for action in actions), actions
        return [action.name for action in actions if isinstance(action, RequestBlock)]

    def submit(self, *names: str) -> None:
        for name in names:
            self.scaler.on_submitted(name, f"id-{name}", self.now)

    def up(self, name: str, node: str = "n0", slots: int = 2) -> None:
        self.scaler.on_manager_up(name, node, slots, self.now)

    def down(self, name: str, node: str = "n0", *, planned: bool = False) -> None:
        self.scaler.on_manager_down(name, node, self.now, planned=planned)

    def status(self, name: str, status: BlockStatus) -> None:
        self.scaler.on_status(name, status, self.now)

    def load(self, queued: int = 0, leased: int = 0, **held: int) -> None:
        """Tasks that wait, are handed out; and what each block (`cpu_0=2`) holds."""
        loads = [BlockLoad(name.replace("_", "-"), 1, count, 2, 0.0, False) for name, count in held.items()]
        self.scaler.on_load(queued, leased, loads, self.now)

    def working(self, count: int = 1) -> list[str]:
        """Bring up what is requested now."""
        names = self.requested()
        assert len(names) == count
        self.submit(*names)
        for name in names:
            self.status(name, RUNNING)
            self.up(name)
        return names

    def fail_start(self, after_s: float = 0.0) -> str:
        (name,) = self.requested(after_s)
        self.submit(name)
        self.status(name, FAILED)
        return name

    def phases(self) -> dict[str, Phase]:
        return {info.block: info.phase for info in self.scaler.describe()}


# ---- how many -------------------------------------------------------------------------------


def test_the_initial_blocks_are_requested_once() -> None:
    bench = Bench(init_blocks=2)
    assert bench.requested() == ["cpu-0", "cpu-1"]
    assert bench.requested(100) == []


def test_nothing_is_requested_without_initial_blocks_and_load() -> None:
    assert Bench(init_blocks=0).requested(100) == []


def test_min_blocks_are_kept_from_the_start_and_after_planned_ends() -> None:
    bench = Bench(init_blocks=0, min_blocks=2)
    first, second = bench.working(2)
    bench.now += 100
    bench.down(first, planned=True)
    bench.status(first, DONE)
    assert bench.requested() == ["cpu-2"]
    assert bench.phases()[second] is Phase.WORKING


def test_an_initial_block_that_ended_as_planned_is_not_replaced_without_load() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.now += 100
    bench.down(name, planned=True)
    bench.status(name, DONE)
    assert bench.requested() == []
    assert not bench.scaler.given_up


@pytest.mark.parametrize(
    ("queued", "parallelism", "more"),
    [(2, 1.0, 0), (3, 1.0, 1), (5, 1.0, 2), (100, 1.0, 3), (100, 0.05, 2), (4, 0.5, 0), (5, 0.5, 1), (100, 0.0, 0)],
)
def test_load_above_the_slots_brings_blocks_up_to_the_limit(queued: int, parallelism: float, more: int) -> None:
    bench = Bench(parallelism=parallelism)
    bench.working()
    bench.load(queued=queued)
    assert len(bench.requested()) == more
    assert bench.requested() == []


def test_tasks_handed_out_count_as_load() -> None:
    bench = Bench()
    bench.working()
    bench.load(queued=1, leased=2, cpu_0=2)
    assert bench.requested() == ["cpu-1"]


def test_one_queued_task_brings_one_block_whatever_the_parallelism() -> None:
    bench = Bench(init_blocks=0, parallelism=0.0)
    bench.load(queued=1)
    assert bench.requested() == ["cpu-0"]
    assert bench.requested(5) == []


def test_slots_are_learned_from_managers() -> None:
    bench = Bench()
    (name,) = bench.requested()
    bench.submit(name)
    bench.up(name, slots=8)
    bench.load(queued=20)
    assert len(bench.requested()) == 2  # 8 are there, 12 are missing, 8 a block


def test_nodes_that_have_not_registered_yet_count_with_what_is_known() -> None:
    bench = Bench(nodes_per_block=4)
    (name,) = bench.requested()
    bench.submit(name)
    bench.up(name, "n0", slots=8)
    bench.load(queued=32)
    assert bench.requested() == []
    bench.load(queued=33)
    assert bench.requested() == ["cpu-1"]


def test_a_manager_that_registers_again_counts_once() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.up(name)
    bench.load(queued=3)
    assert bench.requested() == ["cpu-1"]


def test_a_lost_node_of_a_block_is_made_up_for_when_the_load_asks_for_it() -> None:
    bench = Bench(nodes_per_block=2)
    (name,) = bench.requested()
    bench.submit(name)
    bench.up(name, "n0")
    bench.up(name, "n1")
    bench.load(queued=4)
    assert bench.requested() == []
    bench.down(name, "n1")
    assert bench.requested() == ["cpu-1"]


def test_tasks_too_big_for_the_free_slots_bring_one_more_block() -> None:
    bench = Bench()
    bench.working()
    bench.load(queued=1, leased=1, cpu_0=1)  # two slots, but the tasks need two each
    assert bench.requested() == []
    assert bench.requested(rules.STUCK_S) == ["cpu-1"]
    assert bench.requested(rules.STUCK_S * 5) == []
    bench.submit("cpu-1")
    bench.up("cpu-1")
    assert bench.requested(rules.STUCK_S * 5) == []  # it is idle: more of the same would not help


def test_names_are_never_used_again() -> None:
    bench = Bench(max_blocks=1)
    bench.working()
    for number in range(1, 4):
        bench.now += 100
        bench.load(queued=1)
        bench.status(f"cpu-{number - 1}", FAILED)
        assert bench.working() == [f"cpu-{number}"]


# ---- scaling in -----------------------------------------------------------------------------


def test_an_idle_block_is_drained_after_its_time_and_cancelled_when_its_managers_have_left() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.load(cpu_0=0)
    assert bench.decide(9.9) == []
    assert bench.decide(0.2) == [DrainBlock(name)]
    assert bench.decide(1) == []
    bench.down(name, planned=True)
    assert bench.decide() == []
    assert bench.decide(rules.LEAVE_S) == [CancelBlock(name)]
    bench.status(name, BlockStatus(BlockState.CANCELLED))
    assert bench.phases() == {name: Phase.ENDED}
    assert bench.decide(100) == []


def test_a_drained_block_that_ends_by_itself_is_not_cancelled() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.decide(11)
    bench.down(name, planned=True)
    bench.status(name, DONE)
    assert bench.decide(100) == []


def test_a_draining_block_that_hangs_is_cancelled_but_never_with_work_in_it() -> None:
    bench = Bench()
    (name,) = bench.working()
    assert bench.decide(11) == [DrainBlock(name)]
    bench.load(leased=1, cpu_0=1)  # handed out just before the drain
    assert bench.requested(rules.DRAIN_S * 10) == ["cpu-1"]
    bench.load(cpu_0=0)
    assert CancelBlock(name) in bench.decide()


def test_a_block_is_not_idle_while_it_holds_work_or_something_waits() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.load(leased=1, cpu_0=1)
    assert bench.decide(100) == []
    bench.load(queued=1, leased=0, cpu_0=0)
    assert bench.decide(100) == []
    bench.load(cpu_0=0)
    assert bench.decide(9) == []
    assert bench.decide(2) == [DrainBlock(name)]


def test_min_blocks_survive_idleness_and_the_longest_idle_goes_first() -> None:
    bench = Bench(init_blocks=3, min_blocks=1)
    first, second, third = bench.working(3)
    bench.load(leased=2, cpu_0=2)
    bench.now += 4
    bench.load(leased=1, cpu_1=1)
    bench.now += 4
    bench.load(cpu_0=0, cpu_1=0)  # the third has been idle since it came
    assert bench.decide(2) == [DrainBlock(third)]
    bench.status(third, DONE)
    assert bench.decide(100) == [DrainBlock(second)]  # equally long idle: the younger
    bench.status(second, DONE)
    assert bench.decide(1000) == []
    assert bench.phases()[first] is Phase.WORKING


def test_a_block_that_the_load_would_call_for_again_is_not_drained() -> None:
    bench = Bench(init_blocks=2)
    bench.working(2)
    bench.load(leased=3, cpu_0=3, cpu_1=0)  # sent ahead to the first
    assert bench.decide(100) == []
    bench.load(leased=2, cpu_0=2, cpu_1=0)
    assert bench.decide(100) == [DrainBlock("cpu-1")]
    bench.status("cpu-1", DONE)
    assert bench.decide(100) == []


def test_steady_load_never_makes_blocks_come_and_go() -> None:
    bench = Bench(max_idletime_s=0.0)
    bench.working()
    bench.load(queued=2, leased=2, cpu_0=2)
    bench.working()
    for leased in (4, 3, 4, 3, 4):
        bench.load(leased=leased, cpu_0=2, cpu_1=leased - 2)
        assert bench.decide(5) == []


def test_a_draining_block_counts_against_the_limit_and_its_place_is_filled_when_it_is_gone() -> None:
    bench = Bench(max_blocks=1)
    (name,) = bench.working()
    bench.decide(11)
    bench.load(queued=1)
    assert bench.requested(1) == []
    bench.down(name, planned=True)
    bench.status(name, DONE)
    assert bench.requested(1) == ["cpu-1"]


# ---- losses ---------------------------------------------------------------------------------


def test_a_lost_block_is_replaced_at_once_if_the_load_wants_it() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.load(queued=1)
    bench.down(name)
    bench.status(name, FAILED)
    assert bench.requested() == ["cpu-1"]


def test_a_lost_block_is_not_replaced_if_nothing_wants_it() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.status(name, FAILED)
    assert bench.requested(100) == []
    assert not bench.scaler.given_up


def test_a_block_whose_managers_are_lost_is_cancelled_unless_one_comes_back() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.down(name)
    assert bench.decide(rules.LOST_S - 0.1) == []
    bench.up(name)
    assert bench.decide(rules.LOST_S) == []
    bench.down(name)
    assert bench.decide(rules.LOST_S) == [CancelBlock(name)]
    bench.load(queued=1)
    assert bench.requested() == ["cpu-1"]


def test_blocks_that_join_and_die_young_are_replaced_later_and_later() -> None:
    bench = Bench(max_blocks=1)
    waits = []
    for _ in range(9):
        bench.load(queued=1)
        began = bench.now
        while not (names := bench.requested()):
            bench.now += 0.5
        waits.append(bench.now - began)
        bench.submit(*names)
        bench.up(names[0])
        bench.now += 1
        bench.status(names[0], FAILED)
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60]
    assert not bench.scaler.given_up


def test_a_long_life_is_followed_by_a_prompt_replacement() -> None:
    bench = Bench(max_blocks=1)
    for _ in range(5):
        (name,) = bench.working()
        bench.now += rules.YOUNG_S
        bench.load(queued=1)
        bench.status(name, FAILED)


def test_walltime_is_a_planned_end() -> None:
    bench = Bench(max_blocks=1)
    for _ in range(5):
        (name,) = bench.working()
        bench.now += 5
        bench.load(queued=1)
        bench.status(name, BlockStatus(BlockState.TIMEOUT))


def test_a_block_is_missing_only_after_a_while() -> None:
    bench = Bench()
    (name,) = bench.working()
    missing = BlockStatus(BlockState.MISSING)
    bench.status(name, missing)
    bench.now += rules.MISSING_S - 1
    bench.status(name, missing)
    bench.status(name, RUNNING)
    bench.now += 2
    bench.status(name, missing)
    assert bench.phases()[name] is Phase.WORKING
    bench.now += rules.MISSING_S
    bench.status(name, missing)
    assert bench.phases()[name] is Phase.ENDED


def test_a_cancelled_block_that_stays_is_cancelled_again() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.down(name)
    assert bench.decide(rules.LOST_S) == [CancelBlock(name)]
    assert bench.decide(rules.CANCEL_AGAIN_S) == [CancelBlock(name)]


def test_ended_blocks_stay_ended_whatever_is_said_about_them() -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.status(name, DONE)
    before = bench.scaler.describe()
    bench.status(name, FAILED)
    bench.status(name, RUNNING)
    bench.up(name)
    bench.down(name)
    bench.submit(name)
    bench.load(cpu_0=1)
    assert bench.scaler.describe() == before


def test_managers_of_unknown_blocks_are_none_of_its_business() -> None:
    bench = Bench(init_blocks=0)
    bench.up("by-hand")
    bench.down("by-hand")
    bench.status("by-hand", FAILED)
    bench.load(by_hand=3)
    assert bench.decide() == []


def test_only_so_many_ended_blocks_are_remembered() -> None:
    bench = Bench(max_blocks=1)
    for _ in range(rules.KEEP_ENDED + 50):
        (name,) = bench.working()
        bench.now += 100
        bench.load(queued=1)
        bench.status(name, DONE)
    assert len(bench.scaler.describe()) == rules.KEEP_ENDED


# ---- blocks that do not start ---------------------------------------------------------------


def test_three_starts_in_a_row_that_fail_are_the_end_with_one_message() -> None:
    bench = Bench()
    bench.load(queued=1)
    assert bench.fail_start() == "cpu-0"
    assert bench.fail_start() == "cpu-1"
    assert bench.requested(0.9) == []
    assert bench.fail_start(0.1) == "cpu-2"
    (give_up,) = bench.decide()
    assert isinstance(give_up, GiveUp)
    assert give_up.block == "cpu-2"
    for words in ("3 blocks in a row", "executor 'cpu'", "cpu-2", "failed with exit code 3"):
        assert words in give_up.reason
    assert bench.decide(1000) == []
    bench.load(queued=50)
    assert bench.decide(1000) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (DONE, "ended with exit code 0"),
        (BlockStatus(BlockState.FAILED, "node failure"), "failed (node failure)"),
        (BlockStatus(BlockState.FAILED, "", -9), "was ended by signal 9"),
        (BlockStatus(BlockState.TIMEOUT, "walltime of 3 s reached", -15), "reached"),
        (BlockStatus(BlockState.CANCELLED), "was cancelled"),
    ],
)
def test_any_end_without_a_manager_is_a_failed_start(status: BlockStatus, words: str) -> None:
    bench = Bench(start_retries=1)
    (name,) = bench.requested()
    bench.submit(name)
    bench.status(name, status)
    (give_up,) = bench.decide()
    assert isinstance(give_up, GiveUp)
    assert words in give_up.reason


def test_a_submit_that_fails_is_a_failed_start() -> None:
    bench = Bench(start_retries=1)
    (name,) = bench.requested()
    bench.scaler.on_submit_failed(name, "invalid partition 'gppu'", bench.now)
    (give_up,) = bench.decide()
    assert isinstance(give_up, GiveUp)
    assert "could not be submitted: invalid partition 'gppu'" in give_up.reason


def test_a_refused_manager_is_named_in_the_reason() -> None:
    bench = Bench(start_retries=1)
    (name,) = bench.requested()
    bench.submit(name)
    bench.scaler.on_manager_refused(name, "it has Python 3.9, the run 3.11")
    bench.status(name, FAILED)
    (give_up,) = bench.decide()
    assert isinstance(give_up, GiveUp)
    assert "it has Python 3.9, the run 3.11" in give_up.reason


def test_a_block_that_runs_and_never_brings_a_manager_is_ended_and_counted_once() -> None:
    bench = Bench(max_blocks=1, start_retries=2, start_limit_s=60.0)
    for name in ("cpu-0", "cpu-1"):
        assert bench.requested(5) == [name]
        bench.submit(name)
        assert bench.decide(10_000) == []  # waiting in a queue has no limit
        bench.status(name, RUNNING)
        assert bench.decide(59) == []
        assert bench.decide(1) == [CancelBlock(name)]
        bench.status(name, BlockStatus(BlockState.CANCELLED))
    (give_up,) = bench.decide()
    assert isinstance(give_up, GiveUp)
    assert "2 blocks in a row" in give_up.reason
    assert "had no manager 60 s after it had started" in give_up.reason


def test_a_manager_that_joins_resets_the_count() -> None:
    bench = Bench(max_blocks=1)
    bench.load(queued=1)
    bench.fail_start()
    bench.fail_start()
    bench.now += 1
    (name,) = bench.working()
    bench.now += 100
    bench.status(name, DONE)
    for wait_s in (0, 0, 1):
        bench.fail_start(wait_s)
    assert isinstance(bench.decide()[0], GiveUp)


def test_it_does_not_give_up_while_another_block_may_still_come() -> None:
    bench = Bench(init_blocks=4)
    names = bench.requested()
    bench.submit(*names)
    for name in names[:3]:
        bench.status(name, FAILED)
    bench.load(queued=5)
    assert bench.decide(100) == []  # the fourth waits in the queue
    bench.up(names[3])
    assert bench.requested() != []


def test_it_does_not_give_up_while_a_block_works_but_tries_less_and_less_often() -> None:
    bench = Bench(max_blocks=2)
    bench.working()
    tries = 0
    for _ in range(600):
        bench.load(queued=50, leased=2, cpu_0=2)
        for name in bench.requested(1):
            tries += 1
            bench.submit(name)
            bench.status(name, FAILED)
    assert 10 <= tries <= 17
    assert not bench.scaler.given_up


def test_an_initial_block_is_tried_again_even_without_load() -> None:
    bench = Bench()
    bench.fail_start()
    bench.fail_start()
    bench.fail_start(1)
    assert isinstance(bench.decide()[0], GiveUp)


# ---- any history ----------------------------------------------------------------------------

WORDS = ("submit", "refuse", "run", "complete", "fail", "miss", "up", "up2", "lost", "left", "busy", "free", "wait")
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
        nodes_per_block=nodes,
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

    def apply(self, word: str, which: int, wait_s: float) -> None:
        self.now += wait_s
        self.scaler.on_load(0 if word != "wait" else which, len(self.busy), self._loads(), self.now)
        if self.exists:
            self._apply_to(self.exists[which % len(self.exists)], word)
        self.check(self.scaler.decide(self.now))

    def _loads(self) -> list[BlockLoad]:
        return [BlockLoad(name, 1, int(name in self.busy), 2, 1.0, False) for name in sorted(self.managed)]

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
            case "complete" | "fail":
                scaler.on_status(name, DONE if word == "complete" else FAILED, now)
                self._ended(name)
            case "miss":
                scaler.on_status(name, BlockStatus(BlockState.MISSING), now)
                if name not in {i.block for i in scaler.describe() if i.phase is not Phase.ENDED}:
                    self._ended(name)
            case "up" | "up2":
                scaler.on_manager_up(name, word, 2, now)
                self.joined.add(name)
                self.managed.add(name)
                self.failed_in_a_row = 0
            case "lost" | "left":
                for node in ("up", "up2"):
                    scaler.on_manager_down(name, node, now, planned=word == "left")
                self.busy.discard(name)
                self.managed.discard(name)
                scaler.on_load(0, len(self.busy), self._loads(), now)
            case "busy" if name in self.managed:
                self.busy.add(name)
                scaler.on_load(0, len(self.busy), self._loads(), now)
            case _:
                self.busy.discard(name)
                scaler.on_load(0, len(self.busy), self._loads(), now)

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
        assert self.scaler.decide(self.now) == [], "the same moment asks for something again"


@given(limits=ANY_LIMITS, history=HISTORY)
@settings(deadline=None, max_examples=150)
def test_no_history_breaks_a_promise(limits: BlockLimits, history: list[tuple[str, int, float]]) -> None:
    world = World(limits)
    world.check(world.scaler.decide(world.now))
    for word, which, wait_s in history:
        world.apply(word, which, wait_s)


@given(limits=ANY_LIMITS, history=HISTORY)
@settings(deadline=None, max_examples=100)
def test_after_any_history_waiting_work_gets_a_block_or_an_end(
    limits: BlockLimits, history: list[tuple[str, int, float]]
) -> None:
    world = World(limits)
    world.check(world.scaler.decide(world.now))
    for word, which, wait_s in history:
        world.apply(word, which, wait_s)
    scaler = world.scaler
    for name in list(world.exists):  # whatever there was, ends
        scaler.on_status(name, FAILED, world.now)
    scaler.on_load(1, 0, [], world.now)
    for _ in range(200):
        world.now += 1
        if any(isinstance(action, (RequestBlock, GiveUp)) for action in scaler.decide(world.now)):
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
