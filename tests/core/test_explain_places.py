"""Why a task is not running: blocks that are awaited, where it is, and whom it needs; and always a true reason."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from pilotflow.core.explain import Facts, explain_leased, explain_queued, explain_waiting
from pilotflow.core.graph import Graph
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.explanation import Explanation, Kind, Named, State
from pilotflow.messages.records import Task
from pilotflow.messages.views import BlockView, ClientView, ExecutorView, Whereabouts
from pilotflow.resources import Request
from pilotflow.serialize import Packed
from pilotflow.testing.simulator import Plan, Simulation
from tests.core.explain_site import GIB, Site, first, numbers

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
        (
            blocks_of("suspended", for_s=40.4),
            "Block gpu-0 (batch id 4711) has been suspended for 40s: nothing of it runs.",
            "It goes on when whoever has suspended that block resumes it.",
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
            Whereabouts(True, 3, 12.34, pid=4711),
            State.RUNNING,
            "It has been running for 12.3s on node n1 (block cpu-0), in worker 3 (pid 4711).",
        ),
        (
            Whereabouts(True, 3, 12.34, pid=4711, stopped=True),
            State.RUNNING,
            "It has been running for 12.3s on node n1 (block cpu-0), in worker 3 (pid 4711). That process is stopped.",
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


def test_jobs_of_a_workflow_are_called_jobs() -> None:
    root = Explanation(1, "prepare", State.RUNNING, (), noun="job")
    why = Explanation(3, "train", State.WAITING, (), (Named(1, "prepare"),), 1, root, noun="job")
    assert str(why).splitlines() == [
        "Job 3 (train) waits for job 1 (prepare).",
        "",
        "  Job 1 (prepare) is running.",
    ]
    assert Explanation(0, "", State.UNKNOWN, (), noun="job").headline == "This job is not known."


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
