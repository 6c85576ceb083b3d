"""What a batch system does to blocks: it ends them by a limit, puts them back, gives them up."""

from __future__ import annotations

from pilotflow.core.block_records import BlockState, BlockStatus, CancelBlock, GiveUp, Phase
from tests.core.blocks_bench import FAILED, RUNNING, Bench

PENDING_AGAIN = BlockStatus(BlockState.PENDING, "BeginTime")


def ends_in(seconds: float) -> BlockStatus:
    return BlockStatus(BlockState.RUNNING, "", None, seconds)


def test_managers_are_told_once_when_their_block_ends() -> None:
    bench = Bench()
    (block,) = bench.working()
    assert bench.scaler.asks_for_ends()
    bench.status(block, ends_in(600))
    assert bench.scaler.take_ends(bench.now) == [(block, 600.0)]
    assert not bench.scaler.asks_for_ends()
    bench.now += 30
    bench.status(block, ends_in(569))  # of whole seconds, one may be missing
    assert bench.scaler.take_ends(bench.now) == []


def test_a_changed_limit_is_passed_on() -> None:
    bench = Bench()
    (block,) = bench.working()
    bench.status(block, ends_in(600))
    bench.scaler.take_ends(bench.now)
    bench.status(block, ends_in(60))
    assert bench.scaler.take_ends(bench.now) == [(block, 60.0)]


def test_a_manager_that_comes_later_is_told_too() -> None:
    bench = Bench(nodes=2)
    (block,) = bench.working()
    bench.status(block, ends_in(600))
    bench.scaler.take_ends(bench.now)
    bench.up(block, "n1")
    assert bench.scaler.take_ends(bench.now + 10) == [(block, 590.0)]


def test_a_block_that_is_put_back_into_the_queue_is_the_same_block() -> None:
    bench = Bench(max_blocks=1)
    (block,) = bench.working()
    bench.status(block, BlockStatus(BlockState.RUNNING, nodes=("n0",)))
    bench.load(queued=9)
    bench.down(block, planned=True)  # its manager was told to end
    bench.status(block, PENDING_AGAIN)
    assert bench.decide(100) == []  # neither cancelled nor replaced
    (info,) = bench.scaler.describe()
    assert (info.phase, info.said, info.nodes) == (Phase.PENDING, "BeginTime", ())
    bench.status(block, RUNNING)
    bench.up(block, "n7")
    assert bench.scaler.describe()[0].phase is Phase.WORKING


def test_a_block_whose_node_has_failed_is_not_said_to_have_failed_with_exit_code_0() -> None:
    bench = Bench(max_blocks=1)
    (block,) = bench.working()
    bench.status(block, BlockStatus(BlockState.FAILED, "NODE_FAIL: NodeDown", 0))
    assert bench.scaler.describe()[0].reason == "failed (NODE_FAIL: NodeDown)."


def test_a_block_is_not_put_back_while_its_managers_are_there() -> None:
    bench = Bench()
    (block,) = bench.working()
    bench.status(block, PENDING_AGAIN)  # an old answer
    assert bench.scaler.describe()[0].phase is Phase.WORKING


def test_a_draining_block_that_is_put_back_is_cancelled() -> None:
    bench = Bench()
    (block,) = bench.working()
    bench.load()
    bench.decide(100)
    bench.down(block, planned=True)
    bench.status(block, PENDING_AGAIN)
    assert bench.decide(10) == [CancelBlock(block)]


def test_managers_whose_block_was_given_up_are_sent_away() -> None:
    bench = Bench()
    (block,) = bench.working()
    bench.status(block, FAILED)
    bench.decide()
    assert bench.sent_away == []  # they may be about to leave
    bench.decide(3)
    bench.decide(3)
    assert bench.sent_away == [block]


def test_managers_that_left_with_their_block_are_left_alone() -> None:
    bench = Bench()
    (block,) = bench.working()
    bench.status(block, FAILED)
    bench.down(block)
    bench.decide(3)
    assert bench.sent_away == []


def test_a_manager_that_comes_after_its_block_was_given_up_is_sent_away() -> None:
    bench = Bench()
    (block,) = bench.working()
    bench.status(block, FAILED)
    bench.down(block)
    bench.decide(3)
    bench.up(block)
    bench.decide(3)
    assert bench.sent_away == [block]


HOPELESS = BlockStatus(BlockState.FAILED, "PartitionTimeLimit", hopeless=True)


def test_what_the_provider_calls_hopeless_is_tried_once() -> None:
    bench = Bench()
    (block,) = bench.requested()
    bench.submit(block)
    bench.status(block, HOPELESS)
    bench.load(queued=1)
    (given_up,) = bench.decide()
    assert isinstance(given_up, GiveUp)
    assert "PartitionTimeLimit" in given_up.reason


def test_a_refusal_for_good_is_tried_once() -> None:
    bench = Bench()
    (block,) = bench.requested()
    bench.scaler.on_submit_failed(block, "no such partition", bench.now, hopeless=True)
    bench.load(queued=1)
    assert isinstance(bench.decide()[0], GiveUp)


def test_where_blocks_have_worked_nothing_is_hopeless() -> None:
    bench = Bench(max_blocks=1)
    (block,) = bench.working()
    bench.down(block)
    bench.status(block, HOPELESS)
    bench.load(queued=1)
    assert bench.requested(100)
