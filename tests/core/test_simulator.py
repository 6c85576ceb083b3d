"""What a run does, by sentence: the real cores in the simulator."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from pilotflow.core import outbox
from pilotflow.messages.client import FailExecutor, Notice
from pilotflow.messages.records import Status
from pilotflow.resources import Request
from pilotflow.testing.simulator import Faults, Plan, Simulation


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
    assert msgspec.msgpack.decode(late.payload) == ["Slurm rejected block 3: invalid partition"]
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
