"""Placing by request class: order, packing, sending ahead, and what it costs to cancel."""

from __future__ import annotations

import time

import pytest

from pilotflow.core.scheduler import PREFILL_MAX, Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Task
from pilotflow.resources import DEFAULT_REQUEST, Capacity, Request


class Desk:
    """A scheduler with short words for what happens to it."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.next_task = 0

    def cls(
        self, id: int = 1, request: Request = DEFAULT_REQUEST, executors: tuple[str, ...] = (), crash_limit: int = 5
    ) -> RequestClass:
        cls = RequestClass(id, request, executors, crash_limit)
        self.scheduler.add_class(cls)
        return cls

    def manager(self, slots: int = 1, executor: str = "cpu", cpus: int | None = None, **more: object) -> Manager:
        id = len(self.scheduler.managers) + 1
        capacity = Capacity(1000 * (cpus or slots), slots=slots, **more)  # type: ignore[arg-type]
        manager = Manager(id, executor, f"block-{id}", f"node-{id}", capacity)
        self.scheduler.add_manager(manager)
        return manager

    def submit(self, count: int, cls: int = 1, fn: int = 1) -> list[Task]:
        tasks = []
        for _ in range(count):
            self.next_task += 1
            tasks.append(Task(self.next_task, 0, fn, cls, b""))
            self.scheduler.submit(tasks[-1])
        return tasks

    def step(self) -> dict[int, list[int]]:
        return {manager: [task.id for task in tasks] for manager, tasks in self.scheduler.step(0.0).items()}

    def end(self, manager: Manager, *ids: int, duration_us: int = 10_000_000) -> None:
        for id in ids:
            task = self.scheduler.tasks[id]
            self.scheduler.learn(task.fn, duration_us)
            self.scheduler.release(manager, task)


def test_work_packs_onto_the_oldest_manager_so_that_young_ones_can_drain() -> None:
    desk = Desk()
    desk.cls()
    for _ in range(3):
        desk.manager(slots=4)
    desk.submit(6)
    assert desk.step() == {1: [1, 2, 3, 4], 2: [5, 6]}


def test_a_freed_place_on_an_old_manager_is_used_before_a_young_ones() -> None:
    desk = Desk()
    desk.cls()
    old, young = desk.manager(slots=2), desk.manager(slots=2)
    desk.submit(4)
    desk.step()
    desk.end(young, 3)
    desk.end(old, 1)
    desk.submit(1)
    assert desk.step() == {1: [5]}
    desk.submit(1)
    assert desk.step() == {2: [6]}


def test_a_returned_task_goes_first() -> None:
    desk = Desk()
    desk.cls()
    manager = desk.manager()
    first, *_ = desk.submit(3)
    desk.step()
    desk.scheduler.release(manager, first)
    desk.scheduler.requeue(first)
    assert desk.step() == {1: [1]}
    assert first.attempt == 2


@pytest.mark.parametrize(
    ("urgent", "other"),
    [
        (Request(priority=1), Request()),
        (Request(gpus_milli=1000), Request()),
        (Request(memory_bytes=2000), Request(memory_bytes=1000)),
        (Request(priority=1), Request(gpus_milli=1000)),
    ],
)
def test_classes_are_served_by_priority_then_gpus_then_memory(urgent: Request, other: Request) -> None:
    desk = Desk()
    desk.cls(1, other)
    desk.cls(2, urgent)
    desk.submit(1, cls=1)
    desk.submit(1, cls=2)
    desk.manager(gpus=("0",))
    assert desk.step() == {1: [2]}


def test_what_does_not_fit_waits_and_smaller_work_passes_it() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=3000))
    desk.cls(2)
    manager = desk.manager(slots=4)
    desk.submit(2, cls=1)
    desk.submit(2, cls=2)
    assert desk.step() == {1: [1, 3]}
    desk.end(manager, 3)
    assert desk.step() == {1: [4]}
    desk.end(manager, 1)
    assert desk.step() == {1: [2]}


def test_a_manager_is_never_sent_what_it_could_not_ever_run() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=9000))
    desk.cls(2, executors=("gpu",))
    desk.cls(3, Request(num_nodes=2))
    desk.manager(slots=8)
    desk.manager(slots=8, depth_limited=True)
    for cls in (1, 2, 3):
        desk.submit(1, cls=cls)
    assert desk.step() == {2: [1]}


def test_short_tasks_are_sent_ahead_and_take_over_the_share_of_those_that_end() -> None:
    desk = Desk()
    desk.cls()
    manager = desk.manager(slots=2)
    desk.submit(1)
    desk.step()
    desk.end(manager, 1, duration_us=100)
    desk.submit(10_000)
    desk.step()
    assert len(manager.leases) == 2 + 2 * PREFILL_MAX
    assert manager.free_slots == 0
    for id in list(manager.leases):
        desk.end(manager, id, duration_us=100)
    desk.scheduler.settle()
    assert manager.free_slots == 2
    assert manager.active == manager.prefilled == {}


@pytest.mark.parametrize("crash_limit", [1, 5])
def test_long_tasks_and_those_that_may_run_once_are_not_sent_ahead(crash_limit: int) -> None:
    desk = Desk()
    desk.cls(crash_limit=crash_limit)
    manager = desk.manager(slots=2)
    desk.submit(1)
    desk.step()
    desk.end(manager, 1, duration_us=100 if crash_limit == 1 else 2_000_000)
    desk.submit(100)
    desk.step()
    assert len(manager.leases) == 2


def test_a_cancelled_task_is_passed_over_and_not_counted() -> None:
    desk = Desk()
    cls = desk.cls()
    tasks = desk.submit(5)
    desk.scheduler.forget(tasks[0])
    desk.scheduler.forget(tasks[2])
    assert cls.queued == 3
    desk.manager(slots=5)
    assert desk.step() == {1: [2, 4, 5]}
    assert cls.queued == 0
    assert desk.scheduler.tasks.keys() == {2, 4, 5}


def test_cancelled_tasks_do_not_pile_up_in_a_queue_that_nobody_reads() -> None:
    desk = Desk()
    cls = desk.cls()
    for task in desk.submit(10_000):
        desk.scheduler.forget(task)
    assert cls.queued == 0
    assert len(cls.queue) < 200


def test_managers_that_come_and_go_leave_nothing_behind() -> None:
    desk = Desk()
    cls = desk.cls()
    for _ in range(1000):
        manager = desk.manager()
        desk.step()
        desk.scheduler.remove_manager(manager)
    (section,) = desk.scheduler._sections.values()
    assert len(section._rooms.managers) < 200
    assert len(section._totals.managers) < 200
    assert not cls.sent_ahead


def test_tasks_sent_ahead_are_asked_back_when_another_manager_idles() -> None:
    desk = Desk()
    desk.cls()
    first = desk.manager(slots=1)
    desk.submit(1)
    desk.step()
    desk.end(first, 1, duration_us=1000)
    desk.submit(20)
    desk.step()
    assert desk.scheduler.any_ahead
    assert desk.scheduler.rebalance(0.0) == {}
    desk.manager(slots=5)
    desk.step()
    back = desk.scheduler.rebalance(0.0)
    assert [task.id for task in back[1]] == [21, 20, 19, 18, 17, 16, 15, 14, 13, 12]  # half of 19


def test_a_block_with_too_little_time_left_takes_nothing_until_it_has_more() -> None:
    desk = Desk()
    desk.cls()
    manager = desk.manager()
    manager.set_time_left(1000.0, 0.0)
    manager.set_time_left(50.0, 0.0)
    desk.submit(1)
    assert desk.step() == {}
    assert manager.set_time_left(500.0, 0.0)
    desk.scheduler.reopen(manager)
    assert desk.step() == {1: [1]}


def test_cancelling_a_hundred_thousand_queued_tasks_takes_no_time_to_speak_of() -> None:
    desk = Desk()
    desk.cls()
    tasks = desk.submit(100_000)
    start = time.process_time()
    for task in reversed(tasks):
        desk.scheduler.forget(task)
    assert time.process_time() - start < 2.0
