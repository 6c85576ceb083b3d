"""Which of several executors is asked for blocks, and where idle blocks make others needless."""

from __future__ import annotations

import pytest

from pilotflow.core.scaling import IdleBlock, Queue
from pilotflow.resources import NodeShape
from tests.core.scaling_queue import INF, missing, node, supply, wants

# ---- several executors ----------------------------------------------------------------------


def test_work_that_may_run_anywhere_asks_one_executor_only() -> None:
    assert missing([wants(8)], supply("a"), supply("b")) == {"a": 2}


def test_when_one_executor_is_at_its_limit_the_rest_goes_to_the_next() -> None:
    assert missing([wants(20)], supply("a", room=2), supply("b", room=2), supply("c")) == {"a": 2, "b": 2, "c": 1}


def test_blocks_on_their_way_of_any_executor_are_used_before_new_ones_are_asked_for() -> None:
    assert missing([wants(8)], supply("a"), supply("b", coming=((1, 2),))) == {}


def test_bound_work_goes_first_and_what_it_leaves_is_for_the_rest() -> None:
    queue = [wants(4), wants(6, "b")]
    assert missing(queue, supply("a"), supply("b", coming=((1, 2),))) == {"a": 1}


def test_work_bound_to_two_executors_asks_neither_of_the_others() -> None:
    assert missing([wants(4, "c", "b")], supply("a"), supply("b", has=node(2)), supply("c")) == {"c": 1}


def test_a_gpu_task_asks_only_executors_that_have_gpus_or_may_have_some() -> None:
    cpu, gpu = supply("cpu", node(4, gpus=0)), supply("gpu", node(4, gpus=1))
    assert missing([wants(3, gpus=1)], cpu, gpu) == {"gpu": 3}
    perhaps = supply("perhaps", node(4))
    assert missing([wants(3, gpus=1)], cpu, perhaps) == {"perhaps": 1}
    assert missing([wants(3, gpus=1)], cpu, perhaps, gpu) == {"gpu": 3}  # certain before possible


def test_work_without_gpus_leaves_nodes_with_gpus_to_others() -> None:
    cpu, gpu = supply("cpu", node(4, gpus=0), room=2), supply("gpu", node(64, gpus=8))
    assert missing([wants(8)], gpu, cpu) == {"cpu": 2}
    assert missing([wants(9)], gpu, cpu) == {"cpu": 2, "gpu": 1}


def test_a_task_of_much_memory_asks_only_where_that_suffices() -> None:
    small, large = supply("small", node(16, gib=32)), supply("large", node(16, gib=256))
    assert missing([wants(4, gib=64)], small, large) == {"large": 1}
    assert missing([wants(4, gib=64), wants(12)], small, large) == {"large": 1}  # small ones go beside them


def test_the_cheapest_blocks_are_those_with_the_fewest_cores_for_the_work() -> None:
    one, many = supply("one", node(1)), supply("many", node(64))
    assert missing([wants(1)], many, one) == {"one": 1}
    assert missing([wants(3, cores=1)], many, one) == {"one": 3}
    assert missing([wants(1, cores=2)], many, one) == {"many": 1}
    assert missing([wants(64)], supply("many", node(64)), supply("sixty", node(60))) == {"many": 1}


def test_of_equally_cheap_executors_the_one_that_is_there_already_is_asked() -> None:
    assert missing([wants(4)], supply("a"), supply("b", seen=(node(4, gib=8, gpus=0),))) == {"b": 1}


def test_an_executor_whose_blocks_fail_is_asked_last() -> None:
    assert missing([wants(4)], supply("a", failing=True), supply("b")) == {"b": 1}
    assert missing([wants(8)], supply("a", failing=True), supply("b", room=1)) == {"a": 1, "b": 1}


def test_a_block_of_a_failing_executor_that_is_on_its_way_is_not_relied_on() -> None:
    assert missing([wants(4)], supply("a", failing=True, coming=((1, 1),)), supply("b")) == {"b": 1}


def test_a_block_of_which_nothing_is_known_is_not_relied_on_while_there_are_others() -> None:
    unknown = supply("unknown", NodeShape(), coming=((1, 1),))
    assert missing([wants(100)], unknown, supply("known", room=3)) == {"known": 3}


# ---- idle blocks ----------------------------------------------------------------------------


def idle(kind: NodeShape, nodes: int = 1, time_left_s: float = INF) -> IdleBlock:
    return IdleBlock((kind,), nodes, time_left_s)


def test_where_a_block_idles_that_would_take_it_another_one_does_not_help() -> None:
    beside = (idle(node(4)),)
    assert missing([wants(9)], supply(idle=beside)) == {}
    assert missing([wants(9)], supply(idle=beside), supply("b")) == {"b": 3}


def test_idle_blocks_that_would_not_take_it_say_nothing() -> None:
    large = (node(4), node(4, gpus=2))
    assert missing([wants(1, gpus=1)], supply(seen=large, idle=(idle(node(4, gpus=0)),))) == {"cpu": 1}
    assert missing([wants(1, num_nodes=3)], supply(nodes=3, idle=(idle(node(4), nodes=2),))) == {"cpu": 1}


@pytest.mark.parametrize(
    ("runtime_s", "time_left_s", "blocks"), [(600.0, 500.0, 1), (400.0, 500.0, 0), (None, 299.0, 1), (None, 301.0, 0)]
)
def test_idle_blocks_with_too_little_time_left_say_nothing(
    runtime_s: float | None, time_left_s: float, blocks: int
) -> None:
    found = missing(
        [wants(1, runtime_s=runtime_s)], supply(walltime_s=3600.0, idle=(idle(node(4), time_left_s=time_left_s),))
    )
    assert found.get("cpu", 0) == blocks


def test_a_block_idles_for_nothing_if_nothing_that_waits_would_run_there_in_the_time_left() -> None:
    queue = Queue([wants(1, gpus=1), wants(1, runtime_s=600.0), wants(1, "b")])
    assert queue.wants("a", idle(node(4, gpus=0), time_left_s=601.0), 3600.0)
    assert not queue.wants("a", idle(node(4, gpus=0), time_left_s=599.0), 3600.0)
    assert queue.wants("a", idle(node(4, gpus=1), time_left_s=599.0), 3600.0)
    assert queue.wants("b", idle(node(4, gpus=0), time_left_s=599.0), 3600.0)
    assert not Queue().wants("a", idle(node(4)), None)
