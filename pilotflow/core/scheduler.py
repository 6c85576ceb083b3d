"""Which task runs on which manager: greedy packing by request class.

Tasks that ask for the same thing share a `RequestClass` and wait in one queue. Each class keeps
the managers that might take one more of its tasks in a heap, oldest manager first, so that work
packs onto old blocks and young ones can drain. A manager leaves a class's heap when it turns out
to be full, and comes back when it frees something. So the cost of a placement is O(log managers)
and does not depend on how many tasks wait.

Managers are sent a little more than they can run (*prefill*), of the class they are running, when
the function is known to be short: a worker then never waits for a round trip. Prefilled tasks
hold no resources; when a task ends, a prefilled one of its class takes over its share. If they
turn out to wait while another manager idles, `rebalance` says which to ask back. Tasks that may
not be tried twice are never sent ahead: a lost manager costs those that it might have run.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from pilotflow.core.durations import Durations
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages import Task

__all__ = ["Manager", "RequestClass", "Scheduler"]

PREFILL_HORIZON_US = 50_000
"""A worker is sent ahead at most this much expected work..."""
PREFILL_MAX = 128
"""...and at most this many tasks."""
PREFILL_LONGEST_US = 1_000_000
"""Tasks expected to last longer than this are never sent ahead."""
SCARCE = 256
"""With fewer tasks than this in a queue it matters on which of the managers with room they are packed."""
REBALANCE_MAX = 1_000
"""Idle slots looked for at once when tasks sent ahead are asked back."""


class Scheduler:
    """The queue of a run and the managers that serve it.

    Call the event methods as things happen, then `step` once a turn; it returns the new leases.
    """

    def __init__(self) -> None:
        self.classes: dict[int, RequestClass] = {}
        self.managers: dict[int, Manager] = {}
        self.queued: dict[int, Task] = {}
        self.holder: dict[int, Manager] = {}  # of each leased task, which is among its leases
        self._waiting: dict[int, RequestClass] = {}  # classes with something in their queue
        self._dirty: dict[int, Manager] = {}  # managers that freed something since the last step
        self._durations = Durations()
        self.learn = self._durations.learn
        self._ahead = 0  # pairs of manager and class with tasks sent ahead

    # ---- events -----------------------------------------------------------------------------

    def add_class(self, cls: RequestClass) -> None:
        """A request class that tasks will name."""
        self.classes[cls.id] = cls
        for manager in self.managers.values():
            if manager.could_ever_run(cls):
                _enter(cls, manager.id)

    def add_manager(self, manager: Manager) -> None:
        """A manager has joined."""
        self.managers[manager.id] = manager
        manager.left = [cls for cls in self.classes.values() if manager.could_ever_run(cls)]
        self._dirty[manager.id] = manager

    def submit(self, task: Task) -> None:
        """A new task waits."""
        self.queued[task.id] = task
        cls = self.classes[task.cls]
        cls.queue.append(task)
        self._waiting[cls.id] = cls

    def requeue(self, task: Task) -> None:
        """A task that was handed out waits again, before those that never were."""
        cls = self.classes[task.cls]
        self.queued[task.id] = task
        cls.queue.appendleft(task)
        self._waiting[cls.id] = cls

    def forget(self, task: Task) -> None:
        """A waiting task is cancelled; its place in the queue is passed over."""
        del self.queued[task.id]
        self.classes[task.cls].cancel(task)

    def take_waiting(self, cls: RequestClass) -> list[Task]:
        """Take all tasks of a class out of the queue."""
        waiting = cls.take_all()
        for task in waiting:
            del self.queued[task.id]
        self._waiting.pop(cls.id, None)
        return waiting

    def release(self, manager: Manager, task: Task) -> None:
        """A leased task has ended there, however it did."""
        id = task.id
        del manager.leases[id]
        del self.holder[id]
        cls_id = task.cls
        ahead = manager.prefilled.get(cls_id, 0)
        if ahead > 1:
            manager.prefilled[cls_id] = ahead - 1
        elif ahead:
            self._set_ahead(manager, self.classes[cls_id], 0)
        else:
            manager.give_back(self.classes[cls_id])
        self._dirty[manager.id] = manager

    def adopt(self, manager: Manager, task: Task, now: float) -> None:
        """A manager already holds this task, from before the interchange knew either."""
        cls = self.classes[task.cls]
        if manager.fits(cls, now):
            manager.take(cls)
        else:  # it waits there, or the manager would hold more than it has
            self._set_ahead(manager, cls, manager.prefilled.get(cls.id, 0) + 1)
        manager.leases[task.id] = task
        self.holder[task.id] = manager

    def reopen(self, manager: Manager) -> None:
        """Something about the manager changed that may let it take more."""
        self._dirty[manager.id] = manager

    def remove_manager(self, manager: Manager) -> list[Task]:
        """A manager is gone; returns the tasks it held."""
        held = list(manager.leases.values())
        for task in held:
            del self.holder[task.id]
        manager.leases.clear()
        manager.closed = True
        self.managers.pop(manager.id, None)
        self._dirty.pop(manager.id, None)
        self._ahead -= len(manager.prefilled)
        for cls in self.classes.values():
            cls.ahead.discard(manager.id)
            if manager.id in cls.members:
                cls.members.discard(manager.id)
                if len(cls.heap) > 64 + 2 * len(cls.members):  # of managers that came and went unused
                    cls.heap = list(cls.members)
                    heapify(cls.heap)
        return held

    def find(self, id: int) -> Task | None:
        """A task that is queued or leased."""
        holder = self.holder.get(id)
        return self.queued.get(id) if holder is None else holder.leases[id]

    def known(self) -> list[int]:
        """Every task that is queued or leased."""
        return [*self.queued, *self.holder]

    # ---- deciding ---------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether a step could place anything."""
        return bool(self._waiting)

    @property
    def any_dirty(self) -> bool:
        """Whether any manager has freed something since the last step."""
        return bool(self._dirty)

    def step(self, now: float) -> dict[int, list[Task]]:
        """Lease waiting tasks to managers; returns the new leases by manager."""
        dirty = self._dirty
        self._dirty = {}
        leases: dict[int, list[Task]] = {}
        ordered = sorted(self._waiting.values(), key=_by_order) if len(self._waiting) > 1 else [*self._waiting.values()]
        for cls in ordered:
            if cls.heap:
                _readmit(cls, dirty)
                self._place(cls, now, leases)
            else:
                self._place_on(cls, dirty, now, leases)
        for id, manager in dirty.items():
            if manager.free_slots > 0 and manager.left and not manager.closed:
                still: list[RequestClass] = []
                for cls in manager.left:
                    if cls.queue:  # it does not fit, or it would have been placed
                        still.append(cls)
                    else:
                        _enter(cls, id)
                manager.left = still
        for cls in ordered:
            first = cls.first()
            if first is None:
                del self._waiting[cls.id]
            elif cls.crash_limit > 1 and self._depth(first.fn):
                self._prefill(cls, {**dict.fromkeys(dirty), **dict.fromkeys(leases)}, leases, now)
                if not cls.queue:
                    del self._waiting[cls.id]
        return leases

    def rebalance(self, now: float) -> dict[int, list[Task]]:
        """Tasks sent ahead that wait while another manager could run them, by the manager that has them.

        Call it a few times a second: what is really short has been run by the next time.
        """
        back: dict[int, list[Task]] = {}
        for cls in self.classes.values():
            if not cls.ahead or cls.queue:
                continue
            idle = 0
            for id in cls.members:
                manager = self.managers.get(id)
                if manager is not None and id not in cls.ahead and manager.fits(cls, now):
                    idle += manager.free_slots
                    if idle >= REBALANCE_MAX:
                        break
            for id in cls.ahead:
                if idle <= 0:
                    break
                count = min(self.managers[id].prefilled[cls.id], idle)
                idle -= count
                back.setdefault(id, []).extend(_newest(self.managers[id], cls.id, count))
        return back

    @property
    def any_ahead(self) -> bool:
        """Whether `rebalance` has anything to look at."""
        return self._ahead > 0

    def _place(self, cls: RequestClass, now: float, leases: dict[int, list[Task]]) -> None:
        queue, heap = cls.queue, cls.heap
        while queue and heap:
            if queue[0].attempt < 0:  # cancelled meanwhile
                queue.popleft()
                cls.cancelled -= 1
                continue
            id = heap[0]
            manager = self.managers.get(id)
            if manager is None:
                heappop(heap)
            elif manager.free_slots <= 0 or not manager.fits(cls, now):
                heappop(heap)
                cls.members.discard(id)
                manager.left.append(cls)
            else:
                manager.take(cls)
                self._lease(manager, queue.popleft(), leases)

    def _place_on(
        self, cls: RequestClass, freed: dict[int, Manager], now: float, leases: dict[int, list[Task]]
    ) -> None:
        """Place on managers that have just freed something, as no other has room: the steady state."""
        queue = cls.queue
        managers = freed.values() if len(queue) > SCARCE else [freed[id] for id in sorted(freed)]
        for manager in managers:
            if manager.free_slots <= 0 or cls not in manager.left:
                continue
            while manager.free_slots > 0 and manager.fits(cls, now) and (task := cls.first()) is not None:
                queue.popleft()
                manager.take(cls)
                self._lease(manager, task, leases)
            if not queue:
                return

    def _prefill(self, cls: RequestClass, touched: Iterable[int], leases: dict[int, list[Task]], now: float) -> None:
        """Send ahead to managers that run this class and have just finished or got something."""
        for id in touched:
            manager = self.managers.get(id)
            if manager is None or manager.closed:
                continue
            active = manager.active.get(cls.id, 0)
            if not active or not manager.lasts(cls, now + PREFILL_HORIZON_US / 1e6):
                continue
            ahead = before = manager.prefilled.get(cls.id, 0)
            while (task := cls.first()) is not None and active * self._depth(task.fn) > ahead:
                cls.queue.popleft()
                ahead += 1
                self._lease(manager, task, leases)
            if ahead != before:
                self._set_ahead(manager, cls, ahead)
            if not cls.queue:
                return

    def _depth(self, fn: int) -> int:
        if self._durations.longer_than(fn, PREFILL_LONGEST_US):
            return 0
        return self._durations.fit(fn, PREFILL_HORIZON_US, PREFILL_MAX) or 1

    def _set_ahead(self, manager: Manager, cls: RequestClass, count: int) -> None:
        if count:
            manager.prefilled[cls.id] = count
            if manager.id not in cls.ahead:
                cls.ahead.add(manager.id)
                self._ahead += 1
        else:
            del manager.prefilled[cls.id]
            cls.ahead.discard(manager.id)
            self._ahead -= 1

    def _lease(self, manager: Manager, task: Task, leases: dict[int, list[Task]]) -> None:
        task.attempt += 1
        id = task.id
        del self.queued[id]
        manager.leases[id] = task
        self.holder[id] = manager
        new = leases.get(manager.id)
        if new is None:
            leases[manager.id] = [task]
        else:
            new.append(task)


def _enter(cls: RequestClass, manager_id: int) -> None:
    cls.members.add(manager_id)
    heappush(cls.heap, manager_id)


def _readmit(cls: RequestClass, freed: dict[int, Manager]) -> None:
    """Managers that have freed something may take the class again."""
    for id, manager in freed.items():
        if manager.free_slots > 0 and cls in manager.left and not manager.closed:
            manager.left.remove(cls)
            _enter(cls, id)


def _newest(manager: Manager, cls_id: int, count: int) -> list[Task]:
    """The class's tasks that came last, which are the least likely to have started."""
    found: list[Task] = []
    for task in reversed(manager.leases.values()):
        if len(found) >= count:
            break
        if task.cls == cls_id:
            found.append(task)
    return found


def _by_order(cls: RequestClass) -> tuple[tuple[float, ...], int]:
    first = cls.first()
    return cls.order, (first.id if first is not None else 0)
