"""Why a task is not running: each reason in its exact words, and who is asked before an answer is given."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from pilotflow.core.explain import (
    Facts,
    explain_leased,
    explain_queued,
    explain_waiting,
)
from pilotflow.core.graph import Graph
from pilotflow.core.hope import Hope
from pilotflow.core.scheduler import PATIENCE_S, Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.explanation import Explanation, Kind, Named, State
from pilotflow.messages import Task
from pilotflow.questions import BlockView, ClientView, ExecutorView, Whereabouts
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request
from pilotflow.serialize import Packed
from pilotflow.testing.simulator import Plan, Simulation

GIB = 1 << 30


class Site:
    """A scheduler, and why its tasks wait."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.now = 100.0
        self.next_task = 1
        self.next_manager = 1

    def cls(self, id: int, request: Request | None = None, executors: Sequence[str] = ("cpu",)) -> None:
        self.scheduler.add_class(RequestClass(id, request or Request(), tuple(executors), 5))

    def manager(
        self, *, executor: str = "cpu", block: str = "cpu-0", left_s: float | None = None, **has: Any
    ) -> Manager:
        id = self.next_manager
        self.next_manager += 1
        capacity = Capacity(**{"cpus_milli": 8000, "slots": 64, **has})
        manager = Manager(id, executor, block, f"n{id}", capacity)
        manager.set_time_left(left_s, self.now)
        self.scheduler.add_manager(manager)
        return manager

    def submit(self, count: int = 1, cls: int = 1) -> list[Task]:
        tasks = [Task(self.next_task + i, 0, 1, cls, b"") for i in range(count)]
        self.next_task += count
        for task in tasks:
            self.scheduler.submit(task)
        self.scheduler.step(self.now)
        return tasks

    def why(self, task: Task, view: ClientView | None = None, **facts: Any) -> Explanation:
        return explain_queued(self.scheduler, task, "square", Facts(view, **facts), self.now)


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


def first(explanation: Explanation) -> tuple[Kind, str]:
    reason = explanation.reasons[0]
    return reason.kind, reason.text


def numbers(explanation: Explanation, at: int = 0) -> dict[str, float]:
    return {number.name: number.value for number in explanation.reasons[at].numbers}


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


# ---- blocks that are awaited ----------------------------------------------------------------


def blocks_of(phase: str, said: str = "", for_s: float = 720.0, batch_id: str | None = "4711") -> BlockView:
    return BlockView("gpu-0", "gpu", batch_id, phase, said, for_s)


def seen(*blocks: BlockView, **executor: Any) -> ClientView:
    words: dict[str, Any] = {"executor": "gpu", "blocks": len(blocks), "max_blocks": 4, **executor}
    return ClientView(1, "square", blocks=blocks, executors=(ExecutorView(**words),))


def why_no_manager(view: ClientView) -> Explanation:
    site = Site()
    site.cls(1, executors=["gpu"])
    (task,) = site.submit()
    return site.why(task, view)


@pytest.mark.parametrize(
    ("block", "text", "advice"),
    [
        (
            blocks_of("pending", "Priority"),
            "Block gpu-0 (batch id 4711) has been pending for 12m. Its provider says: Priority.",
            "It starts when that block does, which is up to its provider.",
        ),
        (
            blocks_of("running", for_s=40.4),
            "Block gpu-0 (batch id 4711) has been running for 40s, and no manager of it has joined yet.",
            "If none joins, see blocks/gpu-0 in the run directory.",
        ),
        (blocks_of("requested", for_s=0.25, batch_id=None), "Block gpu-0 is being submitted, for 200ms now.", ""),
    ],
)
def test_an_awaited_block_is_named_with_what_its_provider_says(block: BlockView, text: str, advice: str) -> None:
    why = why_no_manager(seen(block))
    assert first(why) == (Kind.BLOCK, text)
    assert (why.reasons[0].block, why.reasons[0].executor, why.advice) == ("gpu-0", "gpu", advice)


def test_many_awaited_blocks_are_counted() -> None:
    view = seen(*(BlockView(f"gpu-{i}", "gpu", str(i), "pending", "", 60.0) for i in range(9)))
    assert [reason.text for reason in why_no_manager(view).reasons][2:] == [
        "Block gpu-2 (batch id 2) has been pending for 1m.",
        "6 more blocks are awaited.",
    ]


