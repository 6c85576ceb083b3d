"""Blocks that are lost, that stay though they should go, and that never start; and nodes that are at fault."""

from __future__ import annotations

import pytest

from pilotflow.core import blocks as rules
from pilotflow.core import node_losses
from pilotflow.core.block_records import BlockState, BlockStatus, CancelBlock, GiveUp, Phase, RequestBlock
from pilotflow.core.block_state import CANCEL_AGAIN_S, LOST_S
from pilotflow.core.setbacks import YOUNG_S
from pilotflow.ids import UNREACHABLE
from tests.core.blocks_bench import DONE, FAILED, RUNNING, Bench

CUT_OFF = BlockStatus(BlockState.FAILED, "", UNREACHABLE)

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
    assert bench.decide(LOST_S - 0.1) == []
    bench.up(name)
    assert bench.decide(LOST_S) == []
    bench.down(name)
    bench.status(name, RUNNING)
    assert bench.decide(LOST_S) == [CancelBlock(name)]
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
        bench.now += YOUNG_S
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
    assert bench.decide(LOST_S) == [CancelBlock(name)]
    assert bench.decide(CANCEL_AGAIN_S) == [CancelBlock(name)]


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


# ---- nodes that fail ------------------------------------------------------------------------


def lose_node(bench: Bench, node: str, status: BlockStatus = FAILED) -> RequestBlock:
    """A one-node block comes to that node, loses its manager, and ends; returns what is requested next."""
    name = next(iter(bench.scaler.live))
    bench.up(name, node)
    bench.now += 100
    bench.load(queued=1)
    bench.down(name, node)
    bench.status(name, status)
    (request,) = bench.decide(60)
    assert isinstance(request, RequestBlock)
    bench.submit(request.name)
    return request


def first_of(bench: Bench) -> Bench:
    bench.submit(*bench.requested())
    return bench


def test_a_node_that_lost_its_manager_twice_is_excluded_from_the_next_blocks() -> None:
    bench = first_of(Bench(max_blocks=1))
    assert lose_node(bench, "bad").exclude_nodes == ()
    assert lose_node(bench, "other").exclude_nodes == ()
    assert lose_node(bench, "bad").exclude_nodes == ("bad",)
    assert lose_node(bench, "other").exclude_nodes == ("bad", "other")


def test_a_node_that_is_lost_for_the_second_time_is_excluded_from_the_block_that_replaces_it_at_once() -> None:
    bench = first_of(Bench())
    for number, excluded in ((0, ()), (1, ("bad",))):
        bench.up(f"cpu-{number}", "bad")
        bench.now += 100
        bench.load(queued=1)
        bench.down(f"cpu-{number}", "bad")
        assert bench.decide() == [RequestBlock(f"cpu-{number + 1}", excluded)]  # its end has not been seen yet
        bench.status(f"cpu-{number}", FAILED)
        bench.submit(f"cpu-{number + 1}")


def test_an_excluded_node_gets_another_chance_after_a_while() -> None:
    bench = first_of(Bench(max_blocks=1))
    lose_node(bench, "bad")
    assert lose_node(bench, "bad").exclude_nodes == ("bad",)
    bench.now += node_losses.EXCLUDED_S
    assert lose_node(bench, "good").exclude_nodes == ()


@pytest.mark.parametrize("state", [BlockState.TIMEOUT, BlockState.CANCELLED, BlockState.COMPLETED])
def test_a_block_that_was_ended_from_outside_is_not_its_nodes_fault(state: BlockState) -> None:
    bench = first_of(Bench(max_blocks=1))
    for _ in range(3):
        assert lose_node(bench, "fine", BlockStatus(state)).exclude_nodes == ()


