"""Blocks that their batch system suspends: no time of theirs runs, they count as room for nothing, and they come back."""

from __future__ import annotations

import pytest

from pilotflow.core.block_records import BlockState, BlockStatus, CancelBlock, Phase, RequestBlock
from pilotflow.core.block_state import ASK_S, LOST_S
from tests.core.blocks_bench import DONE, RUNNING, Bench

SUSPENDED = BlockStatus(BlockState.SUSPENDED, "", None, 500.0)


def suspended(**options: float) -> tuple[Bench, str]:
    """A block whose managers were lost, since it is suspended."""
    bench = Bench(**options)
    (block,) = bench.working()
    bench.down(block)
    bench.status(block, SUSPENDED)
    return bench, block


def test_time_suspended_does_not_count_towards_the_first_managers_limit() -> None:
    bench = Bench(max_blocks=1, start_limit_s=60.0)
    (block,) = bench.requested()
    bench.submit(block)
    bench.status(block, RUNNING)
    for _ in range(3):  # as a batch system does that lets two jobs take turns
        assert bench.decide(19) == []
        bench.status(block, SUSPENDED)
        assert bench.phases()[block] is Phase.SUSPENDED
        assert bench.decide(10_000) == []
        bench.status(block, RUNNING)
        assert bench.phases()[block] is Phase.RUNNING
    assert bench.decide(2) == []
    assert bench.decide(1) == [CancelBlock(block)]


def test_a_suspended_block_outlives_the_loss_of_its_managers_and_they_come_back() -> None:
    bench = Bench(max_blocks=1)
    (block,) = bench.working()
    bench.load(queued=3)
    bench.down(block)
    bench.status(block, SUSPENDED)
    assert bench.decide(10_000) == []
    bench.status(block, RUNNING)
    assert bench.decide(LOST_S + 1) == [], "its managers need a moment to come back"
    bench.up(block)
    assert bench.phases()[block] is Phase.WORKING
    assert bench.decide(LOST_S + 1) == []


def test_a_block_without_managers_is_not_ended_before_its_provider_was_asked_whether_it_is_suspended() -> None:
    bench = Bench(max_blocks=1)
    (block,) = bench.working()
    bench.now += 1.0
    bench.down(block)
    assert bench.decide(ASK_S / 2) == [], "a site has a min_poll_interval"
    bench.status(block, SUSPENDED)
    assert bench.decide(ASK_S) == []


@pytest.mark.parametrize("told", [True, False])
def test_a_block_without_managers_is_ended_when_its_provider_says_that_it_runs_or_nothing(told: bool) -> None:
    bench = Bench(max_blocks=1)
    (block,) = bench.working()
    bench.now += 1.0
    bench.down(block)
    if told:
        bench.status(block, RUNNING)
    assert bench.decide(LOST_S if told else ASK_S) == [CancelBlock(block)]


def test_managers_that_come_back_are_believed_before_the_provider_is_asked_again() -> None:
    bench, block = suspended(max_blocks=1)
    bench.up(block)
    assert bench.phases()[block] is Phase.WORKING


def test_a_suspended_block_whose_managers_never_come_back_is_cancelled_after_the_limit() -> None:
    bench, block = suspended(max_blocks=1, start_limit_s=60.0)
    bench.decide(100)
    bench.status(block, RUNNING)
    assert bench.decide(59) == []
    assert bench.decide(1) == [CancelBlock(block)]


@pytest.mark.parametrize("lost", [True, False])
def test_what_waits_and_the_least_number_of_blocks_ask_for_another_one(lost: bool) -> None:
    bench = Bench(min_blocks=1, max_blocks=2)
    (block,) = bench.working()
    bench.load(queued=2, cpu_0=2)
    if lost:
        bench.down(block)
    bench.status(block, SUSPENDED)
    assert bench.requested() == ["cpu-1"]
    bench.load(queued=50)
    assert bench.decide(10) == [], "it is one of max_blocks"


def test_a_suspended_block_with_managers_that_were_not_missed_goes_on() -> None:
    bench = Bench(max_blocks=1)
    (block,) = bench.working()
    bench.load(cpu_0=2)
    bench.status(block, SUSPENDED)
    bench.status(block, RUNNING)
    assert bench.phases()[block] is Phase.WORKING
    assert bench.decide(1000) == []


def test_no_node_is_blamed_for_managers_that_were_suspended() -> None:
    bench = Bench(max_blocks=2)
    (block,) = bench.working()
    for _ in range(3):
        bench.down(block)
        bench.status(block, SUSPENDED)
        bench.decide(LOST_S)
        bench.status(block, RUNNING)
        bench.up(block)
    bench.load(queued=50, cpu_0=2)
    (request,) = bench.decide()
    assert isinstance(request, RequestBlock)
    assert request.exclude_nodes == ()


def test_the_end_of_a_suspended_block_moves_on_and_its_managers_are_told_when_they_are_back() -> None:
    bench = Bench()
    (block,) = bench.working()
    bench.status(block, BlockStatus(BlockState.RUNNING, "", None, 500.0))
    bench.scaler.take_ends(bench.now)
    bench.down(block)
    bench.status(block, SUSPENDED)
    bench.now += 10_000
    bench.status(block, SUSPENDED)
    bench.up(block)
    assert bench.scaler.take_ends(bench.now) == [(block, 500.0)]


def test_a_suspended_block_may_be_requeued_and_may_end() -> None:
    bench, block = suspended(max_blocks=1)
    bench.status(block, BlockStatus(BlockState.PENDING, "BeginTime"))
    assert bench.phases()[block] is Phase.PENDING
    bench.status(block, SUSPENDED)
    assert bench.phases()[block] is Phase.SUSPENDED
    bench.status(block, DONE)
    assert bench.phases()[block] is Phase.ENDED


def test_a_block_that_is_being_ended_is_ended_though_it_is_suspended() -> None:
    bench = Bench(max_blocks=1, start_limit_s=60.0)
    (block,) = bench.requested()
    bench.submit(block)
    bench.status(block, RUNNING)
    assert bench.decide(60) == [CancelBlock(block)]
    bench.status(block, SUSPENDED)
    assert bench.phases()[block] is Phase.ENDING