def test_start_failures_come_with_the_last_reason_and_the_next_try() -> None:
    view = seen(
        failures=3, last_failed="gpu-2", last_failure="failed with exit code 127 (no such file).", next_try_s=3.98
    )
    why = why_no_manager(view)
    assert first(why) == (
        Kind.START_FAILURES,
        (
            "3 blocks in a row ended before a manager had joined. "
            "The last one, gpu-2, failed with exit code 127 (no such file). The next try is in 4s."
        ),
    )
    assert numbers(why) == {"failures": 3, "next_try_s": 3.98}
    assert why.advice == "What it said is in blocks/gpu-2/stderr in the run directory."


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (seen(), "It has no block. One is asked for in a moment."),
        (seen(max_blocks=0), "It may have no blocks (max_blocks=0)."),
        (seen(next_try_s=8.0), "It has no block. The next one is asked for in 8s."),
        (seen(blocks_of("ending")), "None of its managers is here: block gpu-0 is ending."),
    ],
)
def test_an_executor_without_managers_and_awaited_blocks_says_so(view: ClientView, text: str) -> None:
    assert first(why_no_manager(view)) == (Kind.NO_BLOCK, text)


def test_a_provider_that_cannot_be_asked_is_told_of() -> None:
    why = why_no_manager(seen(trouble="Its provider cannot tell the state of its blocks now: OSError('squeue')."))
    assert first(why) == (
        Kind.START_FAILURES,
        "Its provider cannot tell the state of its blocks now: OSError('squeue').",
    )


def test_an_executor_that_was_given_up_says_why() -> None:
    site = Site()
    site.cls(1, executors=["gpu"])
    (task,) = site.submit()
    why = site.why(task, seen(), failed={"gpu": "3 blocks in a row ended.\nIts stderr ends with: no"})
    assert first(why) == (Kind.GIVEN_UP, "It has failed, and no block of it will come: 3 blocks in a row ended.")
    assert why.headline == "Task 1 (square) is queued, and nothing that is known of can run it."


def test_without_the_program_it_is_said_that_no_manager_is_here() -> None:
    site = Site()
    site.cls(1, executors=["gpu"])
    site.cls(2, executors=[])
    (bound,), (free,) = site.submit(1, 1), site.submit(1, 2)
    assert first(site.why(bound)) == (Kind.NO_BLOCK, "None of its managers is here.")
    assert first(site.why(free)) == (Kind.NO_BLOCK, "No manager has joined yet.")


def test_full_nodes_and_an_awaited_block_are_told_together() -> None:
    site = Site()
    site.cls(1, executors=["gpu"])
    site.manager(executor="gpu", slots=1)
    *_, task = site.submit(2)
    why = site.why(task, seen(blocks_of("pending")))
    assert [reason.kind for reason in why.reasons] == [Kind.SLOTS, Kind.BLOCK]
    assert why.advice == "It starts when enough of what runs there has ended, or when a new block has come."
    why = site.why(task, seen(blocks=4))
    assert why.advice == (
        "It starts when enough of what runs there has ended. For more nodes, raise max_blocks of executor 'gpu' (now 4)."
    )


def test_executors_come_in_the_order_of_hope_and_those_that_do_not_count_last() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=4000), executors=["big", "small", "slow"])
    site.manager(executor="small", cpus_milli=2000)
    site.manager(executor="big", cpus_milli=4000)
    site.manager(executor="other")
    *_, task = site.submit(2)
    view = ClientView(
        2,
        "square",
        blocks=(BlockView("slow-0", "slow", "1", "pending", "", 3.0),),
        executors=tuple(ExecutorView(label, 1, 1) for label in ("other", "small", "slow", "big")),
    )
    why = site.why(task, view)
    assert [(reason.executor, reason.kind) for reason in why.reasons] == [
        ("big", Kind.CORES),
        ("slow", Kind.BLOCK),
        ("small", Kind.TOO_BIG),
        ("other", Kind.NOT_BOUND),
    ]
    assert why.reasons[-1].text == "The task is bound to 'big', 'slow' or 'small'."


# ---- leased ---------------------------------------------------------------------------------


def leased(place: Whereabouts | None, **facts: Any) -> Explanation:
    site = Site()
    site.cls(1)
    manager = site.manager()
    (task,) = site.submit()
    return explain_leased(site.scheduler, task, "square", manager, place, Facts(**facts))


