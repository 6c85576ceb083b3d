"""How many blocks an executor has: limits, load and idleness."""

from __future__ import annotations

import pytest

from pilotflow.core import blocks as rules
from pilotflow.core.blocks import BlockState, BlockStatus, CancelBlock, DrainBlock, Phase
from tests.core.blocks_bench import DONE, FAILED, Bench

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
