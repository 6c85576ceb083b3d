"""The scheduler's tables: what waits, what is leased and where, and the events that change them.

Nothing is decided here. What follows from an event is kept for the next step: classes that have
begun to wait or have another first task, managers that may take more, shares that are vacant.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from math import inf
from typing import Final

from pilotflow.core.ahead import Ahead
from pilotflow.core.gangs import Gangs
from pilotflow.core.patience import Patience
from pilotflow.core.sections import Lane, Section
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Task

COME_BACK_MAX: Final = 1000
"""Among so many waiting tasks the place of one that has come back is looked for."""


class Tables:
    """The queue of a run and the managers that serve it.

    Attributes:
        tasks: every task that waits (its `manager` is 0) or is leased.
        gangs: the tasks on several nodes that run.
        vacated: (manager, class) of each ended task whose share nobody has taken over yet.
    """

    def __init__(self) -> None:
        self.classes: dict[int, RequestClass] = {}
        self.managers: dict[int, Manager] = {}
        self.tasks: dict[int, Task] = {}
        self.gangs = Gangs(self.classes)
        self.vacated: list[tuple[Manager, int]] = []
        self._waiting: dict[int, RequestClass] = {}  # classes with something in their queue
        self._fresh: dict[int, RequestClass] = {}  # those of them that have searched for nothing yet
        self._moved: dict[int, RequestClass] = {}  # those whose first task is another one now
        self._dirty: dict[int, Manager] = {}  # managers that may take more than at the last step
        self._sections: dict[tuple[str, bool], Section] = {}  # by executor, and whether depth-limited
        self._lanes: dict[frozenset[str], list[Lane]] = {}  # by binding, one for each mode that is here
        self._all_lanes: list[Lane] = []
        self._patience = Patience(self.gangs, self.classes)
        self._ahead = Ahead()
        self.durations = self._ahead.durations
        self.learn = self.durations.learn

    # ---- events -----------------------------------------------------------------------------

    def add_class(self, cls: RequestClass) -> None:
        """A request class that tasks will name."""
        self.classes[cls.id] = cls

    def add_manager(self, manager: Manager) -> None:
        """A manager has joined."""
        self.managers[manager.id] = manager
        self.gangs.add(manager)
        key = (manager.executor, manager.capacity.depth_limited)
        section = self._sections.get(key)
        if section is None:
            section = self._sections[key] = Section(*key)
            for binding in self._lanes:
                self._connect(binding, section)
        section.add(manager)
        self.reopen(manager)

    def submit(self, task: Task) -> None:
        """A new task waits."""
        cls = self.classes[task.cls]
        self.tasks[task.id] = task
        task.manager = 0
        cls.queue.append(task)
        if cls.id not in self._waiting:
            self._waiting[cls.id] = self._fresh[cls.id] = cls

    def requeue(self, task: Task) -> None:
        """A task that was handed out waits again, before those that never were, among others like it as they came."""
        cls = self.classes[task.cls]
        self.tasks[task.id] = task
        task.manager = 0
        queue = cls.queue
        if queue and queue[0].id < task.id:  # those of several managers come back in any order
            queue.insert(_place_of(task, queue), task)
        else:
            queue.appendleft(task)
        if cls.id in self._waiting:
            self._moved[cls.id] = cls
        else:
            self._waiting[cls.id] = self._fresh[cls.id] = cls

    def forget(self, task: Task) -> None:
        """A waiting task is cancelled; its place in the queue is passed over."""
        del self.tasks[task.id]
        cls = self.classes[task.cls]
        cls.cancel(task)
        if cls.queued:
            self._moved[cls.id] = cls
        else:
            cls.take_all()
            self._stop_waiting(cls)

    def take_waiting(self, cls: RequestClass) -> list[Task]:
        """Take all tasks of a class out of the queue."""
        waiting = cls.take_all()
        for task in waiting:
            del self.tasks[task.id]
        self._stop_waiting(cls)
        return waiting

    def release(self, manager: Manager, task: Task) -> None:
        """A leased task has ended there, however it did."""
        id = task.id
        manager.leases.remove(id)
        del self.tasks[id]
        cls_id = task.cls
        if manager.gang is not None and manager.gang == id:
            self._offer(self.gangs.dissolve(id))
        elif manager.prefilled and (ahead := manager.prefilled.get(cls_id)):
            cls = self._moved[cls_id] = self.classes[cls_id]
            cls.blocked_since = inf
            if ahead > 1 and not manager.gpu_shares:
                manager.prefilled[cls_id] = ahead - 1
            else:
                self._ahead.hand_on(manager, cls, id, self.tasks)
            self._dirty[manager.id] = manager
        elif manager.gpu_shares and id in manager.gpu_shares:
            manager.give_back(self.classes[cls_id], id)
            self._dirty[manager.id] = manager
        else:
            self.vacated.append((manager, cls_id))

    def adopt(self, manager: Manager, task: Task, now: float) -> None:
        """A manager already holds this task, from before the interchange knew either."""
        cls = self.classes[task.cls]
        self.settle()
        if cls.request.num_nodes > 1 and not manager.capacity.depth_limited and not self.gangs.leads(manager):
            self.gangs.adopt(task, manager)
        elif manager.has_room(cls):
            manager.take(cls, task.id)
        else:  # it waits there, or the manager would hold more than it has
            self._ahead.set(manager, cls, manager.prefilled.get(cls.id, 0) + 1)
        self._dirty[manager.id] = manager
        self._hold(manager, task)

    def reopen(self, manager: Manager) -> None:
        """Something about the manager changed that may let it take more, or less."""
        manager.section.update_limits(manager)
        limits = manager.limits_as_room(len(manager.home.managers))
        for lane in manager.section.lanes:
            lane.take_up(limits)
        self._dirty[manager.id] = manager
        if manager.capacity.follows:  # what it is needed for begins at the head
            self._offer(manager.home.heads())

    def remove_manager(self, manager: Manager) -> list[Task]:
        """A manager is gone; returns the tasks it held, in the order in which they were submitted.

        A task on several nodes ends with each of them: it is among those that are returned,
        whichever of its managers this was. The one that leads it has to be told.
        """
        self.settle()
        gang = self.gangs.remove(manager)
        if gang is not None:
            gang.managers[0].leases.discard(gang.task.id)
            manager.leases.add(gang.task.id)
            self._offer(gang.managers)
        held = [self.tasks.pop(id) for id in sorted(manager.leases)]
        manager.leases.clear()
        manager.closed = True
        del self.managers[manager.id]
        self._dirty.pop(manager.id, None)
        manager.section.remove(manager)
        for cls_id in list(manager.prefilled):
            self._ahead.set(manager, self.classes[cls_id], 0)
        if manager.reserved is not None:
            self._offer(self._patience.release(manager.reserved.cls))
        return held

    def find(self, id: int) -> Task | None:
        """A task that is queued or leased."""
        return self.tasks.get(id)

    def holder(self, id: int) -> Manager | None:
        """The manager that holds a task, if one does."""
        task = self.tasks.get(id)
        return None if task is None else self.managers.get(task.manager)

    def leased(self, manager: Manager) -> list[Task]:
        """The tasks that a manager holds, in the order in which they were submitted."""
        return [self.tasks[id] for id in sorted(manager.leases)]

    def settle(self) -> None:
        """Give back the shares of tasks that have ended."""
        vacated, self.vacated = self.vacated, []
        for manager, cls_id in vacated:
            manager.give_back(self.classes[cls_id], 0)
            self._dirty[manager.id] = manager

    def _line_up(self, now: float) -> None:
        """Give classes their places in the lanes."""
        for cls in self._fresh.values():
            cls.blocked_since = now
        moved, self._moved = {**self._moved, **self._fresh}, {}
        for cls in moved.values():
            self._put(cls)

    def _lanes_of(self, cls: RequestClass) -> list[Lane]:
        lanes = self._lanes.get(cls.executors)
        if lanes is None:
            lanes = self._lanes[cls.executors] = []
            for section in self._sections.values():
                self._connect(cls.executors, section)
        return lanes

    def _connect(self, binding: frozenset[str], section: Section) -> None:
        """Let a section serve the classes with a binding, if that admits it."""
        if binding and section.executor not in binding:
            return
        lanes = self._lanes[binding]
        lane = next((lane for lane in lanes if lane.depth_limited is section.depth_limited), None)
        if lane is None:
            lane = Lane(binding, section.depth_limited)
            lanes.append(lane)
            self._all_lanes.append(lane)
            for cls in self._waiting.values():
                if cls.executors == binding:
                    lane.put(cls)
        lane.sections.append(section)
        section.lanes.append(lane)

    def _put(self, cls: RequestClass) -> None:
        for lane in self._lanes_of(cls):
            lane.put(cls)

    def _refresh(self, manager: Manager) -> None:
        manager.section.update(manager)
        self.gangs.update(manager)

    def _offer(self, managers: Iterable[Manager]) -> None:
        """These may take more than they could."""
        for manager in managers:
            if manager.id in self.managers:
                self._dirty[manager.id] = manager

    def _stop_waiting(self, cls: RequestClass) -> None:
        self._waiting.pop(cls.id, None)
        self._fresh.pop(cls.id, None)
        self._moved.pop(cls.id, None)
        for lane in self._lanes_of(cls):
            lane.drop(cls)
        self._offer(self._patience.release(cls))

    def _hold(self, manager: Manager, task: Task) -> None:
        task.manager = manager.id
        manager.leases.add(task.id)
        self.tasks[task.id] = task


def _place_of(task: Task, queue: Iterable[Task]) -> int:
    """How many tasks at the front of a queue are older than this one, of those that may have come back as well."""
    older = itertools.takewhile(lambda other: other.id < task.id, itertools.islice(queue, COME_BACK_MAX))
    return sum(1 for _ in older)