@pytest.mark.parametrize(
    ("place", "state", "text"),
    [
        (
            Whereabouts(True, 3, 12.34),
            State.RUNNING,
            "It has been running for 12.3s on node n1 (block cpu-0), in worker 3.",
        ),
        (
            Whereabouts(True, 3, None, 2),
            State.LEASED,
            "It was sent ahead to node n1 (block cpu-0). Worker 3 runs it after 2 tasks.",
        ),
        (
            Whereabouts(True, None, None, 1),
            State.LEASED,
            "It was sent ahead to node n1 (block cpu-0). There, 1 task comes first.",
        ),
        (Whereabouts(True), State.LEASED, "It was sent ahead to node n1 (block cpu-0). There, it is the next."),
        (Whereabouts(False), State.LEASED, "It is on its way to node n1 (block cpu-0), or back from there."),
        (
            None,
            State.LEASED,
            "It was handed to node n1 (block cpu-0). The manager there has not answered; it was last heard of 7s ago.",
        ),
    ],
)
def test_a_leased_task_says_where_it_is(place: Whereabouts | None, state: State, text: str) -> None:
    why = leased(place, holder_heard_s=7.0)
    assert (why.state, why.reasons[0].text) == (state, text)
    assert (why.reasons[0].block, why.reasons[0].node, why.reasons[0].executor) == ("cpu-0", "n1", "cpu")


def test_a_task_that_is_being_cancelled_says_so_first() -> None:
    assert leased(Whereabouts(True, 0, 1.0), cancelling=True).reasons[0].text == "It is being cancelled."


def test_a_task_on_several_nodes_names_them() -> None:
    site = Site()
    site.cls(1, Request(num_nodes=2))
    manager = site.manager()
    site.manager()
    (task,) = site.submit()
    why = explain_leased(site.scheduler, task, "mpi", manager, Whereabouts(True, 0, 60.0), Facts())
    assert why.reasons[0].text == "It has been running for 1m on nodes n1 and n2 (block cpu-0), in worker 0."


# ---- dependencies ---------------------------------------------------------------------------


def test_a_graph_tells_what_a_task_needs_until_it_is_there() -> None:
    graph: Graph[str] = Graph()
    for id in (1, 2):
        graph.add(f"f{id}", Task(id, 0, 1, 1, b""), ())
    graph.add("f3", Task(3, 0, 1, 1, b""), (), needs=[1, 2, 1, Packed(b"x")])
    assert graph.needs(3) == [1, 2]
    assert graph.needs(1) == graph.needs(99) == []
    graph.supply(1, Packed(b"one"))
    assert graph.needs(3) == [2]
    graph.supply(2, Packed(b"two"))
    assert graph.needs(3) == []
    assert len(graph.take_ready().tasks) == 3


def test_a_waiting_task_shows_the_chain_and_what_all_of_it_waits_for() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=4000))
    site.manager(cpus_milli=2000)
    (task,) = site.submit()
    view = ClientView(
        9, "total", needs=(Named(5, "part"), Named(6, "part")), needed=2, chain=(Named(5, "part"), Named(1, "square")),
        links=2,
    )  # fmt: skip
    why = explain_waiting(view, site.why(task))
    assert why.state is State.WAITING
    assert why.reasons[0].tasks == (5, 6)
    assert str(why).splitlines() == [
        "Task 9 (total) waits for task 1 (square).",
        "",
        "  It needs the results of 2 tasks that have not ended: task 5 (part) and task 6 (part).",
        "",
        "  The chain: 9 (total) <- 5 (part) <- 1 (square)",
        "",
        "  Task 1 (square) is queued, and nothing that is known of can run it.",
        "    cpu  It is too big: it asks for 4 cores on one node, and the largest has 2.",
        "",
        "What now: Ask for less (at most num_cpus=2), or cancel it: it would wait for ever.",
    ]


def test_a_long_chain_is_cut_in_the_middle_and_counted() -> None:
    chain = tuple(Named(id, "step") for id in (99, 98, 2, 1))
    why = explain_waiting(ClientView(100, "step", needs=chain[:1], needed=1, chain=chain, links=99), None)
    assert "The chain: 100 (step) <- 99 (step) <- 98 (step) <- ... 95 more ... <- 2 (step) <- 1 (step)" in str(
        why
    ).replace("\n             ", " ")


def test_a_chain_that_travelled_longer_is_shown_as_short() -> None:
    chain = tuple(Named(id, "f") for id in range(20, 0, -1))
    why = explain_waiting(ClientView(21, "f", needs=chain[:1], needed=1, chain=chain, links=20), None)
    assert "  The chain: 21 (f) <- 20 (f) <- 19 (f) <- 18 (f) <- ... 15 more ... <- 2 (f) <- 1 (f)" in str(why)


