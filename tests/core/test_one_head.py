"""Blocks whose nodes have one manager, at the head: who runs what, who leads, and what is said of it."""

from __future__ import annotations

import pytest

from pilotflow.core.hope import Hope, Verdict
from pilotflow.core.planning import forecast
from pilotflow.core.planning_records import Allocations
from pilotflow.core.scaling import IdleBlock, Planner, Queue, Supply
from pilotflow.core.shapes import Nodes
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.explanation import Kind
from pilotflow.messages.client import Notice
from pilotflow.messages.records import ClassLoad, Status
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request
from pilotflow.testing.simulator import Faults, Plan, SimManager, Simulation
from tests.core.explain_site import Site, first
from tests.core.test_planning import Job

TWO = Request(num_nodes=2)
THREE = Request(num_nodes=3)
FOUR_CORES = Capacity(4000, slots=4)


def block(sim: Simulation, nodes: int = 3, name: str = "b", slots: int = 2) -> list[SimManager]:
    """A head with slots, and nodes that follow it, with as many cores."""
    head = sim.add_manager(slots=slots, block=name)
    return [head, *(sim.add_manager(slots=0, cpus=slots, block=name) for _ in range(nodes - 1))]


def test_tasks_on_one_node_run_on_the_head_and_those_on_several_begin_there() -> None:
    sim = Simulation()
    head, *_ = block(sim)
    small = sim.submit_many([Plan(1.0)] * 6)
    wide = [sim.submit(2.0, request=TWO), sim.submit(2.0, request=THREE)]
    took_s = sim.run()
    assert all(future.status is Status.OK for future in (*small, *wide))
    assert {node for node, _ in sim.running_on} == {head.name}
    assert 7.0 <= took_s < 9.0, "three times two small ones, then two wide ones, one after the other"
    sim.settle()


@pytest.mark.parametrize("followers_first", [False, True])
def test_it_does_not_matter_who_joins_first(followers_first: bool) -> None:
    sim = Simulation()
    futures = [sim.submit(1.0, request=TWO), sim.submit(1.0)]
    for slots in (0, 0, 1) if followers_first else (1, 0, 0):
        sim.run_for(3.0)
        sim.add_manager(slots=slots, cpus=1, block="b")
    sim.run()
    assert all(future.status is Status.OK for future in futures)
    sim.settle()


def test_small_tasks_do_not_starve_a_wide_one_that_needs_the_head() -> None:
    sim = Simulation()
    block(sim)
    sim.submit_many([Plan(3.0)] * 40, request=Request(runtime_s=5.0))
    wide = sim.submit(1.0, request=Request(num_nodes=2, runtime_s=6.0))
    sim.run(until=lambda: wide.status is not None, limit_s=20.0)
    assert wide.status is Status.OK


def test_a_wide_task_goes_to_the_block_whose_head_is_free() -> None:
    sim = Simulation()
    block(sim, name="a", slots=1)
    other, *_ = block(sim, name="b", slots=1)
    sim.submit(100.0)
    sim.run_for(1.0)
    wide = sim.submit(1.0, request=TWO)
    sim.run(until=lambda: wide.status is not None, limit_s=10.0)
    assert sim.running_on[-1] == (other.name, wide.id)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_wide_task_that_loses_its_head_or_a_follower_runs_again(victim: int) -> None:
    sim = Simulation()
    nodes = block(sim, 2)
    wide = sim.submit(100.0, request=TWO)
    sim.run_for(3.0)
    nodes[victim].die()
    sim.run_for(60.0)
    for node in nodes:
        if node.alive:
            node.die()
    block(sim, 2, name="c")
    sim.run()
    assert wide.status is Status.OK
    assert sim.begun[wide.id] == 2
    sim.settle()


def test_a_wide_task_goes_on_when_the_interchange_is_restarted() -> None:
    sim = Simulation()
    block(sim)
    wide, small = sim.submit(30.0, request=TWO), sim.submit(1.0)
    sim.run_for(3.0)
    sim.interchange.restart()
    sim.run()
    assert (wide.status, small.status) == (Status.OK, Status.OK)
    assert sim.begun[wide.id] == 1
    sim.settle()


