"""A scheduler, a clock that is set by hand, and short words for what happens to both."""

from __future__ import annotations

from collections import Counter

from pilotflow.core.scheduler import Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Task
from pilotflow.resources import DEFAULT_REQUEST, Capacity, Request, SortMethod

LONG_US = 10_000_000
"""Tasks that last so long are never sent ahead."""
SHORT_US = 1000


class Desk:
    """A scheduler with short words for what happens to it.

    Attributes:
        now: the time; a test sets it.
    """

    def __init__(self, method: SortMethod = SortMethod.GPUS_RUNTIME_MEMORY) -> None:
        self.scheduler = Scheduler()
        self.method = method
        self.now = 0.0
        self.next_task = 0
        self.next_manager = 0

    def cls(
        self,
        id: int = 1,
        request: Request = DEFAULT_REQUEST,
        executors: tuple[str, ...] = (),
        crash_limit: int = 5,
    ) -> RequestClass:
        """A new request class."""
        cls = RequestClass(id, request, executors, crash_limit, self.method)
        self.scheduler.add_class(cls)
        return cls

    def manager(
        self,
        slots: int = 1,
        executor: str = "cpu",
        cpus: int | None = None,
        block: str = "",
        left_s: float | None = None,
        **more: object,
    ) -> Manager:
        """A manager joins; of a block of its own unless that is said."""
        self.next_manager += 1
        id = self.next_manager
        capacity = Capacity(1000 * (cpus or slots), slots=slots, **more)  # type: ignore[arg-type]
        manager = Manager(id, executor, block or f"block-{id}", f"node-{id}", capacity)
        manager.set_time_left(left_s, self.now)
        self.scheduler.add_manager(manager)
        return manager

    def submit(self, count: int = 1, cls: int = 1, fn: int = 1) -> list[Task]:
        """New tasks, numbered on from 1."""
        tasks = []
        for _ in range(count):
            self.next_task += 1
            tasks.append(Task(self.next_task, 0, fn, cls, b""))
            self.scheduler.submit(tasks[-1])
        return tasks

    def step(self) -> dict[int, list[int]]:
        """Schedule; returns the ids of the tasks that each manager was given."""
        return {manager: [task.id for task in tasks] for manager, tasks in self.scheduler.step(self.now).items()}

    def end(self, *ids: int, duration_us: int = LONG_US) -> None:
        """These tasks have ended where they ran."""
        for id in ids:
            manager = self.scheduler.holder(id)
            assert manager is not None, f"task {id} does not run"
            task = self.scheduler.tasks[id]
            self.scheduler.learn(task.fn, duration_us)
            self.scheduler.release(manager, task)

    def held(self) -> dict[int, int]:
        """How many tasks each manager holds."""
        counts = Counter(task.manager for task in self.scheduler.tasks.values() if task.manager)
        return dict(sorted(counts.items()))
