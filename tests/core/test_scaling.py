"""What the queue is worth in blocks: by shape, over all executors, whatever the number of tasks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.core.scaling import Supply
from pilotflow.messages.records import ClassLoad
from pilotflow.resources import Capacity, NodeShape, Request
from tests.core.scaling_queue import GIB, missing, node, supply, wants

# ---- one executor ---------------------------------------------------------------------------


def test_nothing_waits_and_nothing_is_asked_for() -> None:
    assert missing([], supply()) == {}


@pytest.mark.parametrize(
    ("tasks", "cores", "blocks"), [(1, 1, 1), (4, 1, 1), (5, 1, 2), (9, 3, 9), (3, 4, 3), (4, 0.5, 1)]
)
def test_tasks_are_packed_into_nodes_by_their_cores(tasks: int, cores: float, blocks: int) -> None:
    assert missing([wants(tasks, cores=cores)], supply()) == {"cpu": blocks}


@pytest.mark.parametrize(
    ("queued", "running", "expected_s", "blocks"),
    [
        (100_000, 4, 20e-6, 0),  # two seconds of work for one slot, and four have it
        (100_000, 0, 20e-6, 1),  # nobody runs any of it now
        (1, 0, 20e-6, 1),
        (100, 4, 0.5, 12),  # four of the fifty slots that would end it within a second are there
        (8, 4, 0.5, 0),
        (100, 4, 1.0, 25),  # long tasks: a slot for each
        (100, 4, None, 25),  # nobody knows
    ],
)
def test_short_tasks_count_for_what_they_take_together(
    queued: int, running: int, expected_s: float | None, blocks: int
) -> None:
    waiting = ClassLoad(Request(), (), queued, running, expected_s)
    assert missing([waiting], supply(room=50)) == ({"cpu": blocks} if blocks else {})


def test_memory_packs_as_cores_do() -> None:
    assert missing([wants(6, gib=6)], supply(has=node(4, gib=16))) == {"cpu": 3}


def test_slots_limit_small_tasks() -> None:
    assert missing([wants(10, cores=0.1)], supply(has=node(4, slots=4))) == {"cpu": 3}


def test_small_work_fills_what_large_work_leaves_on_a_node() -> None:
    assert missing([wants(4, cores=1), wants(4, cores=3)], supply()) == {"cpu": 4}


def test_different_classes_share_a_block() -> None:
    queue = [wants(1, priority=n, runtime_s=float(n + 1)) for n in range(4)]
    assert missing(queue, supply()) == {"cpu": 1}


def test_parts_of_gpus_are_never_split_over_two() -> None:
    assert missing([wants(4, gpus=0.6)], supply(has=node(8, gpus=2))) == {"cpu": 2}
    assert missing([wants(4, gpus=0.5)], supply(has=node(8, gpus=2))) == {"cpu": 1}
    assert missing([wants(3, gpus=0.3)], supply(has=node(8, gpus=1))) == {"cpu": 1}


def test_consumables_of_a_node_are_counted() -> None:
    has = node(8, resources=(("licence", 2),))
    assert missing([wants(5, resources=(("licence", 1),))], supply(has=has)) == {"cpu": 3}
    assert missing([wants(5, resources=(("dongle", 1),))], supply(has=has)) == {}


def test_a_node_that_runs_so_many_at_once_takes_them_whatever_they_ask_for() -> None:
    has = node(None, slots=16, depth_limited=True)
    assert missing([wants(33, cores=64, gib=500, gpus=8)], supply(has=has)) == {"cpu": 3}


def test_the_limit_of_blocks_holds() -> None:
    assert missing([wants(1000)], supply(room=3)) == {"cpu": 3}
    assert missing([wants(1000)], supply(room=0)) == {}
    assert missing([wants(1000)], supply(room=-2)) == {}


def test_blocks_on_their_way_are_counted_with_what_they_will_bring() -> None:
    assert missing([wants(12)], supply(coming=((1, 3),))) == {}
    assert missing([wants(13)], supply(coming=((1, 3),))) == {"cpu": 1}
    assert missing([wants(8, cores=3)], supply(coming=((1, 3),))) == {"cpu": 5}


def test_work_bound_to_others_is_not_its_business() -> None:
    assert missing([wants(5, "gpu"), wants(5, "nobody")], supply()) == {}


# ---- shapes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{"cores": 5}, {"gib": 64}, {"gpus": 1}, {"num_nodes": 2}])
def test_what_fits_no_node_asks_for_nothing(words: dict[str, Any]) -> None:
    assert missing([wants(3, **words)], supply(has=node(4, gib=16, gpus=0))) == {}


def test_gpus_that_nobody_knows_of_count_as_unlimited_until_the_first_block_has_come() -> None:
    """As with options of the batch system that are handed through: only the node itself can tell."""
    unknown = supply(has=node(4))
    assert missing([wants(10, gpus=2)], unknown) == {"cpu": 3}  # by their cores
    nodes = unknown.nodes.learn(Capacity(4000, 16 * GIB, ("0", "1"), 4))
    assert missing([wants(10, gpus=2)], Supply(nodes, room=100)) == {"cpu": 10}
    nodes = unknown.nodes.learn(Capacity(4000, 16 * GIB, (), 4))
    assert missing([wants(10, gpus=2)], Supply(nodes, room=100)) == {}


def test_memory_that_nobody_knows_of_counts_as_unlimited() -> None:
    assert missing([wants(10, gib=64)], supply(has=node(4))) == {"cpu": 3}


def test_an_executor_of_which_nothing_is_known_asks_for_one_block_first() -> None:
    assert missing([wants(10**6, cores=3, gib=7)], supply(has=NodeShape())) == {"cpu": 1}
    assert missing([wants(10**6, cores=3, gib=7)], supply(has=NodeShape(), coming=((1, 1),))) == {}


def test_what_managers_tell_goes_before_what_is_configured() -> None:
    assert missing([wants(8)], supply(has=node(4), seen=(node(8),))) == {"cpu": 1}


def test_of_several_kinds_of_nodes_one_that_fits_is_enough() -> None:
    seen = (node(4, gib=8, gpus=2), node(32, gib=64, gpus=0))
    assert missing([wants(2, cores=20)], supply(seen=seen)) == {"cpu": 2}
    assert missing([wants(2, gpus=2)], supply(seen=seen)) == {"cpu": 2}
    assert missing([wants(2, cores=20, gpus=1)], supply(seen=seen)) == {}


@pytest.mark.parametrize(("runtime_s", "blocks"), [(None, 1), (60.0, 1), (3599.0, 1), (3600.0, 0), (7200.0, 0)])
def test_a_runtime_that_does_not_fit_the_walltime_asks_for_nothing(runtime_s: float | None, blocks: int) -> None:
    found = missing([wants(1, runtime_s=runtime_s)], supply(walltime_s=3600.0))
    assert found.get("cpu", 0) == blocks


# ---- several nodes --------------------------------------------------------------------------


@pytest.mark.parametrize(("tasks", "num_nodes", "blocks"), [(1, 4, 1), (3, 4, 3), (3, 2, 2), (5, 2, 3), (2, 3, 2)])
def test_tasks_on_several_nodes_need_blocks_with_as_many(tasks: int, num_nodes: int, blocks: int) -> None:
    assert missing([wants(tasks, num_nodes=num_nodes)], supply(nodes=4)) == {"cpu": blocks}


def test_tasks_on_more_nodes_than_a_block_has_ask_for_nothing() -> None:
    assert missing([wants(1, num_nodes=5)], supply(nodes=4)) == {}


def test_nodes_that_a_task_on_several_leaves_over_are_for_small_ones() -> None:
    queue = [wants(4), wants(1, num_nodes=3)]
    assert missing(queue, supply(nodes=4)) == {"cpu": 1}
    assert missing([wants(5), wants(1, num_nodes=3)], supply(nodes=4)) == {"cpu": 2}


def test_the_rest_of_a_block_that_has_begun_to_come_is_no_room_for_a_task_on_several_nodes() -> None:
    assert missing([wants(1, num_nodes=3)], supply(nodes=4, coming=((2, 1),))) == {"cpu": 1}
    assert missing([wants(8)], supply(nodes=4, coming=((2, 1),))) == {}


def test_tasks_on_several_nodes_pass_over_executors_that_ignore_requests() -> None:
    has = node(None, slots=16, depth_limited=True)
    assert missing([wants(1, num_nodes=2)], supply(has=has, nodes=4)) == {}


# ---- parallelism ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "running", "parallelism", "blocks"),
    [
        (8, 0, 1.0, 2),
        (8, 0, 0.5, 1),
        (9, 0, 0.5, 2),
        (100, 4, 0.5, 12),
        (4, 4, 0.5, 0),
        (100, 4, 0.0, 0),
        (100, 0, 0.0, 1),
    ],
)
def test_parallelism_scales_slots_to_tasks(tasks: int, running: int, parallelism: float, blocks: int) -> None:
    """As Parsl has it: slots / (running and waiting tasks) should not be less."""
    found = missing([wants(tasks)], supply(parallelism=parallelism, leased=running))
    assert found.get("cpu", 0) == blocks


@pytest.mark.parametrize("parallelism", [0.0, 0.01, 0.25])
def test_parallelism_holds_for_all_classes_together(parallelism: float) -> None:
    queue = [wants(1, cores=1 + n / 1000) for n in range(16)]
    assert missing(queue, supply(parallelism=parallelism, has=node(8))) == {"cpu": 1}


@given(
    tasks=st.integers(1, 300),
    slots=st.integers(1, 9),
    busy=st.integers(0, 20),
    coming=st.integers(0, 20),
    parallelism=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 0.9, 1.0]),
)
@settings(deadline=None, max_examples=200)
def test_for_equal_tasks_on_equal_nodes_it_is_the_rule_of_slots_for_tasks(
    tasks: int, slots: int, busy: int, coming: int, parallelism: float
) -> None:
    leased = busy * slots
    need = (tasks + leased) * parallelism - leased - coming * slots
    blocks = max(0, -int(-need // slots)) if need > 1e-6 else 0
    if not busy and not coming:
        blocks = max(1, blocks)
    found = missing(
        [wants(tasks)],
        supply(has=node(slots), room=1000, leased=leased, coming=((1, coming),), parallelism=parallelism),
    )
    assert found.get("cpu", 0) == blocks
