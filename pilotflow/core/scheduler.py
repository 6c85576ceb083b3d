"""Which task runs on which manager: greedy packing by request class, in order of urgency.

Tasks that ask for the same thing share a `RequestClass` and wait in one queue. Between two steps
this holds: no waiting task fits on any manager. So a step looks only at what has changed: managers
that have freed something are offered to the waiting classes, most urgent first, and a class that
has just begun to wait searches an index of managers by what is free on them. What a placement
costs does not depend on how many tasks wait or how many managers there are.

Where the class of a task that has ended is also the most urgent one, its next task takes over the
share at once, and nothing is given back and taken again: the steady state of a big run.

Urgent work that finds no room is passed by smaller work for `PATIENCE_S`. Then a node, or as many
as it needs, is reserved for it: nothing starts there that would delay it.
"""

from __future__ import annotations

from collections.abc import Iterator

from pilotflow.core.ahead import PREFILL_MAX, Ahead, newest
from pilotflow.core.gangs import Gangs
from pilotflow.core.room_index import RoomIndex
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages import Task

__all__ = ["PREFILL_MAX", "Manager", "RequestClass", "Scheduler"]

PATIENCE_S = 2.0
"""Smaller work passes a more urgent task that finds no room for so long, then a node is kept free for it."""
REBALANCE_MAX = 1_000
"""Idle slots looked for at once when tasks sent ahead are asked back."""


