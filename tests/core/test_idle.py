"""What has nothing to do sleeps: nothing is sent but signs of life, and nobody looks at what cannot have changed."""

from __future__ import annotations

import logging
from math import inf

import pytest

from pilotflow.core.beats import beat_s, next_beat
from pilotflow.core.block_records import DrainBlock
from pilotflow.core.block_state import LOST_S
from pilotflow.core.blocks import LOOK_S
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.messages.client import DrainBlocks
from pilotflow.messages.records import Status
from pilotflow.providers.local import LocalProvider
from pilotflow.resources import Request
from pilotflow.runtime.kept import Kept, KeptExecutor
from pilotflow.runtime.loop import Loop
from pilotflow.testing.simulator import Simulation
from pilotflow.testing.simulator_manager import Plan
from tests.core.blocks_bench import LIMITS, Bench
from tests.core.elastic_site import Cluster, Site

# ---- signs of life --------------------------------------------------------------------------


@pytest.mark.parametrize("limit_s", [30.0, 10.0, 7.0, 1 / 3])
def test_processes_of_a_host_say_that_they_are_alive_at_the_same_moments(limit_s: float) -> None:
    period_s = beat_s(limit_s)
    first = second = 12_345.678
    second += 0.4 * period_s
    for _ in range(1000):
        before = first
        first, second = next_beat(first, period_s), next_beat(second, period_s)
        assert before < first <= before + 2 * period_s
    assert abs(first - second) in (pytest.approx(0.0, abs=1e-6), pytest.approx(period_s))


def test_an_idle_run_sends_signs_of_life_and_nothing_else() -> None:
    assert letters_of_an_idle_run(local=False) == pytest.approx((3000 / 300 + 1) + (3000 / 10 + 1), abs=4)


def test_on_one_host_an_idle_run_says_nothing_for_minutes() -> None:
    assert letters_of_an_idle_run(local=True) == pytest.approx(2 * (3000 / 300 + 1), abs=4)


def letters_of_an_idle_run(*, local: bool) -> float:
    """Signs of life of the client and a manager in 3000 s."""
    sim = Simulation(heartbeat_limit_s=30.0)
    sim.add_manager(slots=2, local=local)
    sim.submit_many([Plan(1.0)] * 10)
    sim.run()
    sim.run_for(60.0)  # the last load has been told
    loads, carried = len(sim.client.loads), sim.network.carried
    sim.run_for(3000.0)
    assert len(sim.client.loads) == loads
    return (sim.network.carried - carried) / 2  # each is answered


@pytest.mark.parametrize("local", [False, True])
def test_an_interchange_looks_for_silent_managers_when_one_can_be_silent_for_too_long(local: bool) -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(local=local)
    sim.run_for(100.0)
    exchange = sim.interchange.exchange
    looks = set()
    for _ in range(6000):
        sim.run_for(0.1)
        looks.add(exchange._check_at)
    assert len(looks) <= 600 / 20 + 1
    manager.freeze()
    frozen_at = sim.now
    sim.run(until=lambda: not exchange.peers)
    assert 20.0 <= sim.now - frozen_at <= 30.0 * 9 / 8


# ---- a manager on the interchange's host, which says nothing while it has nothing --------------


def test_a_manager_that_was_given_up_at_rest_is_back_as_soon_as_it_goes_on() -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(local=True)
    sim.run_for(100.0)
    for _ in range(3):
        before = manager.registrations
        manager.freeze()
        sim.run(until=lambda: not sim.interchange.exchange.peers)
        sim.run_for(1000.0)
        manager.thaw()
        sim.run_for(0.1)
        assert manager.registrations > before
        assert sim.interchange.exchange.peers
    future = sim.submit(1.0)
    sim.run()
    assert future.status is Status.OK


def test_a_manager_that_stands_still_for_less_than_the_limit_is_not_given_up() -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(local=True)
    for _ in range(20):
        sim.run_for(43.0)
        manager.freeze()
        sim.run_for(19.0)
        manager.thaw()
    assert manager.registrations == 1


@pytest.mark.parametrize("rested_s", [0.0, 5.0, 100.0, 299.0])
def test_what_is_given_to_one_that_has_frozen_at_rest_runs_elsewhere_after_the_limit(rested_s: float) -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(local=True)
    sim.run_for(20.0 + rested_s)
    manager.freeze()
    future = sim.submit(1.0)
    sim.add_manager(local=True, executor="other")
    took = sim.run(until=lambda: len(sim.interchange.exchange.peers) == 1)
    assert took <= 30.0 + 10.0
    sim.run()
    assert future.status is Status.OK


@pytest.mark.parametrize("rested_s", [0.0, 5.0, 100.0, 299.0])
def test_one_that_is_given_something_after_a_rest_says_again_that_it_is_there(rested_s: float) -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(local=True)
    sim.run_for(20.0 + rested_s)
    future = sim.submit(200.0, crash_limit=1)  # it would fail if its manager were given up
    sim.run()
    assert (future.status, manager.registrations) == (Status.OK, 1)


def test_nodes_of_a_multi_node_task_are_not_given_up_while_it_runs_on_the_first_of_them() -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    managers = [sim.add_manager(local=True, block="one") for _ in range(3)]
    sim.run_for(100.0)
    future = sim.submit(500.0, request=Request(num_nodes=3), crash_limit=1)
    sim.run()
    assert (future.status, [manager.registrations for manager in managers]) == (Status.OK, [1, 1, 1])