@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(5, 100))])
def test_all_tasks_end_once_while_blocks_with_one_head_come_and_go(seed: int) -> None:
    sim = Simulation(seed=seed, faults=Faults(drop=0.02, duplicate=0.02, delay_s=(0.0, 0.05)))
    blocks = [block(sim, 3, name=f"b{number}") for number in range(2)]
    futures = sim.submit_many([Plan(0.5)] * 40, crash_limit=50)
    futures += sim.submit_many([Plan(1.0)] * 12, request=TWO, crash_limit=50)
    futures += sim.submit_many([Plan(1.0)] * 6, request=THREE, crash_limit=50)
    for step in range(3):
        sim.run_for(2.0)
        for node in blocks[(seed + step) % len(blocks)]:
            node.die()
        blocks[(seed + step) % len(blocks)] = block(sim, 3, name=f"c{step}")
        if (seed + step) % 4 == 0:
            sim.interchange.restart()
    sim.network.faults = Faults()
    block(sim, 3, name="d")  # those above may lack a node, whose first word was lost
    sim.run()
    assert all(future.status is Status.OK for future in futures)
    sim.settle()


def test_the_program_is_told_once_of_nodes_that_idle_while_tasks_wait_for_the_head() -> None:
    sim = Simulation()
    block(sim, 4, slots=1)
    sim.submit_many([Plan(1.0)] * 30)
    sim.run()
    (said,) = [event.text for event in sim.client.events if isinstance(event, Notice)]
    assert "executor 'cpu'" in said
    assert "3 other nodes idle" in said
    assert "`start_one_worker_per_node: true`" in said


def test_the_program_is_told_of_idle_nodes_also_if_all_tasks_that_wait_were_sent_ahead_to_the_head() -> None:
    sim = Simulation()
    block(sim, 2, slots=1)
    sim.submit(0.1)
    sim.run()
    sim.submit_many([Plan(30.0)] * 2)
    sim.run()
    (said,) = [event.text for event in sim.client.events if isinstance(event, Notice)]
    assert said.startswith("1 job waits for executor 'cpu'")


@pytest.mark.parametrize("waits_for_ever", [False, True])
def test_idle_nodes_are_pointed_out_also_beside_a_head_that_takes_jobs_by_number(waits_for_ever: bool) -> None:
    sim = Simulation()
    sim.add_manager(slots=1, block="b", depth_limited=True)
    for _ in range(2):
        sim.add_manager(slots=0, cpus=1, block="b")
    wide = sim.submit(1.0, request=TWO) if waits_for_ever else None
    small = sim.submit_many([Plan(1.0)] * 30)
    sim.run(until=lambda: all(future.status is Status.OK for future in small))
    (said,) = [event.text for event in sim.client.events if isinstance(event, Notice)]
    assert "2 other nodes idle" in said
    assert wide is None or wide.status is None, "another executor may come that takes it"


def test_why_a_task_waits_for_a_head_that_takes_jobs_by_number_is_said_with_the_idle_nodes() -> None:
    site = Site()
    site.cls(1)
    site.cls(2, TWO)
    site.manager(slots=1, depth_limited=True)
    site.manager(slots=0)
    site.submit(1)
    (task,) = site.submit(1)
    kind, text = first(said := site.why(task))
    assert kind is Kind.DEPTH
    assert text.endswith("Tasks on one node run at the head of each block alone; 1 other node idles.")
    assert "`start_one_worker_per_node: true`" in said.reasons[0].advice
    (wide,) = site.submit(1, cls=2)
    assert first(site.why(wide)) == (
        Kind.TOO_BIG,
        "Its nodes take tasks by number only (max_parallel_jobs), and no task on several nodes.",
    )


def test_a_task_on_several_nodes_fits_no_block_whose_head_takes_jobs_by_number() -> None:
    nodes = Nodes(BlockShape("cpu", NodeShape(slots=3, depth_limited=True), 4, one_head=True))
    assert nodes.admits(Request())
    assert not nodes.admits(TWO)
    assert Planner().missing(Queue([ClassLoad(Request(), (), 7)]), [Supply(nodes, room=9)]) == {"cpu": 3}


def test_nodes_that_are_left_without_a_head_are_no_hope_for_a_task_on_several() -> None:
    hope = Hope()
    for id, slots in enumerate((2, 0, 0)):
        hope.meet(Manager(id, "cpu", "b", f"n{id}", Capacity(2000 + 2000 * (not slots), slots=slots)), None)
    hope.fail("cpu", "No block of it will come.")
    judged = [hope.judge(RequestClass(cores, Request(1000 * cores, num_nodes=2), ("cpu",), 5)) for cores in (2, 4)]
    assert judged == [None, Verdict(Status.UNSTARTABLE, "No block of it will come.")]


def site(*, busy: int) -> Site:
    site = Site()
    site.cls(1)
    site.cls(2, TWO)
    site.manager(cpus_milli=2000, slots=2)
    for _ in range(3):
        site.manager(cpus_milli=2000, slots=0)
    site.submit(busy)
    return site


