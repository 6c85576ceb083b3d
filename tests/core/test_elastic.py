"""Whole runs that grow and shrink: the real queue and the real scalers, on simulated batch systems."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from pilotflow.core.block_records import Phase
from pilotflow.messages.records import Status
from pilotflow.resources import NodeShape, Request
from pilotflow.testing.simulator import Plan, SimFuture
from tests.core.elastic_site import Cluster, Site

GIB = 1 << 30


def words(future: SimFuture) -> str:
    return "\n".join(msgspec.msgpack.decode(future.payload, type=list[str]))


def all_ok(futures: list[SimFuture]) -> bool:
    return {future.status for future in futures} == {Status.OK}


# ---- by shape -------------------------------------------------------------------------------


def test_work_of_two_kinds_brings_blocks_of_two_kinds_as_many_as_it_needs() -> None:
    site = Site(Cluster("cpu", cores=8), Cluster("gpu", cores=8, gpus=2))
    plain = site.sim.submit_many([Plan(60.0)] * 24, request=Request(memory_bytes=0), executors=("cpu",))
    on_gpus = site.sim.submit_many([Plan(60.0)] * 4, request=Request(gpus_milli=1000))
    site.sim.run()
    assert all_ok([*plain, *on_gpus])
    assert (site.requested("cpu"), site.requested("gpu")) == (3, 2)


def test_work_for_any_executor_does_not_make_all_of_them_grow() -> None:
    site = Site(*(Cluster(label, told=NodeShape(cpus_milli=4000)) for label in ("a", "b", "c")))
    futures = site.sim.submit_many([Plan(60.0)] * 16)
    site.sim.run()
    assert all_ok(futures)
    assert len(site.requests) == 4


def test_a_gpu_task_for_any_executor_is_what_one_without_gpus_never_grows_for() -> None:
    site = Site(Cluster("cpu", limits={"init_blocks": 1}), Cluster("gpu", gpus=1))
    site.sim.run_for(10.0)
    futures = site.sim.submit_many([Plan(10.0)] * 5, request=Request(gpus_milli=1000))
    site.sim.run()
    assert all_ok(futures)
    assert (site.requested("cpu"), site.requested("gpu")) == (1, 5)


def test_the_first_block_tells_what_nodes_have_and_then_come_as_many_as_are_needed() -> None:
    site = Site(Cluster("big", cores=64))
    site.sim.submit_many([Plan(100.0)] * 200)
    site.sim.run_for(2.0)
    assert site.requested("big") == 1
    site.sim.run()
    assert site.requested("big") == 4


def test_what_waits_beside_blocks_on_their_way_is_not_asked_for_again() -> None:
    site = Site(Cluster("slow", told=NodeShape(cpus_milli=4000), start_s=600.0, limits={"max_blocks": 100}))
    for _ in range(20):
        site.sim.submit_many([Plan(60.0)] * 2)
        site.sim.run_for(10.0)
    site.sim.run()
    assert len(site.requests) == 10


def test_tasks_on_several_nodes_get_blocks_with_as_many_and_small_ones_fill_up_the_rest() -> None:
    site = Site(Cluster("single", cores=4), Cluster("quad", cores=4, nodes=4))
    wide = site.sim.submit_many([Plan(30.0)] * 2, request=Request(num_nodes=3))
    site.sim.run()
    assert all_ok(wide)
    assert (site.requested("single"), site.requested("quad")) == (0, 2)


def test_a_runtime_that_no_walltime_allows_asks_for_nothing_and_fails_at_once() -> None:
    site = Site(Cluster("short", walltime_s=600.0), Cluster("long", walltime_s=3600.0))
    fits = site.sim.submit(30.0, request=Request(runtime_s=1800.0))
    too_long = site.sim.submit(30.0, request=Request(runtime_s=3600.0))
    assert site.sim.run(until=lambda: too_long.status is not None) < 1.0
    assert too_long.status is Status.TOO_LARGE
    assert words(too_long) == (
        "It asks for a runtime of 1h; the longest block has a moment less than 1h for tasks (executor 'long')."
    )
    site.sim.run()
    assert fits.status is Status.OK
    assert (site.requested("short"), site.requested("long")) == (0, 1)


def test_a_block_that_has_too_little_time_left_is_followed_by_a_fresh_one() -> None:
    site = Site(Cluster("cpu", walltime_s=600.0, limits={"max_blocks": 1}))
    site.sim.submit(400.0, request=Request(runtime_s=450.0))
    site.sim.run()
    late = site.sim.submit(400.0, request=Request(runtime_s=450.0))
    assert site.sim.run() < 450.0  # the old block is not waited for
    assert late.status is Status.OK
    assert site.requested("cpu") == 2


def test_depth_limited_executors_grow_by_their_number_of_tasks() -> None:
    site = Site(Cluster("io", cores=2, depth=16, told=NodeShape(slots=16, depth_limited=True)))
    futures = site.sim.submit_many([Plan(60.0)] * 40, request=Request(cpus_milli=64_000))
    site.sim.run()
    assert all_ok(futures)
    assert site.requested("io") == 3


# ---- too large ------------------------------------------------------------------------------


def test_what_is_too_large_for_every_configured_shape_fails_before_any_block_has_come() -> None:
    site = Site(Cluster("cpu", told=NodeShape(cpus_milli=8000)), Cluster("tiny", told=NodeShape(cpus_milli=1000)))
    future = site.sim.submit(request=Request(cpus_milli=9000))
    assert site.sim.run() < 1.0
    assert future.status is Status.TOO_LARGE
    assert words(future) == "It asks for 9 cores a node; the largest node has 8 (executor 'cpu')."
    assert site.requests == []


def test_what_may_fit_nodes_that_nobody_has_seen_waits_and_fails_when_the_last_of_them_has_told() -> None:
    site = Site(Cluster("cpu", gpus=0, start_s=5.0), Cluster("gpu", gpus=1, start_s=50.0))
    two, one = (site.sim.submit(request=Request(gpus_milli=milli)) for milli in (2000, 1000))
    site.sim.run_for(30.0)
    assert [two.status, one.status] == [None, None]
    site.sim.run()
    assert one.status is Status.OK
    assert two.status is Status.TOO_LARGE
    assert words(two) == "It asks for 2 GPUs a node; the largest node has 1 (executor 'gpu')."
    late = site.sim.submit(request=Request(gpus_milli=2000))
    assert site.sim.run() < 1.0
    assert late.status is Status.TOO_LARGE


def test_while_somebody_may_join_by_hand_nothing_is_too_large() -> None:
    site = Site(Cluster("cpu", told=NodeShape(cpus_milli=8000), limits={"init_blocks": 1}), closed=False)
    future = site.sim.submit(request=Request(cpus_milli=9000))
    site.sim.run_for(100.0)
    assert future.status is None
    site.sim.add_manager(slots=16)
    site.sim.run()
    assert future.status is Status.OK


def test_each_executor_is_named_with_what_it_lacks_if_that_differs() -> None:
    site = Site(
        Cluster("cpu", told=NodeShape(cpus_milli=64_000, memory_bytes=256 * GIB, gpus=0)),
        Cluster("gpu", told=NodeShape(cpus_milli=8000, memory_bytes=32 * GIB, gpus=4)),
    )
    future = site.sim.submit(request=Request(cpus_milli=16_000, memory_bytes=64 * GIB, gpus_milli=1000))
    site.sim.run()
    assert words(future) == (
        "No executor has all that it asks for. executor 'cpu': it asks for 1 GPU a node; the largest node has 0. "
        "executor 'gpu': it asks for 16 cores a node; the largest node has 8, and for 64 GiB of memory a node; "
        "the largest node has 32 GiB."
    )


def test_work_that_one_executor_cannot_take_and_the_other_has_failed_for_fails_with_both_reasons() -> None:
    site = Site(Cluster("small", told=NodeShape(cpus_milli=4000)), Cluster("large", cores=64, broken=True))
    future = site.sim.submit(request=Request(cpus_milli=16_000), executors=("small", "large"))
    site.sim.run(limit_s=100.0)
    assert future.status is Status.UNSTARTABLE
    assert "3 blocks in a row of executor 'large'" in words(future)
    assert "It asks for 16 cores a node; the largest node has 4 (executor 'small')." in words(future)


# ---- coming and going -----------------------------------------------------------------------


def test_blocks_go_when_the_work_is_done_and_no_running_work_is_ended() -> None:
    site = Site(Cluster("cpu", cores=4), Cluster("gpu", gpus=2))
    rng = Random(3)
    plans = [Plan(rng.uniform(1.0, 200.0)) for _ in range(100)]
    futures = site.sim.submit_many(plans) + site.sim.submit_many(plans[:10], request=Request(gpus_milli=500))
    site.sim.run()
    site.idle_down()
    assert all_ok(futures)
    assert all(site.sim.begun[future.id] == 1 for future in futures)
    assert len(site.requests) <= 20


def test_long_work_keeps_its_block_and_the_others_go() -> None:
    site = Site(Cluster("cpu", cores=4, limits={"min_blocks": 1}))
    long = site.sim.submit_many([Plan(2000.0)] * 2)
    site.sim.submit_many([Plan(50.0)] * 20)
    site.sim.run_for(500.0)
    assert site.phases("cpu") == [Phase.WORKING]
    site.sim.run()
    assert all_ok(long)
    assert all(site.sim.begun[future.id] == 1 for future in long)
    site.sim.run_for(500.0)
    assert site.phases("cpu") == [Phase.WORKING]


def test_low_load_is_packed_onto_the_oldest_block_so_that_the_youngest_run_empty() -> None:
    site = Site(Cluster("cpu", cores=4, told=NodeShape(cpus_milli=4000)))
    site.sim.submit_many([Plan(20.0)] * 16)
    site.sim.run()
    for _ in range(100):
        site.sim.submit_many([Plan(3.0)] * 2)
        site.sim.run_for(2.0)
    assert [name for _, name in site.drains] == ["cpu-3", "cpu-2", "cpu-1"]
    site.sim.run()


def test_load_that_pulses_faster_than_the_idle_time_makes_no_block_come_and_go() -> None:
    site = Site(Cluster("cpu", told=NodeShape(cpus_milli=4000), limits={"max_idletime_s": 60.0}))
    for _ in range(20):
        site.sim.submit_many([Plan(15.0)] * 16)
        site.sim.run_for(45.0)
    assert len(site.requests) == 4
    assert site.drains == []


def test_a_block_that_came_too_late_lives_for_its_minimum_and_then_goes() -> None:
    site = Site(Cluster("cpu", start_s=100.0, limits={"init_blocks": 2, "max_idletime_s": 1.0, "min_life_s": 60.0}))
    site.sim.run_for(155.0)
    assert site.phases("cpu") == [Phase.WORKING] * 2
    site.idle_down(limit_s=20.0)


# ---- bad batch systems ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refuses", "broken"])
def test_a_batch_system_that_always_fails_is_tried_a_few_times_and_its_words_are_told(how: str) -> None:
    site = Site(Cluster("bad", refuses=how == "refuses", broken=how == "broken"))
    futures = site.sim.submit_many([Plan(1.0)] * 1000)
    site.sim.run(limit_s=100.0)
    assert {future.status for future in futures} == {Status.UNSTARTABLE}
    assert ("the queue is closed" if how == "refuses" else "no such module") in words(futures[0])
    assert len(site.requests) == 3
    site.sim.run_for(1000.0)
    assert len(site.requests) == 3


def test_work_for_any_executor_goes_where_blocks_start_when_those_of_one_executor_do_not() -> None:
    known = NodeShape(cpus_milli=4000)
    site = Site(Cluster("bad", told=known, broken=True), Cluster("good", told=known))
    futures = site.sim.submit_many([Plan(5.0)] * 100)
    site.sim.run()
    assert all_ok(futures)
    assert site.requested("bad") <= 10  # those of the first moment, before any had failed
    assert site.given_up in ([], ["bad"])


def test_a_batch_system_that_loses_every_block_is_asked_less_and_less_often() -> None:
    site = Site(Cluster("bad", dies_after_s=5.0, start_s=0.5, limits={"max_blocks": 4}))
    site.sim.submit_many([Plan(100.0)] * 16, crash_limit=10_000)
    site.sim.run_for(3600.0)
    late = [time for time, _ in site.requests if time > site.sim.now - 1800.0]
    assert 10 <= len(late) <= 4 * 30


def test_a_batch_system_that_loses_blocks_now_and_then_ends_all_work_all_the_same() -> None:
    site = Site(Cluster("bad", dies_after_s=100.0))
    futures = site.sim.submit_many([Plan(20.0)] * 200, crash_limit=50)
    site.sim.run(limit_s=7200.0)
    assert all_ok(futures)
    site.idle_down()


# ---- anything -------------------------------------------------------------------------------

SEEDS = [15, pytest.param(300, marks=pytest.mark.soak)]


def any_cluster(dice: Random, label: str) -> Cluster:
    cores, gpus, nodes = dice.choice([1, 4, 16]), dice.choice([0, 0, 2]), dice.choice([1, 1, 3])
    depth = dice.choice([None, None, None, 6])
    told = dice.choice([NodeShape(), NodeShape(cpus_milli=1000 * cores), NodeShape(1000 * cores, None, gpus)])
    if depth is not None:
        told = NodeShape(slots=depth, depth_limited=True)
    limits = {
        "init_blocks": dice.choice([0, 0, 1]),
        "min_blocks": dice.choice([0, 0, 1]),
        "max_blocks": dice.choice([1, 3, 8]),
        "parallelism": dice.choice([1.0, 1.0, 0.5, 0.0]),
        "max_idletime_s": dice.choice([1.0, 30.0]),
        "min_life_s": dice.choice([0.0, 30.0]),
    }
    walltime_s = dice.choice([None, None, 400.0])
    return Cluster(label, cores, 0, gpus, nodes, depth, walltime_s, told, dice.choice([0.5, 5.0, 100.0]), limits=limits)


@pytest.mark.parametrize("seeds", SEEDS)
def test_any_run_ends_with_every_task_ended_and_no_block_too_many(seeds: int, record_property: object) -> None:
    for seed in range(seeds):
        dice = Random(seed)
        site = Site(*(any_cluster(dice, label) for label in ("a", "b", "c")[: dice.randint(1, 3)]), seed=seed)
        futures: list[SimFuture] = []
        for _ in range(dice.randint(1, 6)):
            request = Request(
                cpus_milli=dice.choice([500, 1000, 1000, 3000]),
                gpus_milli=dice.choice([0, 0, 0, 500, 1000]),
                num_nodes=dice.choice([1, 1, 1, 1, 2]),
                runtime_s=dice.choice([None, None, 300.0]),
            )
            executors = dice.choice([(), (), ("a",)])
            plans = [Plan(dice.choice([0.01, 1.0, 30.0]))] * dice.choice([1, 10, 60])
            futures += site.sim.submit_many(plans, request=request, executors=executors)
            site.sim.run_for(dice.choice([0.1, 5.0, 60.0]))
        site.sim.run(limit_s=20_000.0)
        assert {future.status for future in futures} <= {Status.OK, Status.TOO_LARGE}, f"seed {seed}"
        floor = {label: scaler._limits.min_blocks for label, scaler in site.scalers.items()}
        site.sim.run(until=lambda: all(site.live()[label] <= low for label, low in floor.items()), limit_s=2000.0)  # noqa: B023  called here
        assert len(site.requests) <= 40 + sum(floor.values()) * 60, f"seed {seed}"
    record_property("count", seeds)  # type: ignore[operator]
