"""Which task runs on which manager: greedy packing by request class, in order of urgency.

Tasks that ask for the same thing share a `RequestClass` and wait in one queue. Between two steps
this holds: no waiting task fits on any manager. So a step looks only at what has changed: managers
that have freed something are offered to the waiting classes, most urgent first, and a class that
has just begun to wait searches an index of managers by what is free on them. What a placement
costs does not depend on how many tasks wait or how many managers there are, and hardly on how many
classes wait.

Where the class of a task that has ended is also the most urgent one, its next task takes over the
share at once, and nothing is given back and taken again: the steady state of a big run.

Urgent work that finds no room is passed by smaller work, but not for ever: see `patience`.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf

from pilotflow.core.ahead import PREFILL_MAX, newest
from pilotflow.core.line import Key
from pilotflow.core.needs import Needs
from pilotflow.core.patience import PATIENCE_S
from pilotflow.core.sections import COUNTERWEIGHTS, Lane, Section
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.core.tables import Tables
from pilotflow.messages.records import Task

__all__ = ["PATIENCE_S", "PREFILL_MAX", "Manager", "RequestClass", "Scheduler"]

MANY = 16
"""Of a class of which so many tasks wait, some are passed by work that uses what they would leave idle."""
REBALANCE_MAX = 1_000
"""Idle slots looked for at once when tasks sent ahead are asked back."""

Leases = dict[int, list[Task]]
"""New leases by manager."""


class Scheduler(Tables):
    """Decides which task runs on which manager.

    Call the event methods as things happen, then `step` once a turn; it returns the new leases.
    """

    # ---- deciding ---------------------------------------------------------------------------

    @property
    def has_changed(self) -> bool:
        """Whether a step could place anything."""
        return bool(self._fresh or self.vacated or self._dirty)

    @property
    def any_waiting(self) -> bool:
        """Whether any task waits, so that a step could place one."""
        return bool(self._waiting)

    def tidy(self) -> None:
        """Note what has become free while nothing waits, which the next step has to do otherwise."""
        if not self._waiting and self.has_changed:
            self._free()

    def step(self, now: float) -> Leases:
        """Lease waiting tasks to managers; returns the new leases by manager."""
        leases: Leases = {}
        if not self._waiting:
            self._free()
            return leases
        if self._fresh:
            is_lone = len(self._waiting) == 1 and not self._dirty and not self.vacated
            if is_lone and self._place_lone(now, leases):
                return leases
            self._line_up(now)
        elif self._moved and len(self._waiting) > 1:
            self._line_up(now)
        if self.vacated:
            self._hand_over(now, leases)
        for manager in self._dirty.values():
            if manager.prefilled:
                self._ahead.start(manager, self.classes, self.tasks)
        for lane in self._all_lanes:
            if self._patience.is_due(lane, now):
                self._offer(self._patience.review(lane, self._dirty.values(), now))
        touched: dict[int, Manager] = {}
        while True:
            while self._dirty or self._fresh:  # placing urgent work may free what was kept for it
                dirty, self._dirty = self._dirty, {}
                fresh, self._fresh = self._fresh, {}
                self._moved.update(fresh)
                self._place(dirty, fresh, now, leases)
                touched.update(dirty)
            self._send_ahead(touched, now, leases)
            if not self._dirty:
                return leases

    def _free(self) -> None:
        """Nothing waits: note what is free now."""
        self.settle()
        for manager in self._dirty.values():
            if manager.prefilled:
                self._ahead.start(manager, self.classes, self.tasks)
            self._refresh(manager)
        self._dirty = {}
        self._moved.clear()

    def _place_lone(self, now: float, leases: Leases) -> bool:
        """Place the only class that waits, which has just begun to; False if there is no room for all of it.

        This is how a run is that is not full, and it should not cost what the order of many classes does.
        """
        (cls,) = self._fresh.values()
        if cls.request.num_nodes > 1:
            return False
        for lane in self._lanes_of(cls):
            for section in () if lane.depth_limited else lane.sections:
                for manager in section.with_room(cls, now):
                    while (task := cls.first()) is not None and manager.fits(cls, now):
                        cls.queue.popleft()
                        manager.take(cls, task.id)
                        self._lease(manager, task, leases)
                    self._refresh(manager)
                    if task is None:
                        self._stop_waiting(cls)
                        return True
        return False

    def _hand_over(self, now: float, leases: Leases) -> None:
        """Let the next tasks of the most urgent class take over the shares of those that have ended."""
        vacated, self.vacated = self.vacated, []
        if len(self._sections) == 1:
            self._inherit(vacated[0][0].section, vacated, now, leases)
            return
        by_section: dict[Section, list[tuple[Manager, int]]] = {}
        for entry in vacated:
            by_section.setdefault(entry[0].section, []).append(entry)
        for section, some in by_section.items():
            self._inherit(section, some, now, leases)

    def _inherit(self, section: Section, vacated: list[tuple[Manager, int]], now: float, leases: Leases) -> None:
        classes, dirty = self.classes, self._dirty
        heir = self._heir(section, len(vacated))
        if heir is None:
            for manager, cls_id in vacated:
                manager.give_back(classes[cls_id], 0)
                dirty[manager.id] = manager
            return
        wanted, queue = heir.id, heir.queue
        before = len(queue)
        may_lean = self._may_wait(heir, vacated[0][0]) and section.leans(heir, vacated[0][0])
        for manager, cls_id in vacated:
            if (
                cls_id != wanted
                or manager.closed
                or manager.reserved is not None
                or manager.prefilled
                or (may_lean and not manager.is_balanced_with(heir))
                or (manager.end_at is not None and not manager.lasts(heir, now))
            ):
                manager.give_back(classes[cls_id], 0)
                dirty[manager.id] = manager
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
        if len(queue) < before:
            self._was_placed(heir, now)

    @staticmethod
    def _heir(section: Section, count: int) -> RequestClass | None:
        """The class whose next tasks, so many at the most, come before everything else that waits for the section."""
        cls = section.head()
        if cls is None or cls.cancelled or cls.reserved or len(cls.queue) < count:
            return None  # with fewer tasks than shares the oldest managers are to have them
        rival = section.rival_of(cls)
        if rival is not None and cls.queue[count - 1].id > rival:
            return None
        return cls

    def _place(self, dirty: dict[int, Manager], fresh: dict[int, RequestClass], now: float, leases: Leases) -> None:
        """Offer managers that have changed to all classes, and all managers to classes that are new."""
        changed = [dirty[id] for id in sorted(dirty)]
        for manager in changed:
            self._refresh(manager)
        for depth_limited in (False, True):
            for manager in changed:
                if manager.section.depth_limited is depth_limited and self._waiting:
                    self._serve(manager, now, leases)
            if fresh:
                self._search([*fresh.values()], depth_limited, now, leases)
        for cls in fresh.values():
            for lane in self._lanes_of(cls) if cls.first() is not None else ():
                if not self._patience.possible(lane, cls, now):
                    lane.set_aside(cls)

    def _serve(self, manager: Manager, now: float, leases: Leases) -> None:
        """Give a manager what the most urgent classes ask for, until nothing fits."""
        section = manager.section
        after: Key = ()
        first: RequestClass | None = None  # of those that were held back for the balance
        looked = 0
        room: Needs | None = None
        any_placed = False
        while manager.free_slots > 0:
            if room is None or manager.reserved is not None:
                room = self._room(manager, after, now)
            found = section.pick(room, after) if looked < COUNTERWEIGHTS else None
            if first is not None and (found is None or found[1].order[:2] != first.order[:2]):
                any_placed = self._fill(manager, first, now, leases, None, most=1) or any_placed
                first, looked, after, room = None, 0, (), None
                continue
            if found is None:
                break
            after, cls = found
            task = cls.first()
            if task is not None and task.id != after[-1] and len(self._waiting) > 1:  # others may be older now
                self._put(cls)
                continue
            wary = first is not None or self._may_wait(cls, manager)
            if wary and cls.needs.nodes == 1 and not manager.is_balanced_by(cls):
                if manager.fits(cls, now):
                    first = first or cls
                    looked += 1
                continue
            rival = section.rival(after) if len(cls.queue) > 1 else None
            if cls.needs.nodes > 1:
                self._place_gangs(cls, now, leases, rival, near=manager)
                room = None
            elif self._fill(manager, cls, now, leases, rival, most=1 if wary else inf):
                any_placed, room = True, None
                if wary:
                    first, looked, after = None, 0, ()
            if rival is not None:
                self._put(cls)  # its next task may come after the rival's
        if any_placed:
            self._refresh(manager)

    def _room(self, manager: Manager, after: Key, now: float) -> Needs:
        """What a manager has for classes after that place."""
        kept = manager.reserved
        if kept is not None and after >= manager.section.key(kept.cls):
            return kept.room(manager, now)
        return manager.room(now, self.gangs.nodes_with(manager))

    def _may_wait(self, cls: RequestClass, manager: Manager) -> bool:
        """Whether one of many tasks of a class may be passed by work that uses what they leave idle there."""
        return (
            len(self._waiting) > 1
            and len(cls.queue) >= MANY
            and manager.capacity.memory_bytes > 0
            and not manager.capacity.depth_limited
        )

    def _search(self, fresh: list[RequestClass], depth_limited: bool, now: float, leases: Leases) -> None:
        """Place classes wherever there is room on managers of one mode, oldest managers first."""
        entries = [(lane, cls) for cls in fresh for lane in self._lanes_of(cls) if lane.depth_limited is depth_limited]
        heap = [(key, cls.id, lane) for lane, cls in entries if (key := lane.line.key_of(cls)) is not None]
        heapify(heap)
        while heap:
            key, id, lane = heappop(heap)
            cls = self.classes[id]
            rival = heap[0][0][-1] if heap and heap[0][0][:-1] == key[:-1] else None
            if cls.request.num_nodes == 1:
                self._search_for(cls, lane, now, leases, rival)
            elif not depth_limited:
                self._place_gangs(cls, now, leases, rival)
            new_key = lane.line.key_of(cls)
            if rival is not None and new_key is not None and new_key[-1] > rival:
                heappush(heap, (new_key, id, lane))

    def _search_for(self, cls: RequestClass, lane: Lane, now: float, leases: Leases, rival: float | None) -> None:
        for section in lane.sections:
            for manager in section.with_room(cls, now):
                if self._fill(manager, cls, now, leases, rival):
                    self._refresh(manager)
                first = cls.first()
                if first is None or (rival is not None and first.id > rival):
                    return

    def _fill(
        self, manager: Manager, cls: RequestClass, now: float, leases: Leases, rival: float | None, most: float = inf
    ) -> bool:
        """Give a manager tasks of a class that are older than a rival's until something is exhausted; False if none."""
        count = 0
        while manager.fits(cls, now) and (task := cls.first()) is not None and (rival is None or task.id < rival):
            cls.queue.popleft()
            manager.take(cls, task.id)
            self._lease(manager, task, leases)
            count += 1
            if count == most:
                break
        if count:
            self._was_placed(cls, now)
        return count > 0

    def _place_gangs(
        self, cls: RequestClass, now: float, leases: Leases, rival: float | None, near: Manager | None = None
    ) -> None:
        while (task := cls.first()) is not None and (rival is None or task.id < rival):
            managers = self.gangs.find(cls, now, near)
            if not managers:
                return
            cls.queue.popleft()
            self.gangs.form(task, managers)
            self._lease(managers[0], task, leases)
            for manager in managers:
                self._refresh(manager)
            self._was_placed(cls, now)

    def _send_ahead(self, changed: dict[int, Manager], now: float, leases: Leases) -> None:
        """Send managers more of what they run than they have room for, unless something more urgent waits for them."""
        classes = [cls for cls in self._moved.values() if cls.queue and self._ahead.may_send(cls)]
        if not classes:
            return
        managers = {**changed, **{id: self.managers[id] for id in leases}}
        for cls in sorted(classes, key=_urgency):
            calm = {section for section in self._sections.values() if not _is_wanted(section, cls)}
            may = [manager for manager in managers.values() if cls.id in manager.active and manager.section in calm]
            self._ahead.send(cls, may, now, lambda manager, task: self._lease(manager, task, leases))
            if cls.first() is None:
                self._stop_waiting(cls)

    def _was_placed(self, cls: RequestClass, now: float) -> None:
        cls.blocked_since = now
        if not cls.queue or cls.first() is None:
            self._stop_waiting(cls)
            return
        self._moved[cls.id] = cls
        if cls.reserved:
            self._offer(self._patience.release(cls))

    def _lease(self, manager: Manager, task: Task, leases: Leases) -> None:
        task.attempt += 1
        self._hold(manager, task)
        leases.setdefault(manager.id, []).append(task)

    # ---- asking back ------------------------------------------------------------------------

    @property
    def any_ahead(self) -> bool:
        """Whether `rebalance` has anything to look at."""
        return bool(self._ahead.classes)

    def rebalance(self, now: float) -> Leases:
        """Tasks sent ahead that others should have, by the manager that has them.

        Either another manager could run them now, or something more urgent waits for the one that
        has them. Call it a few times a second: what is really short has been run by the next time.
        """
        back: Leases = {}
        for cls in self._ahead.classes.values():
            idle = 0 if cls.queued else self._idle_slots(cls, now)
            left = REBALANCE_MAX
            for id in sorted(cls.sent_ahead):
                manager = self.managers[id]
                ahead = manager.prefilled[cls.id]
                if _is_wanted(manager.section, cls):
                    count = min(ahead, left)
                elif idle > 0:  # half of it at least, so that it is not long until one that stands still has none
                    count = min(ahead, left, max(idle, (ahead + 1) // 2))
                else:
                    count = 0
                if count > 0:
                    self._ahead.rest(manager, now)
                    left -= count
                    idle -= count
                    back.setdefault(id, []).extend(newest(manager, cls.id, count, self.tasks))
        return back

    def _idle_slots(self, cls: RequestClass, now: float) -> int:
        """Slots of managers with room for the class that were sent nothing of it ahead."""
        idle = 0
        for lane in self._lanes_of(cls):
            for section in lane.sections:
                for manager in section.with_room(cls, now):
                    if manager.id not in cls.sent_ahead and manager.fits(cls, now):
                        idle += manager.free_slots
                        if idle >= REBALANCE_MAX:
                            return idle
        return idle


def _urgency(cls: RequestClass) -> Key:
    first = cls.first()
    return (*cls.order, first.id if first is not None else 0)


def _is_wanted(section: Section, cls: RequestClass) -> bool:
    """Whether something of a higher priority than the class waits for managers of a section."""
    head = section.head()
    return head is not None and head.order[0] < cls.order[0]
