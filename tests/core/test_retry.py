"""When tasks are tried again, with the graph and the clock of the decision alone."""

from __future__ import annotations

from typing import Any

import pytest

from pilotflow.app_options import AppOptions, parse_options
from pilotflow.core.graph import Graph
from pilotflow.core.retry import BACKOFF_MAX_S, UNLIMITED, Policy, left_s, pause_s
from pilotflow.errors import ConfigError
from pilotflow.messages.records import Task
from pilotflow.serialize import Packed


def test_pauses_double_up_to_an_hour() -> None:
    policy = Policy(retries=99, backoff_s=10.0)
    assert [pause_s(policy, tries) for tries in (1, 2, 3)] == [10.0, 20.0, 40.0]
    assert pause_s(policy, 5_000) == BACKOFF_MAX_S
    assert pause_s(Policy(backoff_s=7200.0), 1) == 7200.0, "what was asked for is not made shorter"
    assert pause_s(Policy(retries=1), 1) == 0.0


@pytest.mark.parametrize(("verdict", "pause"), [(True, 3.0), (False, None), (None, None), (0, 0.0), (2.5, 2.5)])
def test_a_handler_says_whether_or_when(verdict: object, pause: float | None) -> None:
    assert pause_s(Policy(backoff_s=3.0), 1, verdict) == pause


@pytest.mark.parametrize("verdict", ["yes", -1, float("nan"), float("inf"), []])
def test_a_verdict_that_is_none_is_told(verdict: object) -> None:
    with pytest.raises(ConfigError, match="whether the task is tried again, or in how many seconds"):
        pause_s(Policy(), 1, verdict)


def test_what_is_left_of_a_timeout_is_rounded_up_to_few_values() -> None:
    policy = Policy(timeout_s=16.0)
    assert left_s(policy, 0.0) == 16.0
    assert left_s(policy, 0.5) == 16.0
    assert left_s(policy, 1.0) == 15.0
    assert left_s(policy, 15.9) == 1.0
    assert left_s(policy, 16.0) == 0.0
    assert left_s(policy, 17.0) == 0.0
    assert left_s(Policy(), 17.0) is None
    assert len({left_s(policy, used / 100) for used in range(1600)}) == 16


def said(**words: Any) -> AppOptions:
    return parse_options("@python_app", words)


def handler(error: BaseException, tries: int) -> bool:
    return True


def test_what_the_app_says_goes_before_what_the_run_says() -> None:
    assert said().policy(0, 0.0, None) is None
    assert said().policy(0, 5.0, None) is None, "a pause before no further try"
    assert said().policy(2, 5.0, None) == Policy(2, 5.0)
    assert said(retries=0).policy(2, 5.0, None) is None
    assert said(retries=1, backoff="10s").policy(2, 5.0, None) == Policy(1, 10.0)
    assert said(timeout="2m").policy(0, 0.0, None) == Policy(timeout_s=120.0)


def test_a_handler_without_a_number_of_retries_decides_alone() -> None:
    assert said().policy(0, 0.0, handler) == Policy(UNLIMITED, handler=handler)
    assert said().policy(3, 0.0, handler) == Policy(3, handler=handler)
    assert said(retry_handler=handler).policy(3, 0.0, None) == Policy(UNLIMITED, handler=handler)
    assert said(retry_handler=handler, retries=2).policy(0, 0.0, None) == Policy(2, handler=handler)
    assert said(retries=0).policy(0, 0.0, handler) is None


def test_a_task_that_takes_failures_is_supplied_with_them_and_others_are_abandoned() -> None:
    graph: Graph[str] = Graph()
    graph.add("", Task(1, 0, 1, 1, b""), ())
    graph.add("", Task(2, 0, 1, 1, b""), (), needs=[1], policy=Policy(allow_failed=True))
    graph.add("", Task(3, 0, 1, 1, b""), (), needs=[1])
    graph.take_ready()
    graph.supply_to(graph.take_tolerant(1), Packed(b"failure"))
    assert graph.abandon(1) == [3]
    assert [task.id for task in graph.take_ready().tasks] == [2]


def test_a_local_task_is_ready_once_for_what_it_needs_and_once_more_for_what_it_has_made() -> None:
    graph: Graph[str] = Graph()
    graph.add("", Task(1, 0, 1, 1, b""), ())
    graph.add_local("", 2, [1])
    graph.add_local("", 3, [])
    assert (graph.take_ready().local, graph.take_ready().local) == ([3], [])
    graph.supply(1, Packed(b"one"))
    assert graph.take_ready().local == [2]
    graph.add("", Task(4, 0, 1, 1, b""), ())
    graph.wait_again(2, [4])
    assert graph.is_waiting(2)
    graph.supply(4, Packed(b"four"))
    ready = graph.take_ready()
    assert (ready.local, [task.id for task in ready.tasks]) == ([2], [4])
