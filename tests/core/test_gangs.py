"""Tasks on several nodes, in the simulator: nodes are reserved, asked, and given back whatever happens."""

from __future__ import annotations

import pytest

from pilotflow.messages.records import Status
from pilotflow.resources import Request
from pilotflow.testing.simulator import Faults, Plan, Simulation

TWO = Request(num_nodes=2)


def test_a_multi_node_task_has_its_nodes_alone_and_leaves_them_to_others_afterwards() -> None:
    sim = Simulation()
    nodes = [sim.add_manager(slots=4, block="b") for _ in range(3)]
    wide = sim.submit(10.0, request=TWO)
    sim.run_for(1.0)
    small = sim.submit_many([Plan(1.0)] * 8)
    sim.run_for(5.0)
    lead = next(node for node, task in sim.running_on if task == wide.id)
    (third,) = {node for node, task in sim.running_on if task != wide.id}
    assert lead != third
    assert all(future.status is Status.OK for future in small)
    sim.submit_many([Plan(20.0)] * 12)
    sim.run_for(10.0)
    assert {node for node, _ in sim.running_on} >= {lead, third}
    busy = [[worker for worker in node.workers.values() if worker.current] for node in nodes]
    assert [len(workers) for workers in busy] == [4, 4, 4]
    sim.run()
    sim.settle()


def test_small_tasks_do_not_starve_a_multi_node_one() -> None:
    sim = Simulation()
    for _ in range(2):
        sim.add_manager(slots=2, block="b")
    sim.submit_many([Plan(3.0)] * 40, request=Request(runtime_s=5.0))
    wide = sim.submit(1.0, request=Request(num_nodes=2, runtime_s=6.0))
    sim.run(until=lambda: wide.status is not None, limit_s=20.0)
    assert wide.status is Status.OK
    sim.run()
    sim.settle()


def test_nodes_of_different_blocks_do_not_make_a_multi_node_task() -> None:
    sim = Simulation()
    sim.add_manager(block="a")
    sim.add_manager(block="b")
    wide = sim.submit(1.0, request=TWO)
    sim.run_for(60.0)
    assert wide.status is None
    sim.add_manager(block="b")
    sim.run()
    sim.settle()


@pytest.mark.parametrize("which", ["lead", "member"])
def test_losing_one_node_ends_the_attempt_and_the_task_runs_again_on_others(which: str) -> None:
    sim = Simulation()
    nodes = {node.name: node for node in (sim.add_manager(block="b") for _ in range(3))}
    wide = sim.submit(100.0, request=TWO)
    sim.run(until=lambda: any(task == wide.id for _, task in sim.running_on))
    lead = nodes[sim.running_on[-1][0]]
    (gang,) = sim.interchange.exchange.scheduler.gangs.by_task.values()
    member = nodes[next(manager.node for manager in gang.managers if manager.node != lead.name)]
    (lead if which == "lead" else member).die()
    sim.run(until=lambda: sim.begun[wide.id] == 2, limit_s=90.0)
    sim.run()
    assert wide.status is Status.OK
    sim.settle()


def test_a_multi_node_task_can_be_cancelled_before_and_after_it_has_started() -> None:
    sim = Simulation()
    for _ in range(2):
        sim.add_manager(block="b")
    waiting_for_answers = sim.submit(10.0, request=TWO)
    sim.run(until=lambda: bool(sim.interchange.exchange.scheduler.gangs.by_task))
    sim.client.cancel([waiting_for_answers.id], running=True)
    sim.settle()
    running = sim.submit(10.0, request=TWO)
    sim.run(until=lambda: sim.begun[running.id] == 1)
    sim.client.cancel([running.id], running=True)
    sim.settle()
    after = sim.submit(1.0, request=TWO)
    assert sim.run() < 3.0
    assert after.status is Status.OK


def test_a_restart_of_the_interchange_keeps_a_running_multi_node_task() -> None:
    sim = Simulation()
    for _ in range(2):
        sim.add_manager(block="b")
    wide = sim.submit(10.0, request=TWO)
    sim.run(until=lambda: sim.begun[wide.id] == 1)
    sim.interchange.restart()
    sim.run()
    assert wide.status is Status.OK
    assert sim.begun[wide.id] == 1
    sim.settle()


@pytest.mark.parametrize("seed", range(15))
def test_multi_node_and_single_node_tasks_all_end_once_while_nodes_come_and_go(seed: int) -> None:
    sim = Simulation(seed=seed, faults=Faults(drop=0.02, duplicate=0.02, delay_s=(0.0, 0.05)))
    for number in range(6):
        sim.add_manager(slots=2, block=f"b{number % 2}")
    futures = sim.submit_many([Plan(0.5)] * 40, crash_limit=50)
    futures += sim.submit_many([Plan(1.0)] * 12, request=TWO, crash_limit=50)
    futures += sim.submit_many([Plan(1.0)] * 6, request=Request(num_nodes=3), crash_limit=50)
    for step in range(3):
        sim.run_for(2.0)
        victim = f"m{1 + (seed + step) % 6}"
        sim.managers[victim].die()
        sim.add_manager(slots=2, block=sim.managers[victim].block)
    sim.run()
    assert all(future.status is Status.OK for future in futures)
    sim.settle()
