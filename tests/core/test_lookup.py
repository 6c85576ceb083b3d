"""What the run's program says of tasks that are called alike: which of them may wait, whatever it knows of their starts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from pilotflow.core.graph import Graph
from pilotflow.futures import AppFuture
from pilotflow.messages.records import Task
from pilotflow.messages.views import ClientView, Stretch
from pilotflow.runtime.lookup import STRETCHES_MAX, look_up


class Program:
    """The pending tasks of a run."""

    def __init__(self) -> None:
        self.graph: Graph[AppFuture[Any]] = Graph()
        self.paused: set[int] = set()

    def submit(self, *ids: int, name: str = "square", needs: Collection[int] = ()) -> None:
        for id in ids:
            self.graph.add(AppFuture(id, name, None), Task(id, 0, 1, 1, b""), (), needs=list(needs))

    def begin(self, *ids: int) -> None:
        for id in ids:
            self.graph.pending[id].begin()

    def look_up(self, asked: str) -> ClientView:
        return look_up(asked, self.graph, {}, lambda _: ("", False), self.paused)


def test_all_tasks_of_a_name_are_told_as_stretches_of_numbers() -> None:
    program = Program()
    program.submit(1, 2, 3)
    program.submit(4, name="cube")
    program.submit(6, 7, 5)
    program.begin(1, 2)
    view = program.look_up("square")
    assert (view.task, view.name, view.alike) == (3, "square", 6)
    assert view.among == (Stretch(1, 3, "square"), Stretch(5, 7, "square"))


def test_one_that_waits_for_others_is_told_with_those_that_come_before_it() -> None:
    program = Program()
    program.submit(1, 2)
    program.submit(3, 4, needs=[1])
    program.submit(5)
    view = program.look_up("square")
    assert (view.task, view.alike, view.among) == (3, 5, (Stretch(1, 2, "square"),))
    assert [need.task for need in view.needs] == [1]


def test_one_that_is_tried_again_after_a_while_waits_though_it_has_begun_once() -> None:
    program = Program()
    program.submit(1, 2)
    program.begin(1, 2)
    assert program.look_up("square").task == 1
    program.paused.add(2)
    view = program.look_up("square")
    assert (view.task, view.among) == (2, (Stretch(1, 1, "square"),))


def test_a_label_on_tasks_of_several_apps_keeps_their_names() -> None:
    program = Program()
    program.submit(1, 2, 3)
    program.submit(4, 5, name="cube")
    for id in (2, 3, 4, 5):
        program.graph.pending[id].label = "batch"
    view = program.look_up("batch")
    assert (view.task, view.name, view.alike) == (2, "square", 4)
    assert view.among == (Stretch(2, 3, "square"), Stretch(4, 5, "cube"))


@pytest.mark.parametrize("asked", ["3", "0", "cube"])
def test_a_number_or_an_unknown_name_has_no_others(asked: str) -> None:
    program = Program()
    program.submit(1, 2, 3)
    view = program.look_up(asked)
    assert (view.alike, view.among) == (0, ())


def test_the_answer_stays_short_however_the_tasks_of_a_name_are_spread() -> None:
    program = Program()
    program.submit(*range(0, 3 * STRETCHES_MAX, 2))
    view = program.look_up("square")
    assert len(view.among) == STRETCHES_MAX
    assert view.alike == 3 * STRETCHES_MAX // 2
