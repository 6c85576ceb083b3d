"""Nodes kept free for urgent work that smaller work would pass by for ever.

The most urgent class of a lane that has found no room for `PATIENCE_S` gets a node, or as many as
it needs, on which nothing starts that would delay it. There is one such class a lane at a time:
the others get their turn when they are first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from math import inf

from pilotflow.core.gangs import Gangs
from pilotflow.core.needs import NOTHING, Needs
from pilotflow.core.sections import Lane
from pilotflow.core.supply import UNKNOWN, Manager, RequestClass

PATIENCE_S = 2.0
"""Smaller work passes a more urgent task that finds no room for so long, then nodes are kept free for it."""
REVIEW_S = 1.0
"""Whether what is first in a lane can have its way at all is looked at this often."""
CANDIDATES = 8
"""Nodes that are compared for a task, beside those that have just freed something."""


@dataclass(eq=False, frozen=True)
class Reservation:
    """What a node is kept free for.

    Attributes:
        cls: the class whose first task is to be the next that it takes.
    """

    cls: RequestClass
    _classes: Mapping[int, RequestClass]

    def delays(self, manager: Manager, cls: RequestClass, now: float) -> bool:
        """Whether a task of another class would take what the node is kept free for."""
        first = self.cls
        if cls is first or cls.is_before(first):
            return False
        needs, room = cls.needs, self.room(manager, now)
        return (
            needs.cpus > room.cpus
            or needs.memory > room.memory
            or needs.gpus > room.gpus
            or bool({name for name, _ in cls.request.resources} & {name for name, _ in first.request.resources})
        )

    def room(self, manager: Manager, now: float) -> Needs:
        """The largest needs that the node can meet without a delay for the class.

        Tasks beside which one of the class would not fit even on an otherwise empty node have to
        end before it can start, whatever else does: what they hold is as good as free.
        """
        wanted, capacity, has = self.cls.needs, manager.capacity, manager.room(now, 1)
        slots, cpus, memory = manager.free_slots - 1, has.cpus - wanted.cpus, has.memory - wanted.memory
        most_cpus, most_memory = capacity.cpus_milli - wanted.cpus, (capacity.memory_bytes or UNKNOWN) - wanted.memory
        for id, count in manager.active.items():
            needs = self._classes[id].needs
            if needs.cpus > most_cpus or needs.memory > most_memory:
                slots, cpus, memory = slots + count, cpus + count * needs.cpus, memory + count * needs.memory
        if wanted.nodes > 1 or slots <= 0 or cpus < 0:
            return NOTHING
        return has._replace(
            cpus=min(cpus, has.cpus),
            memory=min(max(memory, 0), has.memory),
            gpus=0 if wanted.gpus else has.gpus,
        )


class Patience:
    """Who has waited long enough, and what is kept free for them.

    Args:
        gangs: the managers by block.
        classes: all request classes by id.
    """

    def __init__(self, gangs: Gangs, classes: Mapping[int, RequestClass]) -> None:
        self._gangs = gangs
        self._classes = classes
        self._holders: dict[frozenset[str], RequestClass] = {}  # by binding

    def possible(self, lane: Lane, cls: RequestClass, now: float) -> bool:
        """Whether the managers that are here could ever run a task of the class."""
        if cls.request.num_nodes > 1:
            return self._gangs.enough(cls, now)
        return any(True for section in lane.sections for _ in section.able(cls, now))

    @staticmethod
    def is_due(lane: Lane, now: float) -> bool:
        """Whether `review` might find something to do."""
        cls = lane.line.first()
        if cls is None:
            return False
        if cls.blocked_since == inf:  # it has moved on without a step
            cls.blocked_since = now
        return now - cls.blocked_since >= PATIENCE_S or now - lane.reviewed >= REVIEW_S

    def review(self, lane: Lane, changed: Collection[Manager], now: float) -> list[Manager]:
        """See to the most urgent class of a lane.

        Returns:
            Managers that are kept free for somebody else no longer.
        """
        freed: list[Manager] = []
        if now - lane.reviewed >= REVIEW_S:
            lane.reviewed = now
            while (cls := lane.line.first()) is not None and not self.possible(lane, cls, now):
                lane.set_aside(cls)
                freed += self.release(cls)
            holder = self._holders.get(lane.binding)
            if holder is not None and not all(not m.closed and m.lasts(holder, now) for m in holder.reserved):
                freed += self.release(holder)
        cls = lane.line.first()
        if cls is None or lane.depth_limited or cls.reserved:
            return freed
        if now - cls.blocked_since >= PATIENCE_S:
            freed += self._reserve(lane, cls, changed, now)
        return freed

    def release(self, cls: RequestClass) -> list[Manager]:
        """Nothing is to be kept free for the class any more; returns what was."""
        freed = list(cls.reserved)
        if freed:
            for manager in freed:
                manager.reserved = None
            cls.reserved = ()
            del self._holders[cls.executors]
        return freed

    def _reserve(self, lane: Lane, cls: RequestClass, changed: Collection[Manager], now: float) -> list[Manager]:
        if cls.request.num_nodes == 1:
            chosen = self._node_for(lane, cls, changed, now)
        elif self._gangs.find(cls, now):
            return []
        else:
            chosen = self._gangs.soonest(cls, now)
            if not chosen:
                cls.blocked_since = now  # all nodes have been looked at, which is not to be done in each step
        if not chosen:
            return []
        holder = self._holders.get(cls.executors)
        freed = [] if holder is None else self.release(holder)
        reservation = Reservation(cls, self._classes)
        for manager in chosen:
            if manager.reserved is not None:
                freed += self.release(manager.reserved.cls)
            manager.reserved = reservation
        cls.reserved = chosen
        self._holders[cls.executors] = cls
        return [manager for manager in freed if manager.reserved is None]

    def _node_for(self, lane: Lane, cls: RequestClass, changed: Collection[Manager], now: float) -> tuple[Manager, ...]:
        """The node on which the class is likely to fit first; () if it fits on one now, or on none ever."""
        if any(manager.fits(cls, now) for manager in changed):
            return ()
        some = [manager for section in lane.sections for manager in islice(section.able(cls, now), CANDIDATES)]
        may = {manager.id: manager for manager in (*changed, *some) if _may_wait_for(manager, cls, now)}
        if not may:
            return ()
        return (min(may.values(), key=lambda one: (self._wait_s(one, cls), -_share_free(one, cls), one.id)),)

    def _wait_s(self, manager: Manager, cls: RequestClass) -> float:
        """How long at most until enough is free, as far as the tasks there have said how long they run."""
        if manager.gang is not None:
            return self._classes[self._gangs.by_task[manager.gang].task.cls].request.runtime_s or inf
        wanted = cls.needs
        slots, cpus, memory, gpus = manager.free_slots, manager.free_cpus, manager.free_memory, sum(manager.free_gpus)
        running = [(self._classes[id], count) for id, count in manager.active.items()]
        wait_s = 0.0
        for other, count in sorted(running, key=lambda entry: entry[0].request.runtime_s or inf):
            if slots > 0 and cpus >= wanted.cpus and memory >= wanted.memory and gpus >= wanted.gpus:
                break
            needs = other.needs
            slots, cpus, memory = slots + count, cpus + count * needs.cpus, memory + count * needs.memory
            gpus += count * needs.gpus
            wait_s = other.request.runtime_s or inf
        return wait_s


def _may_wait_for(manager: Manager, cls: RequestClass, now: float) -> bool:
    return (
        not manager.closed
        and not manager.capacity.depth_limited
        and (manager.reserved is None or cls.is_before(manager.reserved.cls))
        and manager.could_ever_run(cls)
        and manager.lasts(cls, now)
    )


def _share_free(manager: Manager, cls: RequestClass) -> float:
    """Which part of what the class needs a node has already, of what it lacks most."""
    if manager.gang is not None:
        return 0.0
    request = cls.request
    wanted = [(request.cpus_milli, manager.free_cpus), (request.memory_bytes, manager.free_memory)]
    wanted.append((request.gpus_milli, sum(manager.free_gpus)))
    wanted += [(amount, manager.free_resources.get(name, 0)) for name, amount in request.resources]
    return min((has / needs for needs, has in wanted if needs), default=1.0)
