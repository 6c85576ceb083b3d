"""Managers as the exchange knows them, and what they and the queue amount to."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable
from dataclasses import dataclass, field

from pilotflow.core.durations import Durations
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.client import Load, ManagerUp
from pilotflow.messages.records import BlockLoad, ClassLoad, ExecutorLoad


@dataclass(eq=False)
class Peer:
    """A registered manager beyond what the scheduler needs to know of it.

    `still_until`: it is silent, and kept until then for what must not run twice.
    """

    key: Hashable
    session: str
    manager: Manager
    last_seen: float
    idle_since: float
    still_until: float | None = None
    functions: set[int] = field(default_factory=set)
    classes: set[int] = field(default_factory=set)


def up(manager: Manager) -> ManagerUp:
    """What the client hears of a manager that is there."""
    return ManagerUp(manager.executor, manager.block, manager.node, manager.capacity, manager.id)


def where(manager: Manager) -> str:
    """A manager, in words."""
    return f"manager on {manager.node} (block {manager.block})"


def load_of(
    peers: Iterable[Peer],
    classes: Iterable[RequestClass],
    durations: Durations,
    draining: Container[str],
    waiting: int,
    now: float,
) -> Load:
    """The state of the queue. `waiting` tasks wait for what is not the queue, after a restart.

    They ask for no blocks: the managers that may hold them are still expected.
    """
    running: dict[int, int] = {}
    executors: dict[str, ExecutorLoad] = {}
    blocks: dict[str, BlockLoad] = {}
    for peer in peers:
        m = peer.manager
        leased, slots = len(m.leases), 0 if peer.still_until is not None else m.capacity.slots_of_one_core
        idle_s = 0.0 if leased else max(0.0, now - peer.idle_since)
        block = blocks.get(m.block)
        if block is None:
            block = blocks[m.block] = BlockLoad(m.block, 0, 0, 0, idle_s, m.block in draining)
        block.managers += 1
        block.leased += leased
        block.slots += slots
        block.idle_s = min(block.idle_s, idle_s)
        load = executors.get(m.executor)
        if load is None:
            load = executors[m.executor] = ExecutorLoad(m.executor, 0, 0, 0)
        load.leased += leased
        load.slots += slots
        for id, count in m.active.items():
            running[id] = running.get(id, 0) + count
    queue: list[ClassLoad] = []
    for cls in classes:
        if queued := cls.queued:
            first = cls.first()
            expected_s = None if first is None else durations.expected_s(first.fn)
            bound = tuple(sorted(cls.executors))
            queue.append(ClassLoad(cls.request, bound, queued, running.get(cls.id, 0), expected_s))
            for name in cls.executors or ("*",):
                executors.setdefault(name, ExecutorLoad(name, 0, 0, 0)).queued += queued
    if waiting:
        executors.setdefault("*", ExecutorLoad("*", 0, 0, 0)).queued += waiting
    return Load(list(executors.values()), list(blocks.values()), queue)