class Scheduler:
    """The queue of a run and the managers that serve it.

    Call the event methods as things happen, then `step` once a turn; it returns the new leases.

    Attributes:
        tasks: every task that waits (its `manager` is 0) or is leased.
        vacated: (manager, class) of each ended task whose share nobody has taken over yet.
    """

    def __init__(self) -> None:
        self.classes: dict[int, RequestClass] = {}
        self.managers: dict[int, Manager] = {}
        self.tasks: dict[int, Task] = {}
        self.gangs = Gangs()
        self._waiting: dict[int, RequestClass] = {}  # classes with something in their queue
        self._fresh: dict[int, RequestClass] = {}  # those of them that have searched for nothing yet
        self._dirty: dict[int, Manager] = {}  # managers that may take more than at the last step
        self.vacated: list[tuple[Manager, int]] = []
        self._rooms: dict[tuple[str, bool], RoomIndex] = {}  # by executor, and whether depth-limited
        self._ahead = Ahead()
        self.learn = self._ahead.durations.learn

    # ---- events -----------------------------------------------------------------------------

    def add_class(self, cls: RequestClass) -> None:
        """A request class that tasks will name."""
        self.classes[cls.id] = cls

    def add_manager(self, manager: Manager) -> None:
        """A manager has joined."""
        self.managers[manager.id] = manager
        self.gangs.add(manager)
        key = (manager.executor, manager.capacity.depth_limited)
        if key not in self._rooms:
            self._rooms[key] = RoomIndex()
        self._rooms[key].add(manager)
        self._dirty[manager.id] = manager

    def submit(self, task: Task) -> None:
        """A new task waits."""
        cls = self.classes[task.cls]
        self.tasks[task.id] = task
        task.manager = 0
        cls.queue.append(task)
        if cls.id not in self._waiting:
            self._waiting[cls.id] = self._fresh[cls.id] = cls

    def requeue(self, task: Task) -> None:
        """A task that was handed out waits again, before those that never were."""
        cls = self.classes[task.cls]
        self.tasks[task.id] = task
        task.manager = 0
        cls.queue.appendleft(task)
        if cls.id not in self._waiting:
            self._waiting[cls.id] = self._fresh[cls.id] = cls

    def forget(self, task: Task) -> None:
        """A waiting task is cancelled; its place in the queue is passed over."""
        del self.tasks[task.id]
        cls = self.classes[task.cls]
        cls.cancel(task)
        if cls.reserved and not cls.queued:
            self._release_reservation(cls)

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
        if manager.gang:
            for member in self.gangs.dissolve(id):
                self._dirty[member.id] = member
        elif manager.prefilled and (ahead := manager.prefilled.get(cls_id, 0)):
            self._ahead.set(manager, self.classes[cls_id], ahead - 1)
            self._dirty[manager.id] = manager
        else:
            self.vacated.append((manager, cls_id))

    def adopt(self, manager: Manager, task: Task, now: float) -> None:
        """A manager already holds this task, from before the interchange knew either."""
        cls = self.classes[task.cls]
        self.settle()
        if manager.fits(cls, now):
            manager.take(cls)
        else:  # it waits there, or the manager would hold more than it has
            self._ahead.set(manager, cls, manager.prefilled.get(cls.id, 0) + 1)
        self._dirty[manager.id] = manager
        self._hold(manager, task)

    def reopen(self, manager: Manager) -> None:
        """Something about the manager changed that may let it take more, or less."""
        self._dirty[manager.id] = manager

    def remove_manager(self, manager: Manager) -> list[Task]:
        """A manager is gone; returns the tasks it held, in the order in which they were submitted."""
        self.settle()
        held = [self.tasks.pop(id) for id in sorted(manager.leases)]
        manager.leases.clear()
        manager.closed = True
        del self.managers[manager.id]
        self._dirty.pop(manager.id, None)
        self._rooms[manager.executor, manager.capacity.depth_limited].remove(manager)
        self.gangs.remove(manager)
        for cls_id in list(manager.prefilled):
            self._ahead.set(manager, self.classes[cls_id], 0)
        if manager.reserved is not None:
            self._release_reservation(manager.reserved)
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

    # ---- deciding ---------------------------------------------------------------------------

    @property
    def has_changed(self) -> bool:
        """Whether a step could place anything."""
        return bool(self._fresh or self.vacated or self._dirty)

    def step(self, now: float) -> dict[int, list[Task]]:
        """Lease waiting tasks to managers; returns the new leases by manager."""
        leases: dict[int, list[Task]] = {}
        ordered = self._ordered()
        self._hand_over(ordered, now, leases)
        dirty, self._dirty = self._dirty, {}
        fresh, self._fresh = self._fresh, {}
        if ordered and (dirty or fresh):
            self._place(ordered, dirty, fresh, now, leases)
        self._update_rooms(dirty)
        for cls in ordered:
            first = cls.first()
            if first is not None and self._ahead.may_send(cls, first) and cls.order[0] == ordered[0].order[0]:
                touched = {**dirty, **{id: self.managers[id] for id in leases}}
                self._ahead.send(cls, touched.values(), now, lambda manager, task: self._lease(manager, task, leases))
            if not cls.queue:
                self._stop_waiting(cls)
        return leases

    def _update_rooms(self, managers: dict[int, Manager]) -> None:
        for manager in managers.values():
            self._rooms[manager.executor, manager.capacity.depth_limited].update(manager)

    def _ordered(self) -> list[RequestClass]:
        """Waiting classes, most urgent first."""
        if len(self._waiting) == 1:
            return [*self._waiting.values()]
        return sorted(self._waiting.values(), key=_urgency)

    def _hand_over(self, ordered: list[RequestClass], now: float, leases: dict[int, list[Task]]) -> None:
        """Let the next tasks of the most urgent class take over the shares of those that have ended."""
        vacated, self.vacated = self.vacated, []
        cls = ordered[0] if ordered else None
        if cls is None or cls.cancelled or cls.reserved or cls.request.gpus_milli or len(cls.queue) < len(vacated):
            for manager, cls_id in vacated:
                manager.give_back(self.classes[cls_id])
                self._dirty[manager.id] = manager
            return
        queue, wanted, in_order = cls.queue, cls.id, len(ordered) > 1
        for manager, cls_id in vacated:
            if (
                cls_id != wanted
                or manager.closed
                or manager.reserved is not None
                or (in_order and manager.capacity.depth_limited)  # it takes from the other end
                or (manager.end_at is not None and not manager.lasts(cls, now))
            ):
                manager.give_back(self.classes[cls_id])
                self._dirty[manager.id] = manager
            else:
                task = queue.popleft()
                task.attempt += 1
                id = task.manager = manager.id
                manager.leases.add(task.id)
                new = leases.get(id)
                if new is None:
                    leases[id] = [task]
                else:
                    new.append(task)
        if leases:
            cls.blocked_since = None

    def settle(self) -> None:
        """Give back the shares of tasks that have ended."""
        self._hand_over([], 0.0, {})

    def _place(
        self,
        ordered: list[RequestClass],
        dirty: dict[int, Manager],
        fresh: dict[int, RequestClass],
        now: float,
        leases: dict[int, list[Task]],
    ) -> None:
        """Offer managers that have changed to all classes, and all managers to classes that are new."""
        if fresh:
            self._update_rooms(dirty)
        changed = [dirty[id] for id in sorted(dirty) if dirty[id].free_slots > 0]
        any_empty = any(not manager.leases for manager in changed)
        patient: set[frozenset[str]] = set()  # sets of executors where somebody more urgent has a reservation
        for depth_limited, classes in ((False, ordered), (True, ordered[::-1])):
            ready = [manager for manager in changed if manager.capacity.depth_limited is depth_limited]
            for cls in classes:
                if not cls.queue:
                    continue
                if cls.request.num_nodes > 1:
                    if not depth_limited and (any_empty or cls.id in fresh):
                        self._place_gangs(cls, now, leases)
                elif cls.id in fresh:
                    self._search(cls, depth_limited, now, leases)
                else:
                    for manager in ready:
                        if manager.free_slots > 0 and cls.admits(manager.executor):
                            self._fill(manager, cls, now, leases)
                            if not cls.queue:
                                break
                if cls.queue and not depth_limited and len(ordered) > 1 and cls.executors not in patient:
                    self._be_patient(cls, ready, now)
                    if cls.reserved:
                        patient.add(cls.executors)

    def _search(self, cls: RequestClass, depth_limited: bool, now: float, leases: dict[int, list[Task]]) -> None:
        """Place a class wherever there is room."""
        for manager in self._with_room(cls, depth_limited):
            if self._fill(manager, cls, now, leases):
                self._rooms[manager.executor, depth_limited].update(manager)
            if not cls.queue:
                return

    def _with_room(self, cls: RequestClass, depth_limited: bool) -> Iterator[Manager]:
        """Managers that may have room for a task of the class, oldest first."""
        request = cls.request
        wanted = (0, 0, 0) if depth_limited else (request.cpus_milli, request.memory_bytes, request.gpus_milli)
        for (executor, kind), rooms in self._rooms.items():
            if kind is not depth_limited or not cls.admits(executor):
                continue
            place = rooms.find(*wanted, 0)
            while place >= 0:
                manager = rooms.managers[place]
                assert manager is not None
                if manager.closed:
                    rooms.update(manager)
                else:
                    yield manager
                place = rooms.find(*wanted, place + 1)

    def _fill(self, manager: Manager, cls: RequestClass, now: float, leases: dict[int, list[Task]]) -> bool:
        """Give a manager tasks of a class until one of both is exhausted; False if it got none."""
        queue, any_placed = cls.queue, False
        while manager.fits(cls, now) and (task := cls.first()) is not None:
            queue.popleft()
            manager.take(cls)
            self._lease(manager, task, leases)
            any_placed = True
        if any_placed:
            self._was_placed(cls)
        return any_placed

    def _place_gangs(self, cls: RequestClass, now: float, leases: dict[int, list[Task]]) -> None:
        while (task := cls.first()) is not None and (managers := self.gangs.find(cls, now)):
            cls.queue.popleft()
            self.gangs.form(task, managers)
            self._lease(managers[0], task, leases)
            for manager in managers:
                self._rooms[manager.executor, False].update(manager)
            self._was_placed(cls)

    def _be_patient(self, cls: RequestClass, changed: list[Manager], now: float) -> None:
        """The class has found no room: keep some free for it if that has lasted too long."""
        if cls.reserved:
            if all(not m.closed and m.id in self.managers and m.lasts(cls, now) for m in cls.reserved):
                return
            self._release_reservation(cls)
        if cls.blocked_since is None:
            cls.blocked_since = now
        if now - cls.blocked_since < PATIENCE_S:
            return
        if cls.request.num_nodes > 1:
            chosen = self.gangs.reserve(cls, now)
        else:
            may = [m for m in changed if m.reserved is None and m.could_ever_run(cls) and m.lasts(cls, now)]
            chosen = tuple(sorted(may, key=lambda m: (-m.free_cpus, m.id))[:1])
        for manager in chosen:
            if manager.reserved is not None:
                self._release_reservation(manager.reserved)
            manager.reserved = cls
        cls.reserved = chosen

    def _was_placed(self, cls: RequestClass) -> None:
        cls.blocked_since = None
        if cls.reserved:
            self._release_reservation(cls)

    def _release_reservation(self, cls: RequestClass) -> None:
        for manager in cls.reserved:
            manager.reserved = None
            if manager.id in self.managers:
                self._dirty[manager.id] = manager
        cls.reserved = ()

    def _stop_waiting(self, cls: RequestClass) -> None:
        self._waiting.pop(cls.id, None)
        self._fresh.pop(cls.id, None)
        self._was_placed(cls)

    def _lease(self, manager: Manager, task: Task, leases: dict[int, list[Task]]) -> None:
        task.attempt += 1
        self._hold(manager, task)
        leases.setdefault(manager.id, []).append(task)

    def _hold(self, manager: Manager, task: Task) -> None:
        task.manager = manager.id
        manager.leases.add(task.id)
        self.tasks[task.id] = task

    # ---- asking back ------------------------------------------------------------------------

    @property
    def any_ahead(self) -> bool:
        """Whether `rebalance` has anything to look at."""
        return self._ahead.pairs > 0

    def rebalance(self, now: float) -> dict[int, list[Task]]:
        """Tasks sent ahead that others should have, by the manager that has them.

        Either another manager could run them now, or something more urgent waits. Call it a few
        times a second: what is really short has been run by the next time.
        """
        back: dict[int, list[Task]] = {}
        urgent = max((-cls.order[0] for cls in self._waiting.values()), default=None)
        for cls in self.classes.values():
            if not cls.sent_ahead:
                continue
            if urgent is not None and urgent > -cls.order[0]:
                wanted = REBALANCE_MAX
            elif not cls.queue:
                wanted = self._idle_slots(cls, now)
            else:
                continue
            for id in sorted(cls.sent_ahead):
                if wanted <= 0:
                    break
                count = min(self.managers[id].prefilled[cls.id], wanted)
                wanted -= count
                back.setdefault(id, []).extend(newest(self.managers[id], cls.id, count, self.tasks))
        return back

    def _idle_slots(self, cls: RequestClass, now: float) -> int:
        """Slots of managers with room for the class that were sent nothing of it ahead."""
        idle = 0
        for depth_limited in (False, True):
            for manager in self._with_room(cls, depth_limited):
                if manager.id not in cls.sent_ahead and manager.fits(cls, now):
                    idle += manager.free_slots
                    if idle >= REBALANCE_MAX:
                        return idle
        return idle


def _urgency(cls: RequestClass) -> tuple[tuple[float, ...], int]:
    first = cls.first()
    return cls.order, (first.id if first is not None else 0)
