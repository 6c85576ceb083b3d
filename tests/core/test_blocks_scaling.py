"""Scaling of one executor's blocks: limits, load, idleness, losses and blocks that do not start."""

from __future__ import annotations

import pytest

from pilotflow.core.block_records import BlockState, BlockStatus, CancelBlock, DrainBlock, Phase, RequestBlock
from pilotflow.core.block_state import DRAIN_S, LEAVE_S
from pilotflow.resources import Request
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
    ("tasks", "parallelism", "more"),
    [(2, 1.0, 0), (3, 1.0, 1), (5, 1.0, 2), (100, 1.0, 3), (100, 0.05, 2), (4, 0.5, 0), (5, 0.5, 1), (100, 0.0, 0)],
)
def test_load_above_the_slots_brings_blocks_up_to_the_limit(tasks: int, parallelism: float, more: int) -> None:
    bench = Bench(parallelism=parallelism)
    bench.working()
    bench.load(queued=tasks - 2, cpu_0=2)
    assert len(bench.requested()) == more
    assert bench.requested() == []


def test_one_queued_task_brings_one_block_whatever_the_parallelism() -> None:
    bench = Bench(init_blocks=0, parallelism=0.0)
    bench.load(queued=1)
    assert bench.requested() == ["cpu-0"]
    assert bench.requested(5) == []


def test_what_nodes_have_is_learned_from_managers() -> None:
    bench = Bench()
    bench.working(slots=8)
    bench.load(queued=12, cpu_0=8)
    assert len(bench.requested()) == 2


def test_nothing_known_of_the_nodes_means_one_block_first_and_the_rest_when_it_has_told() -> None:
    bench = Bench(init_blocks=0, cpus_milli=None, slots=None)
    bench.load(queued=1000)
    assert bench.requested() == ["cpu-0"]
    assert bench.requested(100) == []
    bench.submit("cpu-0")
    bench.up("cpu-0", slots=400)
    bench.load(queued=600, cpu_0=400)
    assert bench.requested() == ["cpu-1", "cpu-2"]


def test_nodes_that_have_not_registered_yet_count_with_what_is_known() -> None:
    bench = Bench(nodes=4)
    (name,) = bench.requested()
    bench.submit(name)
    bench.up(name, "n0", slots=8)
    bench.load(queued=24, cpu_0=8)
    assert bench.requested() == []
    bench.load(queued=25, cpu_0=8)
    assert bench.requested() == ["cpu-1"]


def test_a_node_that_does_not_come_is_not_waited_for_forever() -> None:
    bench = Bench(nodes=2, start_limit_s=60.0)
    (name,) = bench.requested()
    bench.submit(name)
    bench.up(name, "n0")
    bench.load(queued=2, cpu_0=2)
    assert bench.requested(59) == []
    assert bench.requested(1) == ["cpu-1"]


def test_a_manager_that_has_come_since_the_load_was_told_will_take_its_part_of_it() -> None:
    bench = Bench(init_blocks=2)
    names = bench.requested()
    bench.submit(*names)
    bench.load(queued=4)
    assert bench.requested() == []
    for name in names:
        bench.up(name)
        assert bench.requested() == []  # the load is as it was; what the manager was given will be in the next one
    bench.load(queued=1, cpu_0=2, cpu_1=1)
    assert bench.requested() == ["cpu-2"]


def test_a_lost_node_of_a_block_is_made_up_for_when_the_load_asks_for_it() -> None:
    bench = Bench(nodes=2)
    (name,) = bench.requested()
    bench.submit(name)
    bench.up(name, "n0")
    bench.up(name, "n1")
    bench.load(cpu_0=4)
    assert bench.requested() == []
    bench.down(name, "n1")
    bench.load(queued=2, cpu_0=2)
    assert bench.requested() == ["cpu-1"]


def test_work_that_finds_no_room_beside_other_work_brings_a_block() -> None:
    bench = Bench()
    bench.working()
    bench.load(queued=1, request=Request(cpus_milli=2000), cpu_0=1)  # a core is free, and it asks for two
    assert bench.requested() == ["cpu-1"]
    assert bench.requested(5) == []


def test_work_that_waits_beside_an_idle_block_that_it_would_fit_brings_none() -> None:
    bench = Bench()
    bench.working()
    bench.load(queued=1, cpu_0=0)  # something else keeps it back, and would keep it back in a new block
    assert bench.requested(5) == []
    bench.load(queued=1, cpu_0=1)
    assert bench.requested(5) == ["cpu-1"]


