"""What a run does when managers and workers are lost, leave, or find their interchange anew, by sentence."""

from __future__ import annotations

import msgspec
import pytest

from pilotflow.messages.client import DrainBlocks, ManagerDown
from pilotflow.messages.records import Status
from pilotflow.resources import Request
from pilotflow.testing.simulator import How, Plan, Simulation


def history(payload: bytes) -> list[str]:
    return msgspec.msgpack.decode(payload, type=list[str])


# ---- losses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_task_that_kills_its_worker_is_given_up_after_its_crash_limit_with_the_history(limit: int) -> None:
    sim = Simulation()
    sim.add_manager(slots=2)
    poison = sim.submit(0.1, How.CRASH, crash_limit=limit)
    others = sim.submit_many([Plan(0.1)] * 50)
    sim.run()
    assert poison.status is Status.LOST
    assert sim.begun[poison.id] == limit
    lines = history(poison.payload)
    assert len(lines) == limit
    assert lines[-1] == f"attempt {limit}: worker on m1 (block block-m1) was killed by signal 11 (SIGSEGV)"
    assert all(future.status is Status.OK and sim.begun[future.id] == 1 for future in others)


def test_a_lost_manager_counts_as_a_crash_of_what_it_might_have_run() -> None:
    sim = Simulation(heartbeat_limit_s=10.0)
    manager = sim.add_manager()
    once = sim.submit(100.0, crash_limit=1)
    again = sim.submit(1.0, crash_limit=2)
    sim.run_for(1.0)
    manager.die()
    sim.add_manager()
    sim.run()
    assert once.status is Status.LOST
    assert "manager on m1 (block block-m1) lost: not heard of for" in history(once.payload)[0]
    assert again.status is Status.OK
    assert sim.begun[again.id] == 1


def test_a_manager_that_was_only_silent_costs_no_attempt_once_it_is_back() -> None:
    sim = Simulation(heartbeat_limit_s=10.0)
    manager = sim.add_manager()
    future = sim.submit(100.0, crash_limit=2)
    for _ in range(5):  # its block is suspended and resumed
        sim.run_for(5.0)
        manager.freeze()
        sim.run_for(30.0)
        manager.thaw()
    sim.run()
    assert future.status is Status.OK


def test_tasks_that_may_not_run_twice_are_not_sent_ahead() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=2)
    sim.submit_many([Plan(0.001)] * 10)
    sim.run()
    sim.submit_many([Plan(0.001)] * 100, crash_limit=1)
    most = 0
    while sim.client.graph.pending:
        most = max(most, len(manager.pool.held()))
        sim.clock.step()
    assert most <= 2


def test_a_manager_that_was_given_up_and_comes_back_is_told_to_cancel_and_its_result_is_dropped() -> None:
    sim = Simulation(heartbeat_limit_s=10.0)
    first = sim.add_manager()
    future = sim.submit(30.0)
    sim.run_for(5.0)
    first.freeze()
    sim.add_manager()
    sim.run_for(20.0)  # lost, and begun elsewhere
    assert sim.begun[future.id] == 2
    first.thaw()
    sim.run_for(2.0)
    assert first.registrations == 2
    assert not first.pool.held()
    sim.run()
    assert len(future.attempts) == 1
    sim.settle()


def test_results_that_a_given_up_manager_has_ready_are_dropped() -> None:
    sim = Simulation(heartbeat_limit_s=10.0)
    first = sim.add_manager()
    future = sim.submit(12.0)
    sim.run_for(5.0)
    first.freeze()  # its worker goes on and ends
    sim.run_for(30.0)
    first.thaw()
    sim.run()
    assert sim.begun[future.id] == 2
    assert len(future.attempts) == 1
    assert future.attempts[0] & 0xFFFFF == 2


def test_a_manager_that_is_cut_off_for_a_moment_loses_nothing() -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(slots=4)
    futures = sim.submit_many([Plan(0.5)] * 40, crash_limit=1)
    sim.run_for(1.0)
    sim.network.cut.add(manager.name)
    sim.run_for(10.0)
    sim.network.cut.clear()
    sim.run()
    assert {future.status for future in futures} == {Status.OK}


def test_a_planned_leave_costs_nothing() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=2)
    futures = sim.submit_many([Plan(10.0)] * 4, crash_limit=2)
    for _ in range(5):  # more often than the crash limit
        sim.run_for(2.0)
        manager.leave("its block's walltime is over")
        manager = sim.add_manager(slots=2)
    sim.run()
    assert {future.status for future in futures} == {Status.OK}


def test_what_may_run_once_and_had_begun_is_not_tried_again_after_a_planned_leave() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=1)
    begun, waiting = sim.submit_many([Plan(10.0)] * 2, crash_limit=1)
    sim.run_for(2.0)
    manager.leave("its block's walltime is over")
    sim.add_manager()
    sim.run()
    assert begun.status is Status.LOST
    assert "ended while it ran: its block's walltime is over" in history(begun.payload)[0]
    assert waiting.status is Status.OK


