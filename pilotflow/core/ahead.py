"""Tasks sent ahead to managers that cannot start them yet, so that no worker waits for a round trip.

A manager that runs a class of short tasks is sent a little more of it than it can run (*prefill*).
Such tasks hold no resources: when a task ends, one of its class that was sent ahead takes over its
share. If they turn out to wait while somebody idles, or while more urgent work finds no room, they
are asked back. Tasks that may not be tried twice are never sent ahead: a lost manager costs those
that it might have run. Nor are tasks with GPUs: which devices are free is known by task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pilotflow.core.durations import Durations
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Task

HORIZON_US = 50_000
"""A worker is sent ahead at most this much expected work..."""
PREFILL_MAX = 128
"""...and at most this many tasks."""
REST_S = 1.0
"""A manager from which tasks are asked back is sent none ahead for so long."""
LONGEST_US = 1_000_000
"""Tasks expected to last longer than this are never sent ahead."""


class Ahead:
    """Who was sent what ahead, and how much more they may get.

    Attributes:
        classes: those of which tasks were sent ahead, by id.
    """

    def __init__(self) -> None:
        self.classes: dict[int, RequestClass] = {}
        self.durations = Durations()
        self._resting: dict[int, float] = {}  # managers that are sent none for now, and until when

    def may_send(self, cls: RequestClass) -> bool:
        """Whether the tasks of the class that wait, if any do, may go ahead."""
        first = cls.first()
        return (
            first is not None
            and cls.crash_limit > 1
            and cls.request.num_nodes == 1
            and not cls.request.gpus_milli
            and self._depth(first.fn) > 0
        )

    def send(
        self, cls: RequestClass, managers: Iterable[Manager], now: float, lease: Callable[[Manager, Task], None]
    ) -> None:
        """Send ahead to those of these managers that run the class, as long as tasks of it wait."""
        for manager in managers:
            active = manager.active.get(cls.id, 0)
            if not active or manager.closed or not manager.lasts(cls, now + HORIZON_US / 1e6):
                continue
            if manager.reserved is not None and manager.reserved.cls is not cls:
                continue  # it is to empty
            if self._resting and now < self._resting.get(manager.id, now):
                continue
            ahead = before = manager.prefilled.get(cls.id, 0)
            while (task := cls.first()) is not None and active * self._depth(task.fn) > ahead:
                cls.queue.popleft()
                ahead += 1
                lease(manager, task)
            if ahead != before:
                self.set(manager, cls, ahead)
            if not cls.queue:
                return

    def rest(self, manager: Manager, now: float) -> None:
        """Tasks are asked back from the manager: send it nothing ahead for a while, or it would have them again."""
        self._resting = {id: until for id, until in self._resting.items() if until > now}
        self._resting[manager.id] = now + REST_S

    def set(self, manager: Manager, cls: RequestClass, count: int) -> None:
        """So many tasks of the class are ahead there now."""
        if count:
            manager.prefilled[cls.id] = count
            cls.sent_ahead.add(manager.id)
            self.classes[cls.id] = cls
        elif manager.prefilled.pop(cls.id, 0):
            cls.sent_ahead.discard(manager.id)
            if not cls.sent_ahead:
                del self.classes[cls.id]

    def start(self, manager: Manager, classes: Mapping[int, RequestClass], tasks: Mapping[int, Task]) -> None:
        """Something was freed there: the manager starts of itself what it was sent ahead and has room for."""
        for cls_id, ahead in list(manager.prefilled.items()):
            cls = classes[cls_id]
            count = ahead
            while count and manager.has_room(cls):
                manager.take(cls, _next_without_share(manager, cls, tasks))
                count -= 1
            if count != ahead:
                self.set(manager, cls, count)

    def hand_on(self, manager: Manager, cls: RequestClass, id: int, tasks: Mapping[int, Task]) -> None:
        """A task has ended where others of its class are ahead: one of them has its share now."""
        self.set(manager, cls, manager.prefilled[cls.id] - 1)
        devices = manager.gpu_shares.pop(id, None)
        if devices is not None:
            manager.gpu_shares[_next_without_share(manager, cls, tasks)] = devices

    def _depth(self, fn: int) -> int:
        if self.durations.longer_than(fn, LONGEST_US):
            return 0
        return self.durations.fit(fn, HORIZON_US, PREFILL_MAX) or 1


def newest(manager: Manager, cls_id: int, count: int, tasks: Mapping[int, Task]) -> list[Task]:
    """The class's tasks that came last, which are the least likely to have started."""
    found: list[Task] = []
    for id in sorted(manager.leases, reverse=True):
        if len(found) >= count:
            break
        if tasks[id].cls == cls_id:
            found.append(tasks[id])
    return found


def _next_without_share(manager: Manager, cls: RequestClass, tasks: Mapping[int, Task]) -> int:
    """The task that was sent ahead and will start next; it matters for GPUs alone, which are known by task."""
    if not cls.request.gpus_milli:
        return 0
    return min(id for id in manager.leases if tasks[id].cls == cls.id and id not in manager.gpu_shares)