def test_of_a_block_on_several_nodes_only_the_one_that_fails_alone_is_at_fault() -> None:
    bench = Bench(max_blocks=1, nodes=3)
    for _ in range(2):
        (name,) = bench.requested(100)
        bench.submit(name)
        for node in ("a", "b", "c"):
            bench.up(name, node)
        bench.now += 100
        bench.down(name, "b")
        bench.load(queued=50)
        assert bench.decide(LOST_S) == []  # it goes on without
        bench.down(name, "a")
        bench.down(name, "c")
        bench.status(name, FAILED)
    (request,) = bench.decide(100)
    assert request == RequestBlock("cpu-2", ("b",))


def test_a_node_is_at_fault_too_if_its_loss_is_known_after_the_end_of_its_block() -> None:
    bench = Bench(max_blocks=1, nodes=2)
    for _ in range(2):
        (request,) = bench.decide(100)
        assert isinstance(request, RequestBlock)
        name = request.name
        bench.submit(name)
        bench.up(name, "a")
        bench.up(name, "b")
        bench.now += 100
        bench.load(queued=1)
        bench.status(name, BlockStatus(BlockState.FAILED, "node failure"))
        bench.down(name, "a", planned=True)
        bench.down(name, "b")
    assert bench.decide(100) == [RequestBlock("cpu-2", ("b",))]


def test_when_all_nodes_of_a_larger_block_are_lost_at_once_none_is_at_fault() -> None:
    bench = Bench(max_blocks=1, nodes=2)
    for number in range(3):
        (request,) = bench.decide(100)
        assert request == RequestBlock(f"cpu-{number}")
        bench.submit(request.name)
        for node in ("a", "b"):
            bench.up(request.name, node)
        bench.now += 100
        bench.load(queued=1)
        for node in ("a", "b"):
            bench.down(request.name, node)
        bench.status(request.name, FAILED)


def test_a_manager_that_comes_back_was_not_lost() -> None:
    bench = first_of(Bench(max_blocks=1))
    for _ in range(3):
        bench.up("cpu-0", "n")
        bench.down("cpu-0", "n")
        assert bench.decide(1) == []
    bench.up("cpu-0", "n")
    bench.now += 100
    bench.load(queued=1)
    bench.status("cpu-0", FAILED)
    assert bench.decide() == [RequestBlock("cpu-1")]


def test_when_no_block_can_be_had_without_the_excluded_nodes_they_are_taken_again() -> None:
    bench = first_of(Bench(max_blocks=1))
    lose_node(bench, "bad")
    assert lose_node(bench, "bad").exclude_nodes == ("bad",)
    name = lose_node(bench, "good").name
    bench.scaler.on_submit_failed(name, "Requested node configuration is not available", bench.now)
    (request,) = bench.decide(60)
    assert isinstance(request, RequestBlock)
    assert request.exclude_nodes == ()


def test_only_so_many_nodes_are_excluded_at_once() -> None:
    losses = node_losses.NodeLosses()
    for number in range(50):
        losses.on_lost([f"n{number:02}"] * 2, float(number))
    assert losses.excluded(50.0) == tuple(f"n{number:02}" for number in range(34, 50))


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
    assert "had no manager 60 s after it had started (start_limit)" in give_up.reason


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
        bench.load(queued=50, cpu_0=2)
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


def test_managers_that_cannot_reach_the_run_are_not_tried_again_and_again() -> None:
    bench = Bench(max_blocks=2, init_blocks=2)
    names = bench.requested()
    bench.submit(*names)
    bench.load(queued=1)
    bench.status(names[0], CUT_OFF)
    assert not bench.scaler.given_up, "the other block may get through"
    bench.status(names[1], CUT_OFF)
    (action,) = bench.decide(0)
    assert isinstance(action, GiveUp)
    assert action.reason.startswith("2 blocks in a row of executor 'cpu' ended before a manager had joined.")


def test_one_block_without_a_way_to_the_run_is_tried_again_if_others_had_one() -> None:
    bench = Bench(max_blocks=1)
    (name,) = bench.working()
    bench.load(queued=1)
    bench.status(name, FAILED)
    (name,) = bench.requested(60)
    bench.submit(name)
    bench.status(name, CUT_OFF)
    assert bench.requested(60) == ["cpu-2"]
