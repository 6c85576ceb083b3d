"""Finds a manager with enough room without looking at all of them.

A binary tree over managers in the order in which they joined. Each node keeps the largest free
cores, memory and GPUs among the managers below it, so that a search passes over whole subtrees
which are too full. Finding and changing one manager costs O(log managers).
"""

from __future__ import annotations

from pilotflow.core.supply import FULL, Manager


class RoomIndex:
    """Managers of one kind by what is free on them, oldest first."""

    def __init__(self) -> None:
        self.managers: list[Manager | None] = []
        self._size = 1  # leaves, a power of two; leaf i is node size + i
        self._cpus = [-1, -1]
        self._memory = [-1, -1]
        self._gpus = [-1, -1]
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
        self._set(manager.place, *FULL)
        self.managers[manager.place] = None
        self._gone += 1
        if self._gone > 16 and self._gone * 2 > len(self.managers):
            self.managers = [one for one in self.managers if one is not None]
            for place, one in enumerate(self.managers):
                assert one is not None
                one.place = place
            self._gone = 0
            self._rebuild()

    def update(self, manager: Manager) -> None:
        """What is free there may have changed."""
        self._set(manager.place, *manager.offer())

    def find(self, cpus: int, memory: int, gpus: int, start: int) -> int:
        """Place of the first manager from `start` on with that much of each; -1 if there is none.

        The amounts are upper bounds of what really fits (one GPU's halves are not one GPU).
        """
        size, cpus_of, memory_of, gpus_of = self._size, self._cpus, self._memory, self._gpus
        if start >= len(self.managers):
            return -1
        node = size + start
        while True:
            if cpus_of[node] >= cpus and memory_of[node] >= memory and gpus_of[node] >= gpus:
                if node >= size:
                    return node - size
                node *= 2
                continue
            while node & 1:  # a right child: everything below its parent has been passed
                node >>= 1
            if node == 0:
                return -1
            node += 1

    def _set(self, place: int, cpus: int, memory: int, gpus: int) -> None:
        node = self._size + place
        cpus_of, memory_of, gpus_of = self._cpus, self._memory, self._gpus
        if cpus_of[node] == cpus and memory_of[node] == memory and gpus_of[node] == gpus:
            return
        cpus_of[node], memory_of[node], gpus_of[node] = cpus, memory, gpus
        node >>= 1
        while node:
            left, right = 2 * node, 2 * node + 1
            cpus = max(cpus_of[left], cpus_of[right])
            memory = max(memory_of[left], memory_of[right])
            gpus = max(gpus_of[left], gpus_of[right])
            if cpus_of[node] == cpus and memory_of[node] == memory and gpus_of[node] == gpus:
                return
            cpus_of[node], memory_of[node], gpus_of[node] = cpus, memory, gpus
            node >>= 1

    def _rebuild(self) -> None:
        size = 1
        while size < len(self.managers):
            size *= 2
        self._size = size
        offers = [FULL if one is None else one.offer() for one in self.managers]
        offers += [FULL] * (size - len(offers))
        self._cpus, self._memory, self._gpus = ([-1] * size + [offer[i] for offer in offers] for i in range(3))
        for node in range(size - 1, 0, -1):
            for amounts in (self._cpus, self._memory, self._gpus):
                amounts[node] = max(amounts[2 * node], amounts[2 * node + 1])
