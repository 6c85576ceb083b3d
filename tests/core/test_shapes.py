"""What fits where, what managers teach, and in words why something fits nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from pilotflow.core.hope import Hope
from pilotflow.core.shapes import KINDS_MAX, Nodes, fits, is_certain, needed_s, why_nowhere
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Status
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request

GIB = 1 << 30
SMALL = NodeShape(4000, 8 * GIB, 1, 4, resources=(("licence", 2),))


def nodes(label: str = "cpu", has: NodeShape = SMALL, **more: Any) -> Nodes:
    return Nodes(BlockShape(label, has, more.pop("nodes", 1), more.pop("walltime_s", None)), **more)


# ---- fitting --------------------------------------------------------------------------------

FITS = [
    ({"cpus_milli": 4000}, {"cpus_milli": 4001}),
    ({"memory_bytes": 8 * GIB}, {"memory_bytes": 8 * GIB + 1}),
    ({"gpus_milli": 1000}, {"gpus_milli": 2000}),
    ({"resources": (("licence", 2),)}, {"resources": (("licence", 3),)}),
    ({}, {"resources": (("dongle", 1),)}),
]


@pytest.mark.parametrize(("just", "not_quite"), FITS)
def test_a_request_fits_up_to_what_there_is(just: dict[str, Any], not_quite: dict[str, Any]) -> None:
    assert fits(Request(**just), SMALL)
    assert not fits(Request(**not_quite), SMALL)
    assert fits(Request(**not_quite), NodeShape())  # of which nothing is known
    assert fits(Request(**not_quite), NodeShape(slots=1, depth_limited=True))  # which ignores requests


def test_nodes_that_ignore_requests_take_no_part_in_tasks_on_several() -> None:
    assert not fits(Request(num_nodes=2), NodeShape(slots=1, depth_limited=True))


def test_it_is_certain_only_if_all_that_is_asked_for_is_known() -> None:
    cores_only = NodeShape(cpus_milli=4000)
    assert is_certain(Request(), cores_only)
    assert not is_certain(Request(memory_bytes=1), cores_only)
    assert not is_certain(Request(gpus_milli=1), cores_only)
    assert not is_certain(Request(resources=(("licence", 1),)), cores_only)
    assert not is_certain(Request(), NodeShape())
    assert is_certain(Request(gpus_milli=1), NodeShape(depth_limited=True))


def test_the_time_a_task_needs_is_its_runtime_or_what_the_scheduler_keeps_for_those_without() -> None:
    assert needed_s(Request(runtime_s=7.0), 3600.0) == 7.0
    assert needed_s(Request(), 36_000.0) == 300.0
    assert needed_s(Request(), 600.0) == 60.0
    assert needed_s(Request(), None) == 0.0


# ---- learning -------------------------------------------------------------------------------


def test_the_first_manager_replaces_what_was_configured() -> None:
    known = nodes(has=NodeShape(cpus_milli=64_000)).learn(Capacity(8000, GIB, ("0",), 8))
    assert known.likely == (NodeShape(8000, GIB, 1, 8, resources=()),)
    assert not known.admits(Request(cpus_milli=9000))


def test_a_manager_that_does_not_know_its_memory_limits_nothing() -> None:
    known = nodes().learn(Capacity(8000))
    assert known.admits(Request(memory_bytes=1 << 50))


def test_of_kinds_of_nodes_those_are_kept_that_no_other_has_more_of_everything_than() -> None:
    known = nodes()
    for cores, gib in ((4, 8), (8, 16), (4, 32), (2, 2)):
        known = known.learn(Capacity(1000 * cores, gib * GIB, (), 4))
    assert [(kind.cpus_milli, kind.memory_bytes) for kind in known.kinds] == [(4000, 32 * GIB), (8000, 16 * GIB)]
    assert known.admits(Request(cpus_milli=8000))
    assert known.admits(Request(memory_bytes=32 * GIB))
    assert not known.admits(Request(cpus_milli=8000, memory_bytes=32 * GIB))


def test_thousands_of_nodes_that_differ_a_little_stay_a_few_kinds() -> None:
    known = nodes()
    for number in range(5000):
        known = known.learn(Capacity(8000, 16 * GIB + number % 977, (), 8))
    assert len(known.kinds) == 1
    for number in range(5000):
        known = known.learn(Capacity(1000 * (number + 1), 16 * GIB - number, (), 8))
    assert len(known.kinds) <= KINDS_MAX


def test_how_long_blocks_last_is_learned_from_new_ones_only() -> None:
    request = Request(runtime_s=3595.0)
    known = nodes(walltime_s=3600.0)
    assert known.admits(request)
    late = known.learn(Capacity(4000), time_left_s=1800.0)  # it was there before the interchange
    assert late.admits(request)
    fresh = late.learn(Capacity(4000), time_left_s=3590.0)
    assert not fresh.admits(request)
    assert fresh.admits(Request(runtime_s=3590.0))
    assert fresh.learn(Capacity(4000), time_left_s=3598.0).admits(request)


# ---- words ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (Request(cpus_milli=9000), "9 cores a node; the largest node has 4 (executor 'cpu')."),
        (Request(cpus_milli=4500), "4.5 cores a node; the largest node has 4 (executor 'cpu')."),
        (Request(gpus_milli=2000), "2 GPUs a node; the largest node has 1 (executor 'cpu')."),
        (Request(memory_bytes=64 * GIB), "64 GiB of memory a node; the largest node has 8 GiB (executor 'cpu')."),
        (
            Request(memory_bytes=8 * GIB + 1),
            "8589934593 bytes of memory a node; the largest node has 8589934592 bytes (executor 'cpu').",
        ),
        (Request(num_nodes=2), "2 nodes; the largest block has 1 (executor 'cpu')."),
        (
            Request(resources=(("licence", 3),)),
            "3 of 'licence' a node; the largest node has 2 (executor 'cpu').",
        ),
        (Request(resources=(("{x}", 1),)), "1 of '{x}' a node; the largest node has none (executor 'cpu')."),
        (
            Request(runtime_s=7200.0),
            "a runtime of 2h; the longest block has 1h for tasks (executor 'cpu').",
        ),
        (
            Request(cpus_milli=9000, gpus_milli=2000),
            (
                "9 cores a node; the largest node has 4 (executor 'cpu'), "
                "and for 2 GPUs a node; the largest node has 1 (executor 'cpu')."
            ),
        ),
    ],
)
def test_the_number_that_is_too_big_is_named_with_the_most_that_there_is(request_: Request, text: str) -> None:
    known = nodes(walltime_s=3600.0)
    assert not known.admits(request_)
    assert why_nowhere(request_, [known]) == f"It asks for {text}"


def test_the_largest_of_several_executors_is_the_one_that_is_named() -> None:
    several = [nodes("a"), nodes("b", NodeShape(cpus_milli=8000)), nodes("c", NodeShape(cpus_milli=2000))]
    text = "It asks for 9 cores a node; the largest node has 8 (executor 'b')."
    assert why_nowhere(Request(cpus_milli=9000), several) == text


def test_where_no_one_thing_is_too_big_it_is_said_that_it_is_all_together() -> None:
    known = nodes(kinds=(NodeShape(64_000, 8 * GIB, 0), NodeShape(4000, 8 * GIB, 4)))
    request = Request(cpus_milli=16_000, gpus_milli=1000)
    assert not known.admits(request)
    assert why_nowhere(request, [known]) == (
        "It asks for more than any one of its nodes has of everything at once (executor 'cpu')."
    )


@pytest.mark.parametrize("count", [1, 4])
def test_tasks_on_several_nodes_are_told_of_executors_that_run_each_task_on_one(count: int) -> None:
    known = nodes("io", NodeShape(slots=16, depth_limited=True), nodes=count)
    text = "It asks for 2 nodes; with max_parallel_jobs each task runs on one (executor 'io')."
    assert why_nowhere(Request(num_nodes=2), [known]) == text


# ---- hope -----------------------------------------------------------------------------------


def cls(number: int = 1, *executors: str, **asks: Any) -> RequestClass:
    return RequestClass(number, Request(**asks), executors, 5)


def manager(number: int = 1, executor: str = "cpu", cores: int = 4) -> Manager:
    return Manager(number, executor, f"{executor}-0", f"n{number}", Capacity(1000 * cores, slots=cores))


def test_without_a_word_about_executors_everything_may_still_come() -> None:
    hope = Hope()
    assert hope.judge(cls(cpus_milli=10**9)) is None
    assert hope.judge_all([cls(cpus_milli=10**9)]) == {}


def test_a_class_is_judged_by_the_executors_that_it_may_run_on() -> None:
    hope = Hope()
    hope.define([BlockShape("a", SMALL), BlockShape("b", NodeShape(16_000))], closed=True)
    assert hope.judge(cls(cpus_milli=9000)) is None
    verdict = hope.judge(cls(1, "a", cpus_milli=9000))
    assert verdict is not None
    assert (verdict.status, "has 4 (executor 'a')" in verdict.why) == (Status.TOO_LARGE, True)
    assert set(hope.judge_all([cls(1, "a", cpus_milli=9000), cls(2, cpus_milli=9000), cls(3)])) == {1}


def test_a_larger_node_brings_hope_again() -> None:
    hope = Hope()
    hope.define([BlockShape("cpu", SMALL)], closed=True)
    assert hope.judge(cls(cpus_milli=9000)) is not None
    assert hope.meet(manager(cores=16), None)
    assert hope.judge(cls(cpus_milli=9000)) is None


def test_only_managers_that_change_something_are_worth_another_look() -> None:
    hope = Hope()
    hope.define([BlockShape("cpu")], closed=True)
    assert hope.meet(manager(1), None)
    assert not hope.meet(manager(2), None)
    assert not hope.part(manager(1))
    hope.fail("cpu", "no more")
    assert not hope.meet(manager(3), None)
    assert not hope.part(manager(2))
    assert hope.judge(cls(1, "cpu")) is None
    assert hope.part(manager(3))
    verdict = hope.judge(cls(1, "cpu"))
    assert verdict is not None
    assert (verdict.status, verdict.why) == (Status.UNSTARTABLE, "no more")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cpus_milli": 16_000}, "num_cpus=4"),
        ({"cpus_milli": 10_000}, "num_cpus=2.5"),
        ({"cpus_milli": 16_000, "memory_bytes": 32 * GIB}, "num_cpus=4, memory='8g'"),
        ({"gpus_milli": 4000}, "num_gpus=1"),
    ],
)
def test_totals_over_all_nodes_are_recognised(asked: dict[str, Any], said: str) -> None:
    wide = nodes(nodes=4)
    text = why_nowhere(Request(num_nodes=4, **asked), [wide])
    assert text.endswith(f" These are amounts of each node: if they were meant for all 4 nodes together, say {said}.")


@pytest.mark.parametrize(
    "request_",
    [Request(cpus_milli=16_000), Request(num_nodes=4, cpus_milli=17_000), Request(num_nodes=5, cpus_milli=16_000)],
)
def test_what_would_be_too_much_for_all_nodes_together_is_not_taken_for_a_total(request_: Request) -> None:
    assert "together" not in why_nowhere(request_, [nodes(nodes=4)])
