"""Tasks on several nodes: whole nodes of one block, kept free until there are enough of them.

A task with `num_nodes` above 1 takes whole nodes, and nothing else runs on them meanwhile. Where
too few nodes of a block are empty, the ones that are soonest to be are reserved for it, so that
smaller work does not starve it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages import Task


@dataclass(eq=False)
class Gang:
    """A multi-node task and the managers whose nodes it has, the one that leads first."""

    task: Task
    managers: tuple[Manager, ...]


class Gangs:
    """Managers by block, and the multi-node tasks that have some of them.

    Attributes:
        by_task: the gang of each multi-node task that holds nodes, by the task's id.
    """

    def __init__(self) -> None:
        self.by_task: dict[int, Gang] = {}
        self._blocks: dict[str, dict[int, Manager]] = {}

    def add(self, manager: Manager) -> None:
        """A manager has joined."""
        self._blocks.setdefault(manager.block, {})[manager.id] = manager

    def remove(self, manager: Manager) -> None:
        """A manager is gone."""
        members = self._blocks[manager.block]
        del members[manager.id]
        if not members:
            del self._blocks[manager.block]

    def nodes_of(self, block: str) -> Iterable[Manager]:
        """The managers of a block."""
        return self._blocks.get(block, {}).values()

    def form(self, task: Task, managers: tuple[Manager, ...]) -> Gang:
        """The task has these managers' nodes."""
        gang = self.by_task[task.id] = Gang(task, managers)
        for manager in managers:
            manager.gang = task.id
        return gang

    def dissolve(self, id: int) -> tuple[Manager, ...]:
        """The task has ended; returns the managers whose nodes it had."""
        gang = self.by_task.pop(id, None)
        if gang is None:
            return ()
        for manager in gang.managers:
            manager.gang = 0
        return gang.managers

    def find(self, cls: RequestClass, now: float) -> tuple[Manager, ...]:
        """Empty nodes of one block for one task of the class, or ()."""
        best = self._best(cls, now)
        return best if all(_is_empty(manager) for manager in best) else ()

    def reserve(self, cls: RequestClass, now: float) -> tuple[Manager, ...]:
        """The nodes of one block that are soonest empty, or () if no block is big enough."""
        return self._best(cls, now)

    def _best(self, cls: RequestClass, now: float) -> tuple[Manager, ...]:
        """Nodes of the block where the least has to end first; the oldest block if there are several."""
        count = cls.request.num_nodes
        best: tuple[Manager, ...] = ()
        least = -1
        for members in self._blocks.values():
            if len(members) < count:
                continue
            usable = [manager for manager in members.values() if _may_join(manager, cls, now)]
            if len(usable) < count:
                continue
            chosen = sorted(usable, key=_load)[:count]
            load = sum(_load(manager)[0] for manager in chosen)
            if least < 0 or load < least:
                best, least = tuple(sorted(chosen, key=lambda manager: manager.id)), load
            if not load:
                break
        return best


def _may_join(manager: Manager, cls: RequestClass, now: float) -> bool:
    return (
        not manager.closed
        and not manager.gang
        and (manager.reserved is None or manager.reserved is cls or cls.order < manager.reserved.order)
        and not manager.capacity.depth_limited
        and manager.could_ever_run(cls)
        and manager.lasts(cls, now)
    )


def _load(manager: Manager) -> tuple[int, int]:
    return len(manager.leases), manager.id


def _is_empty(manager: Manager) -> bool:
    return not manager.leases
