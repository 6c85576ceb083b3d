"""Finds a manager with enough room without looking at all of them.

A binary tree over managers in the order in which they joined. Each node keeps the largest free
cores, memory, GPUs and remaining times among the managers below it, so that a search passes over
whole subtrees which are too full or end too soon. Finding and changing one manager costs
O(log managers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pilotflow.core.needs import FULL, Offer
from pilotflow.core.supply import Manager

_OTHERS = 16
"""So many places may be of managers that are gone before the tree is made anew."""


class RoomIndex:
    """Managers of one kind by what they have, oldest first.

    Args:
        offer: what a manager has.
    """

    def __init__(self, offer: Callable[[Manager], Offer]) -> None:
        self.managers: list[Manager | None] = []
        self._offer = offer
        self._size = 1  # leaves, a power of two; leaf i is node size + i
        self._trees: list[list[float]] = [[-1.0, -1.0] for _ in FULL]
        self._gone = 0

    def add(self, manager: Manager) -> None:
        """A manager has joined; it comes after all others."""
        manager.place = len(self.managers)
        self.managers.append(manager)
        if len(self.managers) > self._size:
            self._rebuild()
        else:
            self.update(manager)

    def remove(self, manager: Manager) -> None:
        """A manager is gone."""
        self._set(manager.place, FULL)
        self.managers[manager.place] = None
        self._gone += 1
        if self._gone > _OTHERS and self._gone * 2 > len(self.managers):
            self.managers = [one for one in self.managers if one is not None]
            for place, one in enumerate(self.managers):
                assert one is not None
                one.place = place
            self._gone = 0
            self._rebuild()

    def update(self, manager: Manager) -> None:
        """What the manager has may have changed."""
        self._set(manager.place, self._offer(manager))

    def with_at_least(self, wanted: Offer) -> Iterator[Manager]:
        """Managers that have at least that much of each, oldest first; what they have may change meanwhile."""
        place = self._find(wanted, 0)
        while place >= 0:
            manager = self.managers[place]
            assert manager is not None
            if manager.closed:  # it was closed by somebody who does not know of this index
                self.update(manager)
            else:
                yield manager
            place = self._find(wanted, place + 1)

    def _find(self, wanted: Offer, start: int) -> int:
        """Place of the first manager from `start` on with that much of each; -1 if there is none."""
        if start >= len(self.managers):
            return -1
        size = self._size
        cpus_of, memory_of, gpus_of, until_of, start_by_of = self._trees
        cpus, memory, gpus, until, start_by = wanted
        node = size + start
        while True:
            if (
                cpus_of[node] >= cpus
                and memory_of[node] >= memory
                and gpus_of[node] >= gpus
                and until_of[node] >= until
                and start_by_of[node] >= start_by
            ):
                if node >= size:
                    return node - size
                node *= 2
                continue
            while node & 1:  # a right child: everything below its parent has been passed
                node >>= 1
            if node == 0:
                return -1
            node += 1

    def _set(self, place: int, offer: Offer) -> None:
        leaf = self._size + place
        for tree, amount in zip(self._trees, offer, strict=True):
            if tree[leaf] == amount:
                continue
            tree[leaf] = amount
            node = leaf >> 1
            while node:
                most = max(tree[2 * node], tree[2 * node + 1])
                if tree[node] == most:
                    break
                tree[node] = most
                node >>= 1

    def _rebuild(self) -> None:
        size = 1
        while size < len(self.managers):
            size *= 2
        self._size = size
        offers = [FULL if one is None else self._offer(one) for one in self.managers]
        offers += [FULL] * (size - len(offers))
        self._trees = [[-1.0] * size + [offer[i] for offer in offers] for i in range(len(FULL))]
        for tree in self._trees:
            for node in range(size - 1, 0, -1):
                tree[node] = max(tree[2 * node], tree[2 * node + 1])
