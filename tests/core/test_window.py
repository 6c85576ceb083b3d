"""Tasks with payload frames are held back while too many are out; nothing is lost or overtaken by its own kind."""

from __future__ import annotations

import random

from pilotflow.core.graph import Graph
from pilotflow.core.window import FrameWindow
from pilotflow.messages.records import Task


def task(id: int, frames: int = 0) -> Task:
    return Task(id, 0, 1, 1, b"", (frames, 0) if frames else ())


def test_tasks_without_frames_pass_at_once() -> None:
    window = FrameWindow(3)
    tasks = [task(i) for i in range(10)]
    assert window.admit(tasks, []) == (tasks, [])


def test_what_is_beyond_the_window_waits_until_something_ends() -> None:
    window = FrameWindow(3)
    a, b, c = task(1, 2), task(2, 2), task(3, 1)
    assert window.admit([a, b, c], ["a1", "a2", "b1", "b2", "c1"]) == ([a], ["a1", "a2"])
    assert window.holds(2)
    assert len(window) == 2
    plain = task(4)
    assert window.admit([plain], []) == ([plain], [])
    window.end(1)
    assert window.admit([], []) == ([b, c], ["b1", "b2", "c1"])
    assert len(window) == 0


def test_one_task_with_more_frames_than_the_window_goes_alone() -> None:
    window = FrameWindow(3)
    big, small = task(1, 9), task(2, 1)
    assert window.admit([big, small], [*list("abcdefghi"), "s"]) == ([big], list("abcdefghi"))
    window.end(1)
    assert window.admit([], []) == ([small], ["s"])


def test_a_task_cancelled_while_it_is_held_back_never_goes() -> None:
    window = FrameWindow(1)
    a, b, c = task(1, 1), task(2, 1), task(3, 1)
    window.admit([a, b, c], ["a", "b", "c"])
    window.end(2)
    window.end(1)
    assert window.admit([], []) == ([c], ["c"])


def test_a_task_that_is_tried_again_keeps_its_place() -> None:
    window = FrameWindow(1)
    a, b = task(1, 1), task(2, 1)
    assert window.admit([a, b], ["a", "b"]) == ([a], ["a"])
    window.end(1)
    assert window.admit([a], ["a"]) == ([b], ["b"])
    window.end(2)
    assert window.admit([], []) == ([a], ["a"])


def test_whatever_ends_in_whatever_order_everything_goes_once_and_the_window_holds() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        window, out, gone = FrameWindow(20), {}, []
        for id in range(1, 200):
            new = task(id, rng.randrange(4))
            went, frames = window.admit([new], [id] * sum(new.layout))
            assert frames == [one.id for one in went for _ in range(sum(one.layout))]
            out.update({one.id: sum(one.layout) for one in went})
            gone += [one.id for one in went]
            assert sum(out.values()) <= 20
            for done in rng.sample(sorted(out), rng.randrange(min(3, len(out) + 1))):
                del out[done]
                window.end(done)
        while out or window:
            for done in list(out):
                del out[done]
                window.end(done)
            went, _ = window.admit([], [])
            out.update({one.id: sum(one.layout) for one in went})
            gone += [one.id for one in went]
        assert sorted(gone) == list(range(1, 200))


def test_a_graph_holds_back_what_the_interchange_could_not_keep_open() -> None:
    graph: Graph[str] = Graph()
    for id in range(1, 1502):
        graph.add("future", task(id, 1), ["frame"])
    assert len(graph.take_ready().tasks) == 1000
    assert not graph.is_waiting(1000)
    assert graph.is_waiting(1001)
    for id in range(1, 502):
        graph.finish(id)
    assert [one.id for one in graph.take_ready().tasks] == list(range(1001, 1502))
