"""Why a task is not running: what is short, what never fits, and who is in the way, in exact words."""

from __future__ import annotations

from typing import Any

import pytest

from pilotflow.core.hope import Hope
from pilotflow.core.scheduler import PATIENCE_S
from pilotflow.explanation import Kind, State
from pilotflow.messages.views import ClientView, ExecutorView
from pilotflow.resources import BlockShape, NodeShape, Request
from tests.core.explain_site import GIB, Site, first, numbers

# ---- what is short --------------------------------------------------------------------------


def test_cores_are_short() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=6000))
    site.cls(2, Request(cpus_milli=4000))
    site.manager()
    site.submit(1, 1)
    (task,) = site.submit(1, 2)
    why = site.why(task)
    assert (why.state, why.task, why.name) == (State.QUEUED, 2, "square")
    assert first(why) == (Kind.CORES, "It asks for 4 cores. 2 of 8 are free on its node (n1).")
    assert numbers(why) == {"asked_cpus_milli": 4000, "free_cpus_milli": 2000, "node_cpus_milli": 8000}
    assert (why.reasons[0].executor, why.reasons[0].block, why.reasons[0].node) == ("cpu", "cpu-0", "n1")
    assert why.advice == "It starts when enough of what runs there has ended."


def test_of_several_nodes_the_one_with_the_most_free_is_named() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=7000))
    site.cls(2, Request(cpus_milli=7500))
    site.manager()
    site.manager(cpus_milli=10000)
    site.submit(2, 1)
    (task,) = site.submit(1, 2)
    assert first(site.why(task)) == (
        Kind.CORES,
        "It asks for 7.5 cores. At most 3 of 10 are free on one node (n2).",
    )


@pytest.mark.parametrize(
    ("held", "asked", "has", "kind", "text"),
    [
        (
            Request(memory_bytes=7 * GIB),
            Request(memory_bytes=4 * GIB),
            {"memory_bytes": 8 * GIB},
            Kind.MEMORY,
            "It asks for 4 GiB of memory. 1 GiB of 8 GiB is free on its node (n1).",
        ),
        (
            Request(gpus_milli=3000),
            Request(gpus_milli=2000),
            {"gpus": ("0", "1", "2", "3")},
            Kind.GPUS,
            "It asks for 2 GPUs. 1 of 4 is free on its node (n1).",
        ),
        (
            Request(gpus_milli=750),
            Request(gpus_milli=500),
            {"gpus": ("0",)},
            Kind.GPUS,
            "It asks for 0.5 GPUs. 0.25 of 1 are free on its node (n1).",
        ),
        (
            Request(resources=(("licence", 2),)),
            Request(resources=(("licence", 1),)),
            {"resources": (("licence", 2),)},
            Kind.CONSUMABLE,
            "It asks for 1 of 'licence'. 0 of 2 are free on its node (n1).",
        ),
    ],
)
def test_what_is_short_is_named(held: Request, asked: Request, has: dict[str, Any], kind: Kind, text: str) -> None:
    site = Site()
    site.cls(1, held)
    site.cls(2, asked)
    site.manager(**has)
    site.submit(1, 1)
    (task,) = site.submit(1, 2)
    assert first(site.why(task)) == (kind, text)


def test_what_is_free_on_different_nodes_does_not_help() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=8000))
    site.cls(2, Request(cpus_milli=1000, gpus_milli=1000))
    site.cls(3, Request(cpus_milli=4000, gpus_milli=1000))
    site.manager(gpus=("0",))
    site.submit(1, 1)
    site.manager(gpus=("0",))
    site.submit(1, 2)
    (task,) = site.submit(1, 3)
    why = site.why(task)
    assert first(why) == (
        Kind.APART,
        "It asks for 4 cores and 1 GPU on one node. The nearest to that is n1: 0 of 8 cores free.",
    )


def test_all_slots_are_taken() -> None:
    site = Site()
    site.cls(1)
    site.manager(cpus_milli=2000, slots=2)
    *_, task = site.submit(3)
    why = site.why(task)
    assert first(why) == (Kind.SLOTS, "All 2 slots of its node are taken.")
    assert numbers(why) == {"slots": 2, "free_slots": 0, "nodes": 1}


def test_the_depth_limit_is_reached() -> None:
    site = Site()
    site.cls(1)
    site.manager(slots=3, depth_limited=True)
    site.manager(slots=3, depth_limited=True)
    *_, task = site.submit(7)
    assert first(site.why(task)) == (
        Kind.DEPTH,
        "Each of its 2 nodes runs at most 3 tasks at once (max_parallel_jobs), and all are full.",
    )


# ---- what never fits ------------------------------------------------------------------------


