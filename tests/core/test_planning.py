"""Plans of workflows: the real scheduler in a simulated world, on cases small enough to be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import pytest

from pilotflow.core.planning import forecast
from pilotflow.core.planning_records import Allocations, Forecast, World
from pilotflow.core.triggers import Moment
from pilotflow.resources import DEFAULT_REQUEST, Capacity, Request

GIB = 1 << 30
NODE = Capacity(4000, 16 * GIB, (), slots=4)


@dataclass(frozen=True)
class Job:
    request: Request = DEFAULT_REQUEST
    depends_on: tuple[int, ...] = ()
    cancel_on_blocking_job_failure: bool = True
    failure_handler: int | None = None
    retries: int = 0


def plan(
    jobs: list[Job],
    seconds: list[float] | float,
    *kinds: Allocations,
    bindings: Sequence[tuple[str, ...]] = (),
    world: World | None = None,
) -> Forecast:
    times = seconds if isinstance(seconds, list) else [seconds] * len(jobs)
    return forecast(jobs, times, bindings or [()] * len(jobs), kinds or (Allocations("a", NODE),), world)


def test_jobs_share_a_node_as_they_fit() -> None:
    out = plan([Job() for _ in range(10)], 60.0)
    assert (out.makespan_s, out.node_s, out.batch_jobs) == (180.0, 180.0, 1)
    assert out.idle_share == pytest.approx(1 - 10 / 12)
    assert not out.unfinished


def test_the_wait_in_the_queue_counts_for_the_makespan_and_not_for_node_hours() -> None:
    out = plan([Job() for _ in range(8)], 60.0, Allocations("a", NODE, count=2, wait_s=300.0))
    assert (out.makespan_s, out.node_s, out.idle_share) == (360.0, 120.0, 0.0)


def test_one_large_and_many_small_allocations_differ_for_jobs_of_several_nodes() -> None:
    jobs = [Job(Request(4000, num_nodes=2)), *[Job(Request(4000)) for _ in range(2)]]
    large = plan(jobs, 100.0, Allocations("a", NODE, nodes=2))
    assert (large.makespan_s, large.node_s) == (200.0, 400.0)
    small = plan(jobs, 100.0, Allocations("a", NODE, count=2), world=World(idle_s=30.0))
    assert small.unfinished == [0], "no allocation has two nodes"


def test_dependencies_make_steps_and_idle_allocations_leave() -> None:
    jobs = [*[Job() for _ in range(8)], Job(depends_on=tuple(range(8)))]
    times = [*[10.0] * 8, 1000.0]
    out = plan(jobs, times, Allocations("a", NODE, count=2), world=World(idle_s=30.0))
    assert out.makespan_s == 1010.0
    assert out.node_s == 1010.0 + 40.0, "one leaves after it was idle for 30 s"


def test_a_chain_takes_the_sum_and_its_starts() -> None:
    jobs = [Job(depends_on=(number - 1,) if number else ()) for number in range(5)]
    out = plan(jobs, 10.0, world=World(block_start_s=7.0, job_start_s=1.0))
    assert out.makespan_s == 7 + 5 * 11
    assert out.node_s == out.makespan_s


def test_allocations_of_a_stage_are_asked_for_when_its_jobs_are_ready() -> None:
    jobs = [*[Job() for _ in range(4)], Job(Request(4000, num_nodes=2), depends_on=(0, 1, 2, 3))]
    kinds = (
        Allocations("prep", NODE, wait_s=5.0),
        Allocations("train", NODE, nodes=2, wait_s=50.0, after=(4,), when=Moment.READY),
    )
    bindings = [*[("prep",)] * 4, ("train",)]
    out = plan(jobs, [*[10.0] * 4, 100.0], *kinds, bindings=bindings, world=World(idle_s=0.0))
    assert out.makespan_s == 5 + 10 + 50 + 100
    assert [(span.asked_s, span.start_s, span.end_s) for span in out.spans] == [(0, 5, 15), (15, 65, 165)]
    assert out.node_s == 10 + 2 * 100


def test_a_job_begins_only_where_its_runtime_is_left() -> None:
    jobs = [Job(Request(runtime_s=60.0)) for _ in range(12)]
    out = plan(jobs, 50.0, Allocations("a", NODE, count=2, walltime_s=100.0))
    assert (out.makespan_s, len(out.unfinished)) == (50.0, 4), "what is left would not be over in time"
    out = plan(jobs, 50.0, Allocations("a", NODE, count=2, walltime_s=115.0))
    assert (out.makespan_s, out.unfinished) == (100.0, [])
    assert max(span.needs_s for span in out.spans) == 110.0


def test_a_job_that_never_says_its_runtime_is_cut_off_and_given_up_with_what_depends_on_it() -> None:
    jobs = [Job(), Job(depends_on=(0,)), Job()]
    out = plan(jobs, [1000.0, 1.0, 1.0], Allocations("a", NODE, count=3, walltime_s=100.0))
    assert out.unfinished == [0, 1]


def test_a_partition_has_so_many_nodes() -> None:
    kind = Allocations("a", NODE, count=4, partition="p")
    out = plan([Job(Request(4000)) for _ in range(4)], 60.0, kind, world=World(0.0, partition_nodes=(("p", 2),)))
    assert (out.makespan_s, out.node_s) == (120.0, 240.0)
    assert sorted(span.start_s for span in out.spans) == [0, 0, inf, inf], "those that came first have done it all"
    short = Allocations("a", NODE, count=4, walltime_s=65.0, partition="p")
    jobs = [Job(Request(4000, runtime_s=55.0)) for _ in range(4)]
    out = plan(jobs, 55.0, short, world=World(partition_nodes=(("p", 2),)))
    assert (out.makespan_s, out.batch_jobs) == (115.0, 4), "the others come when the first end after 60 s"


def test_the_scarcest_resource_of_a_node_says_how_busy_it_is() -> None:
    node = Capacity(8000, 16 * GIB, ("0", "1"), slots=8)
    out = plan([Job(Request(1000, 12 * GIB)), Job(Request(1000, gpus_milli=1000))], 10.0, Allocations("a", node))
    assert out.idle_share == 0.25


def test_nothing_to_run_on_leaves_everything_unfinished() -> None:
    out = plan([Job(Request(9000)), Job()], 5.0)
    assert out.unfinished == [0]
    assert forecast([Job()], [1.0], [()], ()).unfinished == [0]
    assert plan([], []).makespan_s == 0.0
    assert plan([Job()], 5.0).spans[0].end_s < inf
