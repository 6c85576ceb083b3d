"""How many more blocks of which executors the queue is worth.

What waits fits into nothing that is free: the scheduler has offered that to it before the load was
told. So the queue is packed, class by class, into nodes that are on their way, and what is left
over into blocks that could be requested, the cheapest ones first. All executors of a run are looked
at together, so that work which may run on any of them asks for room on one of them only.

The rules:

- A class asks only for blocks that would take it: enough cores, memory, GPUs and consumables on one
  node, enough nodes, enough walltime. What is not known yet counts as unlimited, so an executor of
  which nothing is known asks for one block first, and for the rest when that has told what it has.
- Cheap is a block with few cores and GPUs for what it takes. Blocks that are certain to fit come
  before others, and executors that work before those whose blocks have just failed to start.
- `parallelism` below 1 lets so many tasks share a slot: each task that runs or has found room
  speaks for 1 / parallelism tasks of its executor. The first one always gets its block.
- Short tasks count for what they take together: what the slots that run a class already will have
  done of it within `SOON_S` asks for nothing, and the rest for so many slots that it is done by then.
- Where a block idles although a class that fits there waits, another one would not help that class.

The cost is that of classes times executors, whatever the number of tasks; equal nodes are counted,
not listed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pilotflow.core.node_room import Room, empty_room, less, tasks_in
from pilotflow.core.shapes import Nodes, fits, is_certain, needed_s
from pilotflow.messages.records import ClassLoad
from pilotflow.resources import NodeShape, Request

GPU_CORES: Final = 16
"""A GPU is worth so many cores when blocks are compared: work without GPUs leaves them to others."""
OPEN_MAX: Final = 12
"""Kinds of partly filled nodes that are told apart, or up to twice as many; the fullest others count as full."""
SOON_S: Final = 1.0
"""A block takes at least so long to come: for work that is done by then none is requested."""
_EPSILON: Final = 1e-9


@dataclass(frozen=True)
class IdleBlock:
    """A block that had nothing to do when the load was told.

    Attributes:
        kinds: what its nodes have.
        nodes: how many they are.
        time_left_s: of its walltime.
    """

    kinds: tuple[NodeShape, ...]
    nodes: int
    time_left_s: float

    def would_take(self, request: Request, needed: float) -> bool:
        """Whether a task should have found room here."""
        return (
            request.num_nodes <= self.nodes
            and needed <= self.time_left_s
            and any(fits(request, kind) for kind in self.kinds)
        )


@dataclass(frozen=True)
class Supply:
    """What one executor's blocks offer to the queue, and what they could.

    Attributes:
        nodes: what is known of them.
        parallelism: slots for each task, 0 to 1.
        room: blocks that could be requested.
        coming: nodes that are on their way and blocks that bring so many: pairs of (nodes, blocks).
        leased: tasks that its managers hold.
        idle: blocks without work.
        failing: whether its last blocks did not start, or did not last.
    """

    nodes: Nodes
    parallelism: float = 1.0
    room: int = 0
    coming: tuple[tuple[int, int], ...] = ()
    leased: int = 0
    idle: tuple[IdleBlock, ...] = ()
    failing: bool = False


class Queue:
    """What waited when the load was told, by request class.

    Args:
        classes: as in `Load`.
    """

    def __init__(self, classes: Iterable[ClassLoad] = ()) -> None:
        self.classes = tuple(classes)
        self._least: dict[tuple[str, NodeShape, int], float | None] = {}

    def wants(self, executor: str, block: IdleBlock, walltime_s: float | None) -> bool:
        """Whether something that waits could run on this block; else it idles for nothing."""
        least = [self._least_s(executor, kind, block.nodes, walltime_s) for kind in block.kinds]
        return any(needed is not None and needed <= block.time_left_s for needed in least)

    def _least_s(self, executor: str, kind: NodeShape, nodes: int, walltime_s: float | None) -> float | None:
        """The least time that something needs which waits and fits there; None if nothing does."""
        key = (executor, kind, nodes)
        if key not in self._least:
            times = [
                needed_s(cls.request, walltime_s)
                for cls in self.classes
                if (not cls.executors or executor in cls.executors)
                and cls.request.num_nodes <= nodes
                and fits(cls.request, kind)
            ]
            self._least[key] = min(times, default=None)
        return self._least[key]


class Planner:
    """Says how many blocks are missing, and stands by it.

    It thinks again only when something has changed. And what it has found room for somewhere, it
    looks for there first: blocks that were requested for one kind of work are not given to another,
    only to be requested again.
    """

    def __init__(self) -> None:
        self._queue: Queue | None = None
        self._supplies: Sequence[Supply] = ()
        self._missing: dict[str, int] = {}
        self._promised: dict[str, dict[Request, float]] = {}

    def missing(self, queue: Queue, supplies: Sequence[Supply]) -> dict[str, int]:
        """How many blocks to request of each executor, beyond those that are on their way."""
        if queue is self._queue and supplies == self._supplies:
            return self._missing
        self._queue, self._supplies, self._missing = queue, supplies, {}
        if any(supply.room > 0 for supply in supplies):
            stores = [
                _Store(supply, rank, self._promised.get(supply.nodes.blocks.executor))
                for rank, supply in enumerate(supplies)
            ]
            _distribute(queue, stores)
            self._missing = {store.label: store.bought for store in stores if store.bought}
            self._promised = {store.label: store.given for store in stores}
        return self._missing


def _distribute(queue: Queue, stores: Sequence[_Store]) -> None:
    """Find room for what waits, and buy what is missing."""
    groups = _by_need(queue, stores)
    for at, (request, takers, waiting) in enumerate(groups):
        for store in takers:
            waiting = store.keep(request, waiting)
        groups[at] = request, takers, waiting
    for request, takers, left in groups:
        for store in takers:
            left = store.share(request, left)
        for doubtful in (False, True):
            if left <= _EPSILON:
                break
            able = [store for store in takers if store.is_doubtful(request) is doubtful]
            if len(able) > 1:
                able.sort(key=lambda store: store.price(request, left))
            for store in able:
                left = store.place(request, left)
            while left > _EPSILON and (able := [store for store in able if store.room > 0]):
                cheapest = min(able, key=lambda store: store.price(request, left))
                left = cheapest.buy(request, left)


def _by_need(queue: Queue, stores: Sequence[_Store]) -> list[tuple[Request, tuple[_Store, ...], float]]:
    """What waits by what it takes of a node and who would take it: those with the least choice first, large ones first."""
    by_label = {store.label: store for store in stores}
    groups: dict[tuple[Request, tuple[int, ...]], float] = {}
    for cls in queue.classes:
        request = cls.request
        may = [by_label[name] for name in cls.executors if name in by_label] if cls.executors else stores
        takers = tuple(store.rank for store in may if store.would_help(request))
        worth = _slots_worth(cls)
        if takers and worth > _EPSILON:
            need = Request(
                request.cpus_milli,
                request.memory_bytes,
                request.gpus_milli,
                request.num_nodes,
                resources=request.resources,
            )
            groups[need, takers] = groups.get((need, takers), 0) + worth
    entries = [(need, tuple(stores[rank] for rank in takers), waiting) for (need, takers), waiting in groups.items()]
    return sorted(entries, key=_constraint)


def _slots_worth(cls: ClassLoad) -> float:
    """For how many slots more the waiting tasks of a class are work."""
    expected_s = cls.expected_s
    if expected_s is None or expected_s >= SOON_S:
        return cls.queued
    wanted = cls.queued * expected_s / SOON_S
    return wanted - cls.running if cls.running else max(1.0, wanted)


def _constraint(entry: tuple[Request, tuple[_Store, ...], float]) -> tuple[int, ...]:
    request, takers, _ = entry
    return len(takers), -request.num_nodes, -request.gpus_milli, -request.memory_bytes, -request.cpus_milli


class _Store:
    """What blocks of one executor can still take: nodes that are coming, and blocks that could be had.

    Args:
        supply: what it has.
        rank: its place among the executors.
        promised: tasks for which it was to have room when that was looked at last.
    """

    def __init__(self, supply: Supply, rank: int, promised: Mapping[Request, float] | None = None) -> None:
        self.label = supply.nodes.blocks.executor
        self.rank = rank
        self.room = supply.room
        self.bought = 0
        self.given: dict[Request, float] = {}  # tasks that it has room for
        self._promised = {} if supply.failing or not promised else dict(promised)
        self._supply = supply
        self._nodes = supply.nodes
        self._per_block = supply.nodes.blocks.nodes
        self._share = supply.parallelism
        self._credit = _times(supply.leased, self._share) - supply.leased if supply.leased else 0.0
        self._blocks = dict(supply.coming)  # of which nothing is taken: nodes -> how many blocks
        self._open: list[tuple[Room, int]] = []  # nodes of which some is taken, and how many are like that

    def would_help(self, request: Request) -> bool:
        """Whether a class has anything from another block."""
        supply = self._supply
        if not self._nodes.admits(request):
            return False
        if not supply.idle:
            return True
        needed = needed_s(request, self._nodes.blocks.walltime_s)
        return not any(block.would_take(request, needed) for block in supply.idle)

    def is_doubtful(self, request: Request) -> bool:
        """Whether a block may never come, or not be what the request needs."""
        return self._supply.failing or not any(is_certain(request, kind) for kind in self._nodes.likely)

    def price(self, request: Request, left: float) -> tuple[float, ...]:
        """What new blocks would cost for so many tasks, a task; smaller is better."""
        node = self._nodes.fitting(request)
        assert node is not None
        each = self._tasks_per_block(request, node)
        blocks = max(1, min(self.room, -(-self._slots_for(left) // each)))
        covered = min(left, _times(blocks * each, self._share))
        cores = (node.cpus_milli or 1000 * (node.slots or 1)) / 1000 + GPU_CORES * (node.gpus or 0)
        cost = blocks * self._per_block * cores / covered
        return (self._supply.failing, not is_certain(request, node), cost, not self._nodes.kinds, blocks, self.rank)

    def keep(self, request: Request, left: float) -> float:
        """Find room for as many tasks as were to have it; returns how many are left."""
        promised = min(left, self._promised.get(request, 0.0))
        if not promised:
            return left
        self._promised[request] -= promised
        return left - promised + self.place(request, self.share(request, promised))

    def share(self, request: Request, left: float) -> float:
        """Let tasks share the slots of others, as parallelism wants it; returns how many are left."""
        if self._credit <= 0 or not all(fits(request, kind) for kind in self._nodes.likely):
            return left
        return self._give(request, left, self._credit)

    def place(self, request: Request, left: float) -> float:
        """Find room for so many tasks in what is coming; returns for how many there is none."""
        return self._cover(request, self._fill(request, self._slots_for(left)), left) if left > _EPSILON else 0.0

    def buy(self, request: Request, left: float) -> float:
        """Request blocks for so many tasks, as far as there is room; returns how many are left."""
        node = self._nodes.fitting(request)
        assert node is not None
        wanted = self._slots_for(left)
        count = min(self.room, -(-wanted // self._tasks_per_block(request, node)))
        self.room -= count
        self.bought += count
        self._blocks[self._per_block] = self._blocks.get(self._per_block, 0) + count
        return self._cover(request, self._fill(request, wanted), left)

    def _slots_for(self, tasks: float) -> int:
        return max(1, math.ceil(tasks * self._share - _EPSILON))

    def _cover(self, request: Request, placed: int, left: float) -> float:
        """So many tasks have found room, and speak for others as well; returns how many are left."""
        if not placed:
            return left
        self._credit += _times(placed, self._share)
        return self._give(request, left, self._credit)

    def _give(self, request: Request, left: float, amount: float) -> float:
        used = min(left, amount)
        self._credit -= used
        self.given[request] = self.given.get(request, 0.0) + used
        return left - used

    def _tasks_per_block(self, request: Request, node: NodeShape) -> int:
        blocks, on_each = self._nodes.blocks, 1 if request.num_nodes > 1 else tasks_in(request, empty_room(node))
        return blocks.at_once(request.num_nodes, on_each)

    def _fill(self, request: Request, wanted: int) -> int:
        """Place up to so many tasks in nodes that are coming; returns how many."""
        node = self._nodes.fitting(request)
        assert node is not None
        room = empty_room(node)
        if request.num_nodes > 1:
            return self._fill_whole_nodes(room, request.num_nodes, wanted)
        placed = self._fill_open(request, wanted)
        per_node = tasks_in(request, room)
        for nodes in sorted(self._blocks):
            rest, usable = wanted - placed, 1 if self._nodes.blocks.one_head else nodes
            blocks = min(self._blocks[nodes], -(-rest // (per_node * usable)))
            taken = min(rest, blocks * usable * per_node)
            self._blocks[nodes] -= blocks
            placed += taken
            full, some = divmod(taken, per_node)
            self._keep(less(room, request, per_node), full)
            self._keep(less(room, request, some), 1 if some else 0)
            self._keep(room, blocks * usable - full - (1 if some else 0))
        if len(self._open) > 2 * OPEN_MAX:
            self._open.sort(key=lambda entry: entry[0][:4], reverse=True)
            del self._open[OPEN_MAX:]
        return placed

    def _fill_whole_nodes(self, room: Room, num_nodes: int, wanted: int) -> int:
        placed = 0
        for nodes in sorted(nodes for nodes in self._blocks if nodes >= num_nodes):
            each = self._nodes.blocks.at_once(num_nodes, 1, nodes)
            blocks = min(self._blocks[nodes], -(-(wanted - placed) // each))
            taken = min(wanted - placed, blocks * each)
            self._blocks[nodes] -= blocks
            placed += taken
            if not self._nodes.blocks.one_head:  # else the head is taken, without which there is nothing
                self._keep(room, blocks * nodes - taken * num_nodes)
        return placed

    def _fill_open(self, request: Request, wanted: int) -> int:
        cpus, memory, gpus, placed = request.cpus_milli, request.memory_bytes, request.gpus_milli, 0
        for at in range(len(self._open)):
            room, count = self._open[at]
            if room[0] < cpus or room[1] < memory or room[2] < gpus or not (each := tasks_in(request, room)):
                continue
            taken = min(wanted - placed, each * count)
            placed += taken
            full, some = divmod(taken, each)
            self._open[at] = (room, count - full - (1 if some else 0))
            self._keep(less(room, request, each), full)
            self._keep(less(room, request, some), 1 if some else 0)
            if placed == wanted:
                break
        if placed:
            self._open = [entry for entry in self._open if entry[1]]
        return placed

    def _keep(self, room: Room, nodes: int) -> None:
        if nodes > 0 and room[0] > 0 and room[3] > 0:
            self._open.append((room, nodes))


def _times(amount: float, share: float) -> float:
    """amount / share, for so little as nothing."""
    return amount / share if share > 0 else math.inf
