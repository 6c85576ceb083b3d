"""What a run does, by sentence: the real cores in the simulator."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from pilotflow.core import outbox
from pilotflow.messages.client import DrainBlocks, FailExecutor, ManagerDown, Notice
from pilotflow.messages.records import Status
from pilotflow.resources import Request
from pilotflow.testing.simulator import Faults, How, Plan, Simulation


def history(payload: bytes) -> list[str]:
    return msgspec.msgpack.decode(payload, type=list[str])


def test_depth_limited_managers_that_run_more_than_their_nodes_have_say_so_once() -> None:
    sim = Simulation()
    for _ in range(3):
        sim.add_manager(slots=3, cpus=2, memory_bytes=8 << 30, depth_limited=True)
    sim.submit_many([Plan(1.0)] * 27, request=Request(memory_bytes=3 << 30))
    sim.run()
    (notice,) = [event for event in sim.client.events if isinstance(event, Notice)]
    assert "ask for 3 cores of 2 and 9 GiB of 8 GiB" in notice.text
    assert "max_parallel_jobs of executor 'cpu'" in notice.text


def test_a_thousand_short_tasks_end_and_nothing_is_left_over() -> None:
    sim = Simulation()
    sim.add_manager(slots=4)
    futures = sim.submit_many([Plan(0.001)] * 1000)
    sim.run()
    sim.settle()
    assert all(future.status is Status.OK for future in futures)
    assert all(sim.begun[future.id] == 1 for future in futures)


def test_tasks_run_on_the_executors_they_are_bound_to() -> None:
    sim = Simulation()
    for executor in ("cpu", "gpu", "cpu"):
        sim.add_manager(slots=2, executor=executor)
    free = sim.submit_many([Plan(1.0)] * 20)
    bound = sim.submit_many([Plan(1.0)] * 20, executors=("gpu",))
    sim.run()
    on = {task: manager for manager, task in sim.running_on}
    assert {on[future.id] for future in bound} == {"m2"}
    assert {on[future.id] for future in free} > {"m1", "m3"}


def test_a_task_bound_to_an_executor_waits_for_it_while_others_idle() -> None:
    sim = Simulation()
    sim.add_manager(executor="cpu")
    future = sim.submit(executors=("gpu",))
    sim.run_for(100.0)
    assert future.status is None
    sim.add_manager(executor="gpu")
    sim.run()
    assert future.status is Status.OK


def test_a_depth_limited_manager_runs_exactly_so_many_and_ignores_requests() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=3, cpus=1, depth_limited=True)
    sim.submit_many([Plan(10.0)] * 10, request=Request(cpus_milli=64_000, memory_bytes=1 << 50, gpus_milli=8000))
    sim.run_for(5.0)
    assert len([worker for worker in manager.workers.values() if worker.current]) == 3
    assert sim.run() == pytest.approx(35.0, abs=1.0)


def test_tasks_of_two_cores_never_share_more_cores_than_there_are() -> None:
    sim = Simulation()  # its invariants look at free cores after each step
    sim.add_manager(slots=4)
    sim.submit_many([Plan(1.0)] * 6, request=Request(cpus_milli=2000))
    took = sim.run()
    assert took == pytest.approx(3.0, abs=0.5)


def test_small_work_fills_what_big_work_cannot_use() -> None:
    sim = Simulation()
    sim.add_manager(slots=4)
    sim.submit_many([Plan(4.0)] * 2, request=Request(cpus_milli=3000))
    sim.submit_many([Plan(1.0)] * 8)
    assert sim.run() == pytest.approx(8.0, abs=0.5)


def test_work_of_higher_priority_goes_first() -> None:
    sim = Simulation()
    sim.submit_many([Plan(1.0)] * 5)
    urgent = sim.submit_many([Plan(1.0)] * 5, request=Request(priority=10))
    sim.add_manager(slots=1)
    sim.run()
    assert [task for _, task in sim.running_on][:5] == [future.id for future in urgent]


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


# ---- sending ahead ------------------------------------------------------------------------------


def test_only_short_functions_are_sent_ahead() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=2)
    sim.submit_many([Plan(2.0)] * 4, function="long")
    sim.submit_many([Plan(0.001)] * 4, function="short")
    sim.run()
    sim.submit_many([Plan(2.0)] * 20, function="long")
    sim.run_for(1.0)
    assert len(manager.pool.held()) == 2
    sim.run()
    sim.submit_many([Plan(0.001)] * 500, function="short")
    sim.run_for(0.004)
    assert len(manager.pool.held()) > 50
    sim.run()


def test_no_task_waits_behind_a_long_one_while_another_worker_of_its_manager_idles() -> None:
    sim = Simulation()
    sim.add_manager(slots=2)
    sim.submit_many([Plan(0.0002)] * 200)
    sim.run()
    # It was short every time, and now is not: what was sent ahead behind it is taken back.
    long = sim.submit(100.0)
    short = sim.submit_many([Plan(0.0002)] * 60)
    took = sim.run(until=lambda: all(future.status is not None for future in short))
    assert took < 1.0
    assert long.status is None
    sim.run()
    assert set(sim.begun.values()) == {1}


def test_what_was_sent_ahead_goes_to_another_manager_that_idles() -> None:
    sim = Simulation()
    sim.add_manager(slots=1)
    sim.submit_many([Plan(0.0002)] * 200)
    sim.run()
    futures = sim.submit_many([Plan(10.0)] * 20)  # sent ahead in good faith
    sim.run_for(0.5)
    assert len(sim.managers["m1"].pool.held()) == 20
    sim.add_manager(slots=19)
    took = sim.run()
    assert took < 25.0
    assert all(sim.begun[future.id] == 1 for future in futures)
    assert Counter(manager for manager, _ in sim.running_on[-20:])["m2"] >= 18


# ---- hopeless -----------------------------------------------------------------------------------


def test_a_failed_executor_fails_exactly_what_can_run_nowhere_else() -> None:
    sim = Simulation()
    bound = sim.submit_many([Plan()] * 3, executors=("gpu",))
    either = sim.submit(executors=("gpu", "cpu"))
    free = sim.submit()
    sim.client.say(FailExecutor("gpu", "Slurm rejected block 3: invalid partition"))
    late = sim.submit(executors=("gpu",))
    sim.run(until=lambda: late.status is not None)
    assert {future.status for future in [*bound, late]} == {Status.UNSTARTABLE}
    assert history(late.payload) == ["Slurm rejected block 3: invalid partition"]
    assert either.status is None
    assert free.status is None
    sim.add_manager(executor="cpu")
    sim.run()
    assert either.status is free.status is Status.OK


def test_a_failed_executor_serves_while_it_has_managers_and_its_tasks_fail_when_the_last_leaves() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=1, executor="gpu")
    sim.client.say(FailExecutor("gpu", "no more blocks"))
    futures = sim.submit_many([Plan(10.0)] * 3, executors=("gpu",))
    sim.run_for(15.0)
    assert [future.status for future in futures] == [Status.OK, None, None]
    manager.leave("its block's walltime is over")
    sim.run()
    assert [future.status for future in futures[1:]] == [Status.UNSTARTABLE, Status.UNSTARTABLE]
    sim.settle()


def test_when_every_executor_has_failed_unbound_work_fails_unless_somebody_is_there() -> None:
    sim = Simulation()
    manager = sim.add_manager(slots=1)
    for executor in ("cpu", "*"):
        sim.client.say(FailExecutor(executor, "no more blocks"))
    runs, waits = sim.submit_many([Plan(10.0)] * 2)
    too_big = sim.submit(request=Request(cpus_milli=9000))
    sim.run_for(5.0)
    assert too_big.status is Status.UNSTARTABLE
    assert runs.status is waits.status is None
    manager.die()
    sim.interchange.hang_up(manager.name)
    sim.run()
    assert runs.status is waits.status is Status.UNSTARTABLE


# ---- cancels ------------------------------------------------------------------------------------


def test_a_cancel_of_queued_leased_running_finished_and_unknown_tasks_is_always_answered() -> None:
    sim = Simulation()
    sim.add_manager(slots=1)
    sim.submit_many([Plan(0.0002)] * 200)
    finished = sim.submit()
    sim.run()
    running = sim.submit(50.0)
    sim.run_for(0.1)
    ahead = sim.submit_many([Plan(5.0)] * 5)  # leased, behind the running one
    queued = sim.submit_many([Plan(1.0)] * 5, request=Request(cpus_milli=9000))
    sim.run_for(0.1)
    sim.client.cancel([f.id for f in (running, *ahead, *queued)], running=False)
    sim.run(until=lambda: not sim.client.unanswered)
    assert running.cancel_answers == [False]
    assert all(future.cancel_answers == [True] for future in (*ahead, *queued))
    assert all(sim.begun[future.id] == 0 for future in (*ahead, *queued))
    assert finished.status is Status.OK
    sim.run()
    assert running.status is Status.OK
    sim.settle()


def test_a_running_task_is_ended_by_a_cancel_that_says_so_and_only_it() -> None:
    sim = Simulation()
    sim.add_manager(slots=2)
    victim, other = sim.submit_many([Plan(50.0), Plan(5.0)], crash_limit=1)
    sim.run_for(1.0)
    sim.client.cancel([victim.id], running=True)
    after = sim.submit(1.0)
    sim.run()
    assert victim.status is Status.CANCELLED
    assert other.status is after.status is Status.OK
    sim.settle(5.0)


def test_cancels_of_tasks_whose_manager_is_lost_meanwhile_are_answered() -> None:
    sim = Simulation(heartbeat_limit_s=10.0)
    manager = sim.add_manager()
    future = sim.submit(50.0)
    sim.run_for(1.0)
    manager.freeze()
    sim.client.cancel([future.id], running=False)
    sim.run(until=lambda: not sim.client.unanswered)
    assert future.cancel_answers == [True]
    sim.settle()


def test_tasks_that_wait_for_managers_after_a_restart_can_be_cancelled() -> None:
    sim = Simulation(heartbeat_limit_s=20.0)
    sim.add_manager()
    killed, asked = sim.submit_many([Plan(50.0)] * 2)
    sim.run_for(1.0)
    sim.managers["m1"].freeze()
    sim.interchange.restart()
    sim.run_for(5.0)
    sim.client.cancel([killed.id], running=True)
    sim.client.cancel([asked.id], running=False)
    sim.run(until=lambda: not sim.client.unanswered)
    assert asked.cancel_answers == [False]  # for all that is known it may be running
    sim.add_manager()
    sim.run(until=lambda: asked.status is not None)
    sim.settle(60.0)


def test_a_hundred_thousand_queued_tasks_are_cancelled_at_once() -> None:
    sim = Simulation(check=False)
    futures = sim.submit_many([Plan(1.0)] * 100_000)
    sim.client.cancel([future.id for future in futures], running=False)
    sim.run()
    assert {future.status for future in futures} == {Status.CANCELLED}
    exchange = sim.interchange.exchange
    assert not exchange.scheduler.tasks
    assert sum(len(cls.queue) for cls in exchange.scheduler.classes.values()) < 1000  # nor the marks of them
    sim.run_for(6.0)
    assert all(load.queued == 0 for load in sim.client.loads[-1].executors)


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


# ---- flow control -------------------------------------------------------------------------------


def test_a_client_that_stands_still_bounds_what_is_kept_for_it_and_gets_everything_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "RESULTS_MAX", 2000)
    sim = Simulation(check=False)
    sim.add_manager(slots=8)
    sim.submit_many([Plan(0.0005)] * 100)
    sim.run()
    futures = sim.submit_many([Plan(0.0005)] * 20_000)
    sim.run_for(0.05)
    sim.client.stall()
    sim.run_for(60.0)
    kept = sim.interchange.exchange.outbox.unacknowledged
    assert 2000 < kept < 2000 + 8 * 130
    assert len(sim.interchange.exchange.scheduler.tasks) > 10_000
    sim.client.resume()
    sim.run()
    assert {future.status for future in futures} == {Status.OK}
    assert set(sim.begun.values()) == {1}


def test_a_gigabyte_of_results_that_nobody_takes_stops_new_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BYTES_MAX", 1 << 20)
    sim = Simulation()
    sim.add_manager(slots=1)
    sim.client.stall()
    sim.client.resume()
    futures = sim.submit_many([Plan(0.01, result_bytes=1 << 18)] * 40)
    sim.run_for(0.03)
    sim.client.stall()
    sim.run_for(60.0)
    assert sim.interchange.exchange.outbox.full
    assert sum(sim.begun.values()) < 12
    sim.client.resume()
    sim.run()
    assert {future.status for future in futures} == {Status.OK}


def test_a_lossy_network_changes_nothing_but_the_time(record_property: object) -> None:
    for seed in range(5):
        sim = Simulation(seed, Faults(drop=0.2, duplicate=0.2, delay_s=(0.0, 1.0)))
        sim.add_manager(slots=4)
        futures = sim.submit_many([Plan(0.1)] * 50)
        sim.run()
        assert {future.status for future in futures} == {Status.OK}
        assert set(sim.begun.values()) == {1}