def test_too_big_says_which_number_and_what_the_largest_is() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=64000, memory_bytes=32 * GIB))
    site.manager(memory_bytes=16 * GIB)
    site.manager(cpus_milli=32000, memory_bytes=64 * GIB)
    (task,) = site.submit()
    why = site.why(task)
    assert first(why) == (Kind.TOO_BIG, "It is too big: it asks for 64 cores on one node, and the largest has 32.")
    assert why.headline == "Task 1 (square) is queued, and nothing that is known of can run it."
    assert why.advice == "Ask for less (at most num_cpus=32), or cancel it: it would wait for ever."


def test_several_numbers_are_too_big() -> None:
    site = Site()
    site.cls(1, Request(memory_bytes=32 * GIB, gpus_milli=2000, resources=(("fpga", 1),)))
    site.manager(memory_bytes=16 * GIB, gpus=("0",))
    (task,) = site.submit()
    why = site.why(task)
    assert first(why) == (
        Kind.TOO_BIG,
        (
            "It is too big: it asks for 32 GiB of memory, 2 GPUs and 1 of 'fpga' on one node, "
            "and the largest has 16 GiB, 1 and 0."
        ),
    )
    assert why.advice == ('Ask for less (at most memory="16g" and num_gpus=1), or cancel it: it would wait for ever.')


def test_no_node_has_everything_together() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=8000, gpus_milli=1000))
    site.manager()
    site.manager(cpus_milli=2000, gpus=("0",))
    (task,) = site.submit()
    assert first(site.why(task)) == (Kind.TOO_BIG, "It is too big: no node has 8 cores and 1 GPU together.")


def test_the_longest_time_left_is_too_short() -> None:
    site = Site()
    site.cls(1, Request(runtime_s=7200.0))
    site.manager(left_s=1800.0)
    site.manager(block="cpu-1", left_s=2700.0)
    (task,) = site.submit()
    why = site.why(task)
    assert first(why) == (
        Kind.TOO_LONG,
        "It asks for a runtime of 2h. The block that lasts longest (cpu-1) has 45m left.",
    )
    assert numbers(why) == {"asked_s": 7200.0, "left_s": 2700.0}


def test_a_task_without_runtime_needs_some_time_left() -> None:
    site = Site()
    site.cls(1)
    manager = site.manager(left_s=3600.0)
    site.now += 3400.0
    manager.set_time_left(200.0, site.now)
    (task,) = site.submit()
    assert first(site.why(task)) == (
        Kind.TOO_LONG,
        (
            "It does not say its runtime, so it starts only where 5m are left. "
            "The block that lasts longest (cpu-0) has 3m 20s left."
        ),
    )


def test_nodes_that_are_drained_take_nothing() -> None:
    site = Site()
    site.cls(1)
    site.manager().closed = True
    (task,) = site.submit()
    assert first(site.why(task)) == (
        Kind.CLOSED,
        "Its node takes no more work: it is drained, or its block ends.",
    )


def test_an_executor_whose_nodes_have_not_what_is_asked_for_is_not_said_to_get_a_block() -> None:
    hope = Hope()
    hope.define(
        [BlockShape("cpu", NodeShape(cpus_milli=8000, gpus=0)), BlockShape("gpu", NodeShape(gpus=2))], closed=True
    )
    site = Site()
    request = Request(gpus_milli=2000, num_nodes=1)
    site.cls(1, request, executors=())
    (task,) = site.submit()
    view = ClientView(1, "square", executors=(ExecutorView("cpu", 0, 1), ExecutorView("gpu", 0, 1)))
    misfits = hope.misfits(site.scheduler.classes[1])
    assert list(misfits) == ["cpu"]
    reasons = {reason.executor: (reason.kind, reason.text) for reason in site.why(task, view, misfits=misfits).reasons}
    assert reasons["cpu"] == (Kind.TOO_BIG, misfits["cpu"])
    assert misfits["cpu"].startswith("It asks for 2 GPUs")
    assert reasons["gpu"][0] is Kind.NO_BLOCK


# ---- who is in the way ----------------------------------------------------------------------


def test_a_node_is_kept_free_for_a_more_urgent_task() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=1000))
    site.cls(2, Request(cpus_milli=8000, priority=1))
    manager = site.manager()
    running = site.submit(12, 1)
    (urgent,) = site.submit(1, 2)
    for task in running[:2]:
        site.now += PATIENCE_S + 0.1
        site.scheduler.release(manager, task)
        site.scheduler.step(site.now)
    (task,) = site.submit(1, 1)
    assert manager.reserved is not None
    assert manager.reserved.cls is site.scheduler.classes[2]
    why = site.why(task)
    assert first(why) == (
        Kind.RESERVED,
        f"There is room on node n1, which is kept free for task {urgent.id}: that one is more urgent.",
    )
    assert why.reasons[0].tasks == (urgent.id,)
    texts = [reason.text for reason in site.why(urgent).reasons]
    assert "Node n1 is kept free for tasks of its kind." in texts


