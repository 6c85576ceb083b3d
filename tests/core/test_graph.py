"""Which tasks are ready, which wait, and which are tried again."""

from __future__ import annotations

from typing import Any

from pilotflow.core.graph import Graph, Oversized
from pilotflow.messages.records import Task
from pilotflow.serialize import Packed


def task(id: int, payload: bytes = b"call", layout: tuple[int, ...] = ()) -> Task:
    return Task(id, 0, 1, 1, payload, layout)


def ready(graph: Graph[Any]) -> list[int]:
    return [task.id for task in graph.take_ready().tasks]


def test_a_task_without_needs_is_ready_at_once_and_once() -> None:
    graph: Graph[str] = Graph()
    graph.add("a", task(1), ())
    assert ready(graph) == [1]
    assert ready(graph) == []


def test_a_task_waits_for_all_it_needs() -> None:
    graph: Graph[str] = Graph()
    for id in (1, 2):
        graph.add("", task(id), ())
    graph.add("", task(3), (), needs=[1, Packed(b"known"), 2, 1])
    assert ready(graph) == [1, 2]
    graph.supply(2, Packed(b"two"))
    assert graph.is_waiting(3)
    graph.supply(1, Packed(b"one"))
    (whole,) = graph.take_ready().tasks
    for part in (b"call", b"one", b"known", b"two"):
        assert part in whole.payload


def test_those_that_wait_for_a_failed_task_are_named() -> None:
    graph: Graph[str] = Graph()
    graph.add("", task(1), ())
    graph.add("", task(2), (), needs=[1])
    graph.add("", task(3), (), needs=[1])
    graph.finish(3)
    assert graph.abandon(1) == [2]
    assert not graph.has_dependents(1)


def test_a_task_is_tried_again_as_often_as_it_says() -> None:
    graph: Graph[str] = Graph()
    graph.add("", task(1, layout=(1, 0)), (b"frame",), retries=2)
    graph.take_ready()
    for attempt in (5, 6):
        assert graph.retry(1, attempt)
        again = graph.take_ready()
        assert [(t.id, t.attempt) for t in again.tasks] == [(1, attempt)]
        assert again.frames == [b"frame"]
    assert not graph.retry(1, 7)


def test_a_result_of_an_attempt_that_was_followed_by_another_try_is_superseded() -> None:
    graph: Graph[str] = Graph()
    graph.add("", task(1), (), retries=2)
    assert not graph.is_superseded(1, 1)
    graph.retry(1, 7)
    assert graph.is_superseded(1, 7)
    assert not graph.is_superseded(1, 8)


def test_everything_but_what_waits_or_has_ended_is_submitted_again() -> None:
    graph: Graph[str] = Graph(keep_all=True)
    for id in (1, 2, 3):
        graph.add("", task(id, layout=(1, 0)), (b"frame",))
    graph.add("", task(4), (), needs=[3])
    graph.take_ready()
    graph.finish(1)
    graph.submit_all_again()
    again = graph.take_ready()
    assert [t.id for t in again.tasks] == [2, 3]
    assert again.frames == [b"frame", b"frame"]


def test_a_task_whose_needs_are_met_is_submitted_again_with_them() -> None:
    graph: Graph[str] = Graph(keep_all=True)
    graph.add("", task(1), (), needs=[Packed(b"", (1, 0), (b"big",))])
    first = graph.take_ready()
    graph.submit_all_again()
    again = graph.take_ready()
    assert again.frames == first.frames
    assert b"big" in again.frames


BIG = Packed(b"", (1, 0), (bytes(600),))


def test_a_task_whose_joined_arguments_are_too_long_is_never_ready() -> None:
    graph: Graph[str] = Graph(max_bytes=1000)
    graph.add("", task(1), (), needs=[BIG, 7])
    assert graph.take_oversized() == []
    graph.supply(7, BIG)
    assert ready(graph) == []
    assert graph.take_oversized() == [Oversized(1, (4, 600, 600))]
    assert graph.take_oversized() == []
    assert 1 in graph.pending  # it has not ended: its future is to be failed


def test_a_task_that_needs_nothing_to_be_waited_for_can_be_too_long_too() -> None:
    graph: Graph[str] = Graph(max_bytes=1000)
    graph.add("", task(1), (), needs=[BIG, BIG])
    assert ready(graph) == []
    assert graph.take_oversized() == [Oversized(1, (4, 600, 600))]


def test_joined_arguments_may_be_as_long_as_the_limit() -> None:
    graph: Graph[str] = Graph(max_bytes=604)
    graph.add("", task(1), (), needs=[BIG])
    assert ready(graph) == [1]


def test_many_short_results_are_too_long_together() -> None:
    graph: Graph[str] = Graph(max_bytes=1 << 20)
    graph.add("", task(1), (), needs=[Packed(bytes(30_000))] * 40)
    assert ready(graph) == []
    (oversized,) = graph.take_oversized()
    assert sum(oversized.parts) == 4 + 40 * 30_000


def test_a_result_or_a_try_of_its_own_ends_a_history_of_crashes() -> None:
    """Crashes count between two results: a task that raises, and is tried again, begins anew."""
    graph: Graph[str] = Graph(keep_all=True)
    graph.add("", task(1), (), retries=1)
    graph.crashed(1, 5, "attempt 1: gone")
    graph.submit_all_again()
    ready = graph.take_ready()
    assert ready.crashes == [(1, ["attempt 1: gone"])]
    assert ready.tasks[0].attempt == 5  # what comes of earlier ones is out of date
    graph.retry(1, 6)
    assert graph.take_ready().crashes == []
    graph.crashed(1, 7, "attempt 1: gone")
    graph.finish(1)
    graph.crashed(1, 8, "attempt 2: gone")
    assert graph.take_ready().crashes == []
