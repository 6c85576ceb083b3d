"""Tasks on several nodes: whole nodes of one block, and nothing else on them meanwhile.

Of each block it is known which of its managers are empty, so that a task on several nodes is
looked at only where a manager has become empty, and a search passes over blocks with too few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Task


@dataclass(eq=False)
class Gang:
    """A multi-node task and the managers whose nodes it has, the one that leads first.

    Attributes:
        open: it ran before we knew; which nodes beside the leader's it has is not known, so that
            every idle one of the block counts as its own.
    """

    task: Task
    managers: tuple[Manager, ...]
    open: bool = False


@dataclass(eq=False)
class Block:
    """Managers of one block.

    Attributes:
        managers: all of them, by id.
        empty: those that hold nothing and take work, by id.
        gangs: multi-node tasks of which it is not known which nodes they have.
        followers: how many of the managers have no workers, see `Capacity.follows`.
    """

    managers: dict[int, Manager] = field(default_factory=dict)
    empty: dict[int, Manager] = field(default_factory=dict)
    gangs: list[Gang] = field(default_factory=list)
    followers: int = 0

    def heads(self) -> list[Manager]:
        """Those of its managers that have workers, if others follow them."""
        return [one for one in self.managers.values() if not one.capacity.follows] if self.followers else []


class Gangs:
    """Managers by block, and the multi-node tasks that have some of them.

    Args:
        classes: all request classes by id.

    Attributes:
        by_task: the gang of each multi-node task that holds nodes, by the task's id.
    """

    def __init__(self, classes: Mapping[int, RequestClass]) -> None:
        self.by_task: dict[int, Gang] = {}
        self._classes = classes
        self._blocks: dict[str, Block] = {}

    def add(self, manager: Manager) -> None:
        """A manager has joined."""
        block = self._blocks.get(manager.block)
        if block is None:
            block = self._blocks[manager.block] = Block()
        manager.home = block
        block.managers[manager.id] = manager
        block.followers += manager.capacity.follows
        for gang in block.gangs[:1]:
            _join(gang, manager)
        self.update(manager)

    def remove(self, manager: Manager) -> Gang | None:
        """A manager is gone; returns the gang that has lost a node with it, dissolved."""
        block = manager.home
        gang = None if manager.gang is None else self.by_task[manager.gang]
        if gang is not None and gang.open and gang.managers[0] is not manager:
            gang.managers = tuple(one for one in gang.managers if one is not manager)  # it may have been idle
            gang = None
        if gang is not None:
            self.dissolve(gang.task.id)
        del block.managers[manager.id]
        block.empty.pop(manager.id, None)
        block.followers -= manager.capacity.follows
        if not block.managers:
            del self._blocks[manager.block]
        return gang

    def update(self, manager: Manager) -> None:
        """What the manager holds may have changed."""
        empty = manager.home.empty
        if manager.leases or manager.gang is not None or manager.closed or manager.capacity.depth_limited:
            empty.pop(manager.id, None)
        else:
            empty[manager.id] = manager

    @staticmethod
    def nodes_with(manager: Manager) -> int:
        """Nodes of its block that a task could have together with that of a manager: 1 if it is not empty."""
        return 1 if manager.leases else max(1, len(manager.home.empty))

    def form(self, task: Task, managers: tuple[Manager, ...]) -> Gang:
        """The task has these managers' nodes."""
        gang = self.by_task[task.id] = Gang(task, managers)
        for manager in managers:
            manager.gang = task.id
            self.update(manager)
        return gang

    def leads(self, manager: Manager) -> bool:
        """Whether a multi-node task was leased to the manager."""
        return manager.gang is not None and self.by_task[manager.gang].managers[0] is manager

    def adopt(self, task: Task, leader: Manager) -> None:
        """A manager leads this task already, and nobody knows any more which other nodes are the task's."""
        if leader.gang is not None:  # it was idle, and taken for another gang's
            other = self.by_task[leader.gang]
            other.managers = tuple(manager for manager in other.managers if manager is not leader)
        gang = self.form(task, (leader,))
        gang.open = True
        block = leader.home
        block.gangs.append(gang)
        for manager in [*block.empty.values()]:
            _join(gang, manager)
            self.update(manager)

    def dissolve(self, id: int) -> tuple[Manager, ...]:
        """The task has ended; returns the managers that had a part in it."""
        gang = self.by_task.pop(id, None)
        if gang is None:
            return ()
        for manager in gang.managers:
            manager.gang = None
        if gang.open:
            block = gang.managers[0].home
            block.gangs.remove(gang)
            for other in block.gangs[:1]:  # what is idle may be this one's
                for manager in gang.managers[1:]:
                    _join(other, manager)
        for manager in gang.managers:
            self.update(manager)
        return gang.managers

    def find(self, cls: RequestClass, now: float, near: Manager | None = None) -> tuple[Manager, ...]:
        """Empty nodes of one block for a task of the class, or (); of a manager's block, if one is given."""
        count = cls.request.num_nodes
        for block in self._blocks.values() if near is None else (near.home,):
            if len(block.empty) < count:
                continue
            chosen: list[Manager] = []
            empty = sorted(block.empty.values(), key=_heads_first) if block.followers else block.empty.values()
            for manager in empty:
                if not manager.leases and _may_join(manager, cls, now):
                    chosen.append(manager)
                    if chosen[0].capacity.follows:
                        break  # nobody could lead
                    if len(chosen) == count:
                        return tuple(sorted(chosen, key=_heads_first))
        return ()

    def enough(self, cls: RequestClass, now: float) -> bool:
        """Whether the nodes of some block, if they were empty, are enough for a task of the class."""
        count = cls.request.num_nodes
        return any(
            len(block.managers) >= count
            and sum(_is_able(manager, cls, now) for manager in block.managers.values()) >= count
            and (not block.followers or any(_is_able(manager, cls, now) for manager in block.heads()))
            for block in self._blocks.values()
        )

    def soonest(self, cls: RequestClass, now: float) -> tuple[Manager, ...]:
        """The nodes of one block that are likely to be empty first, or () if no block has enough for the class.

        Nodes that another task on several nodes has now are among them.
        """
        count = cls.request.num_nodes
        best: tuple[Manager, ...] = ()
        least = (inf, inf)
        for block in self._blocks.values():
            if len(block.managers) < count:
                continue
            usable = [manager for manager in block.managers.values() if _may_join(manager, cls, now)]
            if len(usable) < count:
                continue
            loads = sorted((*self._load(manager), manager.id) for manager in usable)
            if block.followers:
                leads = next((each for each in loads if not block.managers[each[-1]].capacity.follows), None)
                if leads is None:
                    continue
                loads = [leads, *(each for each in loads if each != leads)]
            chosen = loads[:count]
            load = max(longest for longest, _, _ in chosen), sum(tasks for _, tasks, _ in chosen)
            if not best or load < least:
                best, least = tuple(block.managers[id] for id in sorted(id for *_, id in chosen)), load
        return best

    def _load(self, manager: Manager) -> tuple[float, int]:
        """How long a node may take to be empty, as far as its tasks have said, and how many they are."""
        running = list(manager.active)
        if manager.gang is not None:
            running.append(self.by_task[manager.gang].task.cls)
        runtimes = [self._classes[id].request.runtime_s for id in running]
        longest = max((inf if runtime is None else runtime for runtime in runtimes), default=0.0)
        return longest, len(manager.leases) + (manager.gang is not None)


def _join(gang: Gang, manager: Manager) -> None:
    """An idle manager may be one of the gang's."""
    gang.managers = (*gang.managers, manager)
    manager.gang = gang.task.id


def _is_able(manager: Manager, cls: RequestClass, now: float) -> bool:
    return (
        not manager.closed
        and not manager.capacity.depth_limited
        and manager.could_ever_run(cls)
        and manager.lasts(cls, now)
    )


def _may_join(manager: Manager, cls: RequestClass, now: float) -> bool:
    kept = manager.reserved
    return (kept is None or kept.cls is cls or cls.is_before(kept.cls)) and _is_able(manager, cls, now)


def _heads_first(manager: Manager) -> tuple[bool, int]:
    """Who leads comes first: the oldest of those that have workers."""
    return manager.capacity.follows, manager.id
