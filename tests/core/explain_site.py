"""A scheduler whose tasks wait, for tests of what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilotflow.core.explain import Facts, explain_queued
from pilotflow.core.scheduler import Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.explanation import Explanation, Kind
from pilotflow.messages.records import Task
from pilotflow.messages.views import ClientView
from pilotflow.resources import Capacity, Request

GIB = 1 << 30


class Site:
    """A scheduler, and why its tasks wait."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.now = 100.0
        self.next_task = 1
        self.next_manager = 1

    def cls(self, id: int, request: Request | None = None, executors: Sequence[str] = ("cpu",)) -> None:
        self.scheduler.add_class(RequestClass(id, request or Request(), tuple(executors), 5))

    def manager(
        self, *, executor: str = "cpu", block: str = "cpu-0", left_s: float | None = None, **has: Any
    ) -> Manager:
        id = self.next_manager
        self.next_manager += 1
        capacity = Capacity(**{"cpus_milli": 8000, "slots": 64, **has})
        manager = Manager(id, executor, block, f"n{id}", capacity)
        manager.set_time_left(left_s, self.now)
        self.scheduler.add_manager(manager)
        return manager

    def submit(self, count: int = 1, cls: int = 1) -> list[Task]:
        tasks = [Task(self.next_task + i, 0, 1, cls, b"") for i in range(count)]
        self.next_task += count
        for task in tasks:
            self.scheduler.submit(task)
        self.scheduler.step(self.now)
        return tasks

    def why(self, task: Task, view: ClientView | None = None, **facts: Any) -> Explanation:
        return explain_queued(self.scheduler, task, "square", Facts(view, **facts), self.now)


def first(explanation: Explanation) -> tuple[Kind, str]:
    reason = explanation.reasons[0]
    return reason.kind, reason.text


def numbers(explanation: Explanation, at: int = 0) -> dict[str, float]:
    return {number.name: number.value for number in explanation.reasons[at].numbers}