def test_executors_that_never_take_it_have_no_queue_to_speak_of() -> None:
    site = Site()
    site.cls(1, Request(cpus_milli=4000), executors=[])
    site.cls(2, Request(priority=1), executors=["small"])
    site.manager(executor="big", cpus_milli=4000)
    site.manager(executor="small", cpus_milli=1000)
    site.submit(2, 1)
    site.submit(3, 2)
    (task,) = site.submit(1, 1)
    assert [(reason.executor, reason.kind) for reason in site.why(task).reasons] == [
        ("big", Kind.CORES),
        ("small", Kind.TOO_BIG),
        ("", Kind.AHEAD),
    ]


def test_a_running_task_with_a_runtime_says_how_long_it_may() -> None:
    site = Site()
    site.cls(1, Request(runtime_s=1800.0))
    manager = site.manager()
    (task,) = site.submit()
    why = explain_leased(site.scheduler, task, "square", manager, Whereabouts(True, 0, 60.0), Facts())
    assert why.reasons[0].text == "It has been running for 1m of at most 30m on node n1 (block cpu-0), in worker 0."


def test_a_future_of_another_kind_can_be_waited_for() -> None:
    view = ClientView(2, "square", needs=(Named(0, "Future"),), needed=1, chain=(Named(0, "Future"),), links=1)
    why = explain_waiting(view, None)
    assert why.reasons[0].text == "It needs the result of a future of another kind (Future)."
    assert why.advice == "It goes on when that future has a result."


# ---- always ---------------------------------------------------------------------------------

SHORT = {Kind.CORES, Kind.MEMORY, Kind.GPUS, Kind.CONSUMABLE, Kind.TOO_BIG}


def check_reasons(why: Explanation, cls: RequestClass, managers: Sequence[Manager]) -> None:
    by_executor = {reason.executor: reason for reason in reversed(why.reasons) if reason.executor}
    assert by_executor.keys() >= {manager.executor for manager in managers}
    for label, reason in by_executor.items():
        assert (reason.kind is Kind.NOT_BOUND) is not cls.admits(label)
        assert reason.kind is not Kind.NEXT, "it waits although nothing stands in its way"
        figures = [number.value for number in reason.numbers]
        for asked, free, node in zip(figures[::3], figures[1::3], figures[2::3], strict=False):
            assert reason.kind not in SHORT or asked > free, reason
            assert reason.kind is not Kind.TOO_BIG or asked > node, reason
    assert all(reason.text.endswith((".", "!", "?")) for reason in why.reasons)
    assert str(why)


@pytest.mark.parametrize("seed", range(20))
def test_every_task_that_waits_has_a_true_reason_on_every_executor(seed: int) -> None:
    sim, dice = Simulation(seed), Random(seed)
    for _ in range(dice.randint(1, 5)):
        sim.add_manager(
            slots=dice.randint(1, 8),
            executor=dice.choice(["cpu", "gpu", "shallow"]),
            block=dice.choice(["block-1", "block-2"]),
            cpus=dice.randint(1, 8),
            memory_bytes=dice.choice([0, 4 * GIB]),
            gpus=[str(i) for i in range(dice.choice([0, 0, 1, 4]))],
            walltime_s=dice.choice([None, None, 60.0]),
        )
    for _ in range(12):
        request = Request(
            cpus_milli=dice.choice([500, 1000, 3000, 8000]),
            memory_bytes=dice.choice([0, GIB, 8 * GIB]),
            gpus_milli=dice.choice([0, 0, 500, 2000]),
            num_nodes=dice.choice([1, 1, 1, 2]),
            runtime_s=dice.choice([None, 30.0, 100.0]),
            priority=dice.choice([0, 0, 1]),
        )
        plans = [Plan(dice.uniform(0.1, 20.0)) for _ in range(dice.randint(1, 6))]
        sim.submit_many(plans, request=request, executors=dice.choice([(), (), ("cpu",), ("gpu", "cpu")]))
    explained = 0
    for _ in range(60):
        sim.run_for(1.0)
        exchange = sim.interchange.exchange
        scheduler = exchange.scheduler
        managers = list(scheduler.managers.values())
        for task in list(scheduler.tasks.values()):
            if not task.manager:
                why = explain_queued(scheduler, task, "f", Facts(), sim.clock.now)
                check_reasons(why, scheduler.classes[task.cls], managers)
                explained += 1
    assert explained