def test_it_is_said_that_a_task_waits_for_the_head_while_others_idle_and_what_to_do() -> None:
    waiting = site(busy=2)
    (task,) = waiting.submit(1)
    kind, text = first(said := waiting.why(task))
    assert kind is Kind.SLOTS
    assert text.startswith("All 2 slots of its node are taken.")
    assert text.endswith("Tasks on one node run at the head of each block alone; 3 other nodes idle.")
    assert "`start_one_worker_per_node: true`" in said.reasons[0].advice


def test_it_is_said_that_a_task_on_several_nodes_waits_for_the_head() -> None:
    waiting = site(busy=1)
    (task,) = waiting.submit(1, cls=2)
    kind, text = first(said := waiting.why(task))
    assert kind is Kind.NODES
    assert "begin at the head of their block, one at a time. That of cpu-0, n1, is busy with other tasks." in text
    assert "`start_one_worker_per_node: true`" in said.reasons[0].advice


@pytest.mark.parametrize("num_nodes", [1, 2])
def test_what_is_too_big_for_the_head_is_too_big(num_nodes: int) -> None:
    alone = Site()
    alone.cls(1, Request(3000, num_nodes=num_nodes))
    alone.manager(cpus_milli=2000, slots=2)
    alone.manager(cpus_milli=8000, slots=0)
    (task,) = alone.submit(1)
    kind, text = first(alone.why(task))
    assert (kind, text) == (
        Kind.TOO_BIG,
        "It is too big: it asks for 3 cores on one node, and the largest has 2.",
    )


@pytest.mark.parametrize("num_nodes", [1, 2])
def test_where_the_head_takes_no_more_work_nothing_is_too_big_for_the_nodes_that_are_left(num_nodes: int) -> None:
    ending = site(busy=1)
    ending.scheduler.managers[1].closed = True
    (task,) = ending.submit(1, cls=num_nodes)
    kind, text = first(ending.why(task))
    assert (kind, text) == (Kind.CLOSED, "All of its 4 nodes take no more work: it is drained, or its block ends.")


def test_new_blocks_are_counted_with_what_their_heads_take() -> None:
    nodes = Nodes(BlockShape("cpu", NodeShape(4000, slots=4), 3, one_head=True))

    def wanted(count: int, request: Request, **supply: object) -> int:
        queue = Queue([ClassLoad(request, (), count)])
        return Planner().missing(queue, [Supply(nodes, room=100, **supply)]).get("cpu", 0)  # type: ignore[arg-type]

    assert wanted(8, Request()) == 2
    assert wanted(8, Request(), coming=((3, 1),)) == 1
    assert wanted(2, Request(num_nodes=1, cpus_milli=4000), coming=((3, 2),)) == 0
    assert wanted(3, TWO) == 3
    assert wanted(3, TWO, coming=((3, 2),)) == 1


def test_an_idle_block_is_known_to_take_what_its_head_takes() -> None:
    kinds = (NodeShape.of(FOUR_CORES), NodeShape.of(Capacity(8000, slots=0)))
    idle = IdleBlock(kinds, 3, 100.0)
    assert idle.would_take(Request(cpus_milli=4000), 1.0)
    assert not idle.would_take(Request(cpus_milli=8000), 1.0)
    assert idle.would_take(Request(cpus_milli=4000, num_nodes=3), 1.0)


def test_what_a_follower_has_says_nothing_about_tasks_on_one_node() -> None:
    nodes = Nodes(BlockShape("cpu", NodeShape(), 2, one_head=True)).learn(Capacity(4000, slots=0))
    assert nodes.admits(Request())
    nodes = nodes.learn(FOUR_CORES)
    assert nodes.admits(Request(num_nodes=2))
    assert not nodes.admits(Request(cpus_milli=5000))


@pytest.mark.parametrize(("one_head", "makespan_s"), [(False, 20.0), (True, 60.0)])
def test_a_plan_knows_that_other_nodes_idle(one_head: bool, makespan_s: float) -> None:
    jobs = [Job() for _ in range(24)]
    kind = Allocations("a", FOUR_CORES, nodes=3, one_head=one_head)
    assert forecast(jobs, [10.0] * 24, [()] * 24, [kind]).makespan_s == makespan_s


def test_a_plan_runs_tasks_on_several_nodes_one_after_another() -> None:
    jobs = [Job(TWO), Job(TWO)]
    for one_head, makespan_s in ((False, 10.0), (True, 20.0)):
        kind = Allocations("a", FOUR_CORES, nodes=4, one_head=one_head)
        assert forecast(jobs, [10.0] * 2, [()] * 2, [kind]).makespan_s == makespan_s