def test_a_drained_block_ends_what_it_runs_takes_nothing_new_and_goes() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=2)
    futures = sim.submit_many([Plan(5.0)] * 4)
    sim.run_for(1.0)
    sim.client.say(DrainBlocks([manager.block]))
    sim.run_for(10.0)
    assert [future.status for future in futures] == [Status.OK, Status.OK, None, None]
    assert not manager.alive
    assert [event.planned for event in sim.client.events if isinstance(event, ManagerDown)] == [True]
    sim.add_manager()
    sim.run()
    assert set(sim.begun.values()) == {1}


def test_no_task_starts_that_its_block_would_not_outlive() -> None:
    sim = Simulation()
    sim.add_manager(walltime_s=100.0)
    long = sim.submit(50.0, request=Request(runtime_s=200.0))
    short = sim.submit(5.0, request=Request(runtime_s=10.0))
    sim.run(until=lambda: short.status is not None)
    assert sim.begun[long.id] == 0
    sim.add_manager(walltime_s=1000.0)
    sim.run()
    assert long.status is Status.OK


# ---- restarts -----------------------------------------------------------------------------------


def test_a_restarted_interchange_finds_what_runs_and_nothing_runs_twice() -> None:
    sim = Simulation(heartbeat_limit_s=20.0)
    sim.add_manager(slots=2)
    sim.add_manager(slots=2)
    futures = sim.submit_many([Plan(15.0)] * 4, crash_limit=1)
    sim.run_for(5.0)
    sim.interchange.restart()
    took = sim.run()
    assert took < 15.0
    assert {future.status for future in futures} == {Status.OK}
    assert set(sim.begun.values()) == {1}
    sim.settle(60.0)


def test_results_that_were_not_acknowledged_survive_a_restart() -> None:
    sim = Simulation(heartbeat_limit_s=20.0)
    sim.add_manager(slots=2)
    futures = sim.submit_many([Plan(1.0)] * 2, crash_limit=1)
    sim.run_for(0.5)
    sim.network.cut.add("client")  # the results reach the interchange, and no farther
    sim.run_for(5.0)
    sim.interchange.restart()
    sim.network.cut.clear()
    sim.run()
    assert {future.status for future in futures} == {Status.OK}
    assert set(sim.begun.values()) == {1}


def test_what_was_queued_at_a_restart_runs_after_the_grace() -> None:
    sim = Simulation(heartbeat_limit_s=20.0)
    sim.add_manager(slots=1)
    futures = sim.submit_many([Plan(3.0)] * 5, crash_limit=2)
    sim.run_for(1.0)
    sim.interchange.restart()
    sim.run()
    assert {future.status for future in futures} == {Status.OK}
    assert set(sim.begun.values()) == {1}


def test_a_restart_does_not_forget_how_often_a_task_has_crashed() -> None:
    sim = Simulation(heartbeat_limit_s=20.0)
    sim.add_manager(slots=1)
    poison = sim.submit(3.0, How.CRASH, crash_limit=4)
    sim.run(until=lambda: sim.begun[poison.id] == 3)
    sim.run_for(0.5)
    sim.interchange.restart()
    sim.run()
    assert poison.status is Status.LOST
    assert sim.begun[poison.id] == 4
    lines = history(poison.payload)
    assert [line.partition(":")[0] for line in lines] == [f"attempt {n}" for n in (1, 2, 3, 4)]
    assert all("was killed by signal 11 (SIGSEGV)" in line for line in lines)
    sim.settle(60.0)


def test_a_task_that_kills_its_workers_does_not_live_on_restarts() -> None:
    """Restarts charge it with what it might have run unseen, so it may end sooner, never later."""
    for seed in range(20):
        sim = Simulation(seed, heartbeat_limit_s=8.0)
        sim.add_manager(slots=2)
        poison = sim.submit(2.0, How.CRASH, crash_limit=5)
        while poison.status is None:
            sim.run_for(sim.random.uniform(0.0, 10.0))
            sim.interchange.restart()
        assert poison.status is Status.LOST
        assert sim.begun[poison.id] <= 5
        assert len(history(poison.payload)) == 5


def test_what_a_lost_manager_had_is_remembered_too() -> None:
    sim = Simulation(heartbeat_limit_s=10.0)
    first = sim.add_manager(slots=1)
    poison = sim.submit(5.0, How.CRASH, crash_limit=2)
    sim.run_for(1.0)
    first.die()
    sim.run_for(15.0)  # it is given up; nobody is there who could remember
    sim.interchange.restart()
    sim.run_for(1.0)
    sim.add_manager(slots=1)
    sim.run()
    lines = history(poison.payload)
    assert "manager on m1 (block block-m1) lost: not heard of for" in lines[0]
    assert "the interchange was restarted" in lines[1]
    assert sim.begun[poison.id] == 1