@pytest.mark.parametrize("local", [False, True])
def test_one_that_has_its_node_ready_for_a_multi_node_task_is_not_given_up_with_another_one(local: bool) -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    leader, other = sim.add_manager(local=local, block="one"), sim.add_manager(block="one")
    sim.add_manager(block="one")
    sim.run_for(100.1)
    other.freeze()
    sim.run_for(3.0)
    future = sim.submit(5.0, request=Request(num_nodes=2))
    assert sim.run() < 40.0
    assert (future.status, leader.registrations) == (Status.OK, 1)


@pytest.mark.parametrize("local", [False, True])
def test_one_that_drains_and_has_results_which_nobody_takes_is_not_given_up(local: bool) -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(local=local)
    future = sim.submit(100.0)
    sim.run_for(2.0)
    sim.client.say(DrainBlocks([manager.block]))
    sim.run_for(1.0)
    sim.client.stall()
    sim.run_for(250.0)
    assert (manager.alive, manager.registrations) == (True, 1)
    assert sim.interchange.exchange.peers
    sim.client.resume()
    sim.run()
    assert (future.status, sim.begun[future.id]) == (Status.OK, 1)


def test_one_that_was_waited_for_says_that_it_is_there_as_soon_as_it_goes_on() -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    manager = sim.add_manager(local=True)
    sim.run_for(100.1)
    manager.freeze()
    sim.run_for(2.0)
    future = sim.submit(10.0, crash_limit=1)
    sim.run_for(58.0)
    manager.thaw()
    sim.run()
    assert (future.status, sim.begun[future.id]) == (Status.OK, 1)


def test_an_interchange_that_takes_the_place_of_another_finds_those_at_rest() -> None:
    sim = Simulation(heartbeat_limit_s=30.0)
    sim.add_manager(local=True)
    sim.run_for(100.0)
    sim.interchange.restart()
    sim.run_for(0.1)
    assert sim.interchange.exchange.peers


# ---- blocks ---------------------------------------------------------------------------------


def test_nothing_is_due_at_idle_blocks_that_are_kept() -> None:
    bench = Bench(init_blocks=0, min_blocks=2)
    bench.working(2)
    bench.load(cpu_0=0, cpu_1=0)
    assert bench.decide() == []
    assert bench.scaler.due_at(bench.now) == inf


def test_an_idle_block_is_next_looked_at_when_it_may_go() -> None:
    bench = Bench(max_idletime_s=10.0, min_life_s=25.0)
    (name,) = bench.working()
    joined = bench.now
    bench.now += 3
    bench.load(cpu_0=0)
    assert bench.scaler.due_at(bench.now) == joined + 25
    bench.now += 20
    bench.load(cpu_0=1)
    assert bench.scaler.due_at(bench.now) == inf  # somebody will say that it is idle again
    bench.now += 10
    bench.load(cpu_0=0)
    assert bench.scaler.due_at(bench.now) == bench.now + 10
    bench.now += 10
    assert bench.decide() == [DrainBlock(name)]
    assert bench.scaler.due_at(bench.now) <= bench.now + LOOK_S


def test_blocks_are_looked_at_often_while_something_waits_or_is_under_way() -> None:
    bench = Bench()
    assert bench.scaler.due_at(bench.now) <= bench.now + LOOK_S  # the first block is to be requested
    bench.working()
    bench.load(queued=5, cpu_0=2)
    assert bench.scaler.due_at(bench.now) <= bench.now + LOOK_S
    bench.load(cpu_0=2)
    bench.down("cpu-0")
    assert bench.scaler.due_at(bench.now) <= bench.now + LOOK_S
    bench.decide(LOST_S)
    assert bench.scaler.due_at(bench.now) <= bench.now + LOOK_S


def test_a_run_whose_blocks_are_looked_at_when_something_is_due_sleeps_when_idle_and_ends_them_in_time() -> None:
    site = Site(Cluster("cpu", limits={"max_idletime_s": 300.0}))
    site.sim.submit_many([Plan(1.0)] * 20)
    site.sim.run()
    site.sim.run_for(20.0)
    ended, looks = site.sim.now, len(site.looks)
    site.sim.run_for(250.0)
    assert len(site.looks) - looks <= 2
    site.idle_down(300.0)
    assert all(280 < at - ended + 20 < 302 for at, _ in site.drains)


# ---- asking providers -----------------------------------------------------------------------


def kept(bench: Bench, walltime: float | None = None) -> Kept:
    provider = LocalProvider(walltime=walltime)
    executor = KeptExecutor("cpu", provider, SingleNodeLauncher(), lambda block: [block], LIMITS)
    return Kept(executor, bench.scaler, Loop(), logging.getLogger("test.idle"))


def test_a_block_that_waits_in_a_queue_for_weeks_is_asked_about_as_ever() -> None:
    bench = Bench()
    bench.submit(*bench.requested())
    its = kept(bench)
    its.polled_at, its.quiet = bench.now, 60_000
    assert bench.now < its.polls_at(bench.now) <= bench.now + its.executor.provider.poll_s


def test_a_provider_is_asked_when_the_walltime_of_a_block_is_over_and_often_from_then_on() -> None:
    bench = Bench(walltime_s=600.0)
    bench.working()
    its = kept(bench, 600.0)
    started = bench.now
    its.polled_at = started + 590
    assert its.polls_at(started + 590) == started + 600
    its.polled_at = started + 600
    assert its.polls_at(started + 600) == started + 600 + its.executor.provider.quick_poll_s


def test_a_provider_is_asked_seldom_about_blocks_that_work() -> None:
    bench = Bench()
    bench.working()
    its = kept(bench)
    its.polled_at = bench.now
    assert its.polls_at(bench.now) == bench.now + 60
    its.look_soon()
    assert its.polls_at(bench.now) <= bench.now
