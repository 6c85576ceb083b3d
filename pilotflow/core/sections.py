"""Which managers may be given the same work, and which classes stand in line for them.

A *section* is the managers of one executor and dispatch mode. A *lane* is the waiting classes with
one binding, in the order in which managers of one mode take them. A section serves the lanes whose
binding admits its executor.
"""

from __future__ import annotations

from collections.abc import Iterator

from pilotflow.core.line import Key, Line
from pilotflow.core.needs import Needs, Offer
from pilotflow.core.room_index import RoomIndex
from pilotflow.core.supply import Manager, RequestClass

COUNTERWEIGHTS = 8
"""So many classes are looked at for one that uses what a more urgent one leaves idle."""


class Lane:
    """Waiting classes with one binding.

    Args:
        binding: the executors on which they may run; none stands for all.
        depth_limited: which managers serve the lane. Those that are depth-limited take from the
            small end, so that what is left for the others is what only they can fit well.

    Attributes:
        line: classes that some manager which is here could run sooner or later.
        shelf: classes that none of them could, which must not be in anybody's way.
        sections: the managers that serve the lane.
        reviewed: when the first of the line was last found to be there with reason.
    """

    def __init__(self, binding: frozenset[str], depth_limited: bool) -> None:
        self.binding = binding
        self.depth_limited = depth_limited
        self.line = Line(depth_limited)
        self.shelf = Line(depth_limited)
        self.sections: list[Section] = []
        self.reviewed = 0.0

    def put(self, cls: RequestClass) -> None:
        """A class waits, or has another first task."""
        (self.shelf if cls in self.shelf else self.line).put(cls)

    def drop(self, cls: RequestClass) -> None:
        """Nothing of a class waits any more."""
        self.line.drop(cls)
        self.shelf.drop(cls)

    def set_aside(self, cls: RequestClass) -> None:
        """No manager that is here could ever run the class."""
        self.line.drop(cls)
        self.shelf.put(cls)

    def take_up(self, limits: Needs) -> None:
        """A manager with these limits has come: classes that were set aside may have their chance."""
        while (cls := self.shelf.next(limits)) is not None:
            self.shelf.drop(cls)
            self.line.put(cls)


class Section:
    """Managers of one executor and mode."""

    def __init__(self, executor: str, depth_limited: bool) -> None:
        self.executor = executor
        self.depth_limited = depth_limited
        self.lanes: list[Lane] = []
        self._rooms = RoomIndex(Manager.offer)
        self._totals = RoomIndex(Manager.limits)

    def add(self, manager: Manager) -> None:
        """A manager has joined."""
        manager.section = self
        self._rooms.add(manager)
        self._totals.add(manager)

    def remove(self, manager: Manager) -> None:
        """A manager is gone."""
        self._rooms.remove(manager)
        self._totals.remove(manager)

    def update(self, manager: Manager) -> None:
        """What is free on a manager may have changed."""
        self._rooms.update(manager)

    def update_limits(self, manager: Manager) -> None:
        """What a manager would have if it were empty has changed."""
        self._rooms.update(manager)
        self._totals.update(manager)

    def with_room(self, cls: RequestClass, now: float) -> Iterator[Manager]:
        """Managers that may have room for a task of the class now, oldest first."""
        return self._rooms.with_at_least(_wanted(cls, now))

    def able(self, cls: RequestClass, now: float) -> Iterator[Manager]:
        """Managers that could run a task of the class if they were empty, oldest first."""
        managers = self._totals.with_at_least(_wanted(cls, now))
        return (manager for manager in managers if manager.could_ever_run(cls))

    def head(self) -> RequestClass | None:
        """The class that is next here."""
        if len(self.lanes) == 1:
            return self.lanes[0].line.first()
        firsts = [(lane.line.key(cls), cls) for lane in self.lanes if (cls := lane.line.first()) is not None]
        return min(firsts, key=_place)[1] if firsts else None

    def pick(self, room: Needs, after: Key) -> tuple[Key, RequestClass] | None:
        """The first class after that place which needs no more than this of anything, and its place."""
        best: tuple[Key, RequestClass] | None = None
        for lane in self.lanes:
            cls = lane.line.next(room, after)
            if cls is not None:
                key = lane.line.key(cls)
                if best is None or key < best[0]:
                    best = key, cls
        return best

    def key(self, cls: RequestClass) -> Key:
        """Where a class stands in its line."""
        return next(lane.line.key(cls) for lane in self.lanes if cls in lane.line)

    def rival_of(self, cls: RequestClass) -> float | None:
        """Id of the first task of the class that comes after this one, if that is of the same rank."""
        if len(self.lanes) == 1 and len(self.lanes[0].line) == 1:
            return None
        return self.rival(self.key(cls))

    def rival(self, key: Key) -> float | None:
        """Id of the first task of the class that comes after that place, if that is of the same rank."""
        first: Key | None = None
        for lane in self.lanes:
            other = lane.line.follower(key)
            if other is not None and (first is None or other < first):
                first = other
        return first[-1] if first is not None and first[:-1] == key[:-1] else None

    def leans(self, cls: RequestClass, manager: Manager) -> bool:
        """Whether soon after a class another one comes that takes more of what it leaves over of a node like this."""
        lean = manager.lean(cls)
        key: Key = self.key(cls)
        for _ in range(COUNTERWEIGHTS):
            found = self.pick(manager.limits_as_room(1), key)
            if found is None or found[1].order[:2] != cls.order[:2]:
                return False
            key, other = found
            if manager.lean(other) * lean < 0:
                return True
        return False


def _wanted(cls: RequestClass, now: float) -> Offer:
    cpus, memory, gpus, runtime, open_end, _ = cls.needs
    return Offer(cpus, memory, gpus, -1.0, now) if open_end else Offer(cpus, memory, gpus, now + runtime, -1.0)


def _place(entry: tuple[Key, RequestClass]) -> Key:
    return entry[0]