def test_tasks_ahead_are_counted_by_why_they_are_ahead() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=8000))
    site.cls(2, Request(cpus_milli=8000, priority=1))
    site.cls(3, Request(priority=9), executors=["gpu"])
    site.manager()
    site.submit(3, 1)
    site.submit(2, 3)
    last = site.submit(1, 1)[0]
    assert site.why(last).reasons[-1].text == "2 tasks are ahead of it in the queue."
    site.submit(1, 2)
    why = site.why(last)
    assert why.reasons[-1].text == "3 tasks are ahead of it in the queue: 2 like it and 1 of another kind."
    assert numbers(why, -1) == {"ahead": 3, "ahead_like_it": 2, "ahead_others": 1}
    (urgent,) = site.submit(1, 2)
    assert site.why(urgent).reasons[-1].text == "1 task is ahead of it in the queue."


def test_a_depth_limited_executor_counts_from_its_end_of_the_queue() -> None:
    site = Site()
    site.cls(1, Request(memory_bytes=GIB), executors=["shallow"])
    site.cls(2, Request(), executors=["shallow"])
    site.manager(executor="shallow", slots=1, depth_limited=True)
    site.submit(1, 1)
    (big,) = site.submit(1, 1)
    (small, _) = site.submit(2, 2)
    assert site.why(big).reasons[-1].text == "2 tasks of other kinds are ahead of it in the queue."
    assert [reason.kind for reason in site.why(small).reasons] == [Kind.DEPTH]


def test_what_no_node_could_run_is_not_ahead_of_anybody() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=99_000, priority=1))
    site.cls(2, Request(cpus_milli=8000, priority=1))
    site.cls(3)
    site.manager()
    site.submit(5, 1)
    site.submit(2, 2)
    (task,) = site.submit(1, 3)
    assert site.why(task).reasons[-1].text == "1 task of another kind is ahead of it in the queue."


def test_too_few_nodes_of_one_block_are_empty() -> None:
    site = Site()
    site.cls(1)
    site.cls(2, Request(num_nodes=4))
    for _ in range(4):
        site.manager()
    site.submit(17, 1)
    (task,) = site.submit(1, 2)
    why = site.why(task)
    assert first(why) == (
        Kind.NODES,
        "It waits for 4 empty nodes of one block. cpu-0 has 1 of 4, 3 with other tasks.",
    )
    assert numbers(why) == {"asked_nodes": 4, "empty_nodes": 1, "nodes": 4}


def test_no_block_has_so_many_nodes() -> None:
    site = Site()
    site.cls(1, Request(num_nodes=4))
    site.manager()
    site.manager()
    (task,) = site.submit()
    why = site.why(task)
    assert first(why) == (
        Kind.NODES,
        "It asks for 4 nodes of one block. The largest block here (cpu-0) has 2 that can take it.",
    )
    assert why.advice == "It starts in a block with nodes_per_block=4 or more."


def test_multi_node_tasks_have_all_nodes() -> None:
    site = Site()
    site.cls(1, Request(num_nodes=2))
    site.cls(2)
    site.manager()
    site.manager()
    (wide,) = site.submit(1, 1)
    (task,) = site.submit(1, 2)
    why = site.why(task)
    assert first(why) == (Kind.TAKEN, f"Task {wide.id} has all 2 nodes for itself.")
    (second,) = site.submit(1, 1)
    assert first(site.why(second)) == (
        Kind.NODES,
        f"It waits for 2 empty nodes of one block. cpu-0 has 0 of 2, 2 with task {wide.id}.",
    )


def test_results_that_nobody_takes_hold_everything_up() -> None:
    site = Site()
    site.cls(1)
    site.manager(slots=1)
    *_, task = site.submit(2)
    assert first(site.why(task, behind=200_001)) == (
        Kind.BEHIND,
        "Nothing is handed out now: the run's program has not taken 200,001 results yet.",
    )


def test_lost_attempts_are_told() -> None:
    site = Site()
    site.cls(1)
    site.manager(slots=1)
    *_, task = site.submit(2)
    why = site.why(task, history=["attempt 1: worker killed by signal 9 (SIGKILL)"])
    assert why.reasons[-1].text == (
        "1 of at most 5 attempts at it was lost: attempt 1: worker killed by signal 9 (SIGKILL)."
    )