def test_a_block_with_too_little_time_left_is_followed_by_another() -> None:
    bench = Bench(walltime_s=3600.0)
    bench.working()
    bench.load(queued=1, request=Request(runtime_s=1800.0), cpu_0=0)
    assert bench.requested(1000) == []
    assert bench.decide(1000) == [RequestBlock("cpu-1"), DrainBlock("cpu-0")]


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
    assert bench.decide(LEAVE_S) == [CancelBlock(name)]
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
    bench.load(cpu_0=1)  # handed out just before the drain
    assert bench.requested(DRAIN_S * 10) == []
    bench.load(cpu_0=0)
    assert CancelBlock(name) in bench.decide()


def test_a_block_is_not_idle_while_it_holds_work_or_could_run_what_waits() -> None:
    bench = Bench(max_blocks=1)
    (name,) = bench.working()
    bench.load(cpu_0=1)
    assert bench.decide(100) == []
    bench.load(queued=1, cpu_0=0)
    assert bench.decide(100) == []
    bench.load(cpu_0=0)
    assert bench.decide(9) == []
    assert bench.decide(2) == [DrainBlock(name)]


@pytest.mark.parametrize(
    "request_",
    [Request(cpus_milli=3000), Request(gpus_milli=1000), Request(num_nodes=2), Request(resources=(("licence", 1),))],
)
def test_a_block_that_cannot_run_what_waits_idles_for_nothing(request_: Request) -> None:
    bench = Bench()
    (name,) = bench.working()
    bench.load(queued=100, request=request_, cpu_0=0)
    assert bench.requested(9) == []
    assert bench.decide(2) == [DrainBlock(name)]


def test_a_block_that_has_just_joined_is_kept_for_its_minimum_life_even_if_it_idles() -> None:
    bench = Bench(max_idletime_s=1.0, min_life_s=60.0)
    (name,) = bench.working()
    bench.load(cpu_0=0)
    assert bench.decide(59) == []
    assert bench.decide(1) == [DrainBlock(name)]


def test_a_minimum_life_of_one_block_does_not_keep_others() -> None:
    bench = Bench(max_idletime_s=5.0, min_life_s=60.0)
    bench.working()
    bench.now += 100
    bench.load(queued=1, cpu_0=2)
    bench.working()
    bench.load(cpu_0=0, cpu_1=0)
    assert bench.decide(6) == [DrainBlock("cpu-0")]
    assert bench.decide(53) == []
    assert DrainBlock("cpu-1") in bench.decide(1)


def test_min_blocks_survive_idleness_and_the_longest_idle_goes_first() -> None:
    bench = Bench(init_blocks=3, min_blocks=1)
    first, second, third = bench.working(3)
    bench.load(cpu_0=2)
    bench.now += 4
    bench.load(cpu_1=1)
    bench.now += 4
    bench.load(cpu_0=0, cpu_1=0)  # the third has been idle since it came
    assert bench.decide(2) == [DrainBlock(third)]
    bench.status(third, DONE)
    assert bench.decide(100) == [DrainBlock(second)]  # equally long idle: the younger
    bench.status(second, DONE)
    assert bench.decide(1000) == []
    assert bench.phases()[first] is Phase.WORKING


def test_steady_load_never_makes_blocks_come_and_go() -> None:
    bench = Bench(max_idletime_s=0.0)
    bench.working()
    bench.load(queued=2, cpu_0=2)
    bench.working()
    for leased in (4, 3, 4, 3, 4):
        bench.load(cpu_0=2, cpu_1=leased - 2)
        assert bench.decide(5) == []


def test_load_that_comes_and_goes_within_the_idle_time_changes_nothing() -> None:
    bench = Bench(max_blocks=3)
    bench.working()
    for _ in range(100):
        bench.load(cpu_0=2)
        assert bench.decide(5) == []
        bench.load(cpu_0=0)
        assert bench.decide(5) == []


def test_the_same_load_is_answered_once_however_often_it_is_told() -> None:
    bench = Bench(max_blocks=50)
    bench.working()
    asked = []
    for _ in range(100):
        bench.load(queued=9, cpu_0=2)
        asked += bench.requested(0.25)
    assert asked == [f"cpu-{number}" for number in range(1, 6)]


def test_a_draining_block_counts_against_the_limit_and_its_place_is_filled_when_it_is_gone() -> None:
    bench = Bench(max_blocks=1)
    (name,) = bench.working()
    bench.decide(11)
    bench.load(queued=1)
    assert bench.requested(1) == []
    bench.down(name, planned=True)
    bench.status(name, DONE)
    assert bench.requested(1) == ["cpu-1"]
