"""A simulated run whose blocks are kept by the real scalers, on batch systems that may be slow or bad."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from pilotflow.core.block_records import (
    BlockLimits,
    BlockState,
    BlockStatus,
    CancelBlock,
    DrainBlock,
    GiveUp,
    Phase,
    RequestBlock,
)
from pilotflow.core.blocks import BlockScaler
from pilotflow.core.scaling import Planner, Queue
from pilotflow.messages.client import DefineExecutors, DrainBlocks, FailExecutor, Load, ManagerDown, ManagerUp
from pilotflow.resources import BlockShape, NodeShape
from pilotflow.testing.simulator import Simulation
from pilotflow.testing.simulator_manager import SimManager

POLL_S = 0.2
"""While blocks start or end, the batch systems are asked this often."""
UNKNOWN = NodeShape()
PENDING = BlockStatus(BlockState.PENDING)


@dataclass
class Cluster:
    """Where the blocks of one executor come from. `cores` and so on are what its nodes really have.

    Attributes:
        told: what is configured of its nodes; by default nothing.
        start_s: how long a block waits in the queue.
        refuses: submitting fails.
        broken: blocks end before a manager has joined.
        dies_after_s: managers are lost so long after they have joined.
    """

    label: str
    cores: int = 4
    memory_bytes: int = 0
    gpus: int = 0
    nodes: int = 1
    depth: int | None = None
    walltime_s: float | None = None
    told: NodeShape = UNKNOWN
    start_s: float = 3.0
    refuses: bool = False
    broken: bool = False
    dies_after_s: float | None = None
    limits: dict[str, Any] = field(default_factory=dict)

    def block_limits(self) -> BlockLimits:
        shape = BlockShape(self.label, self.told, self.nodes, self.walltime_s)
        plain = BlockLimits(shape, 0, 0, max_blocks=10, parallelism=1.0, max_idletime_s=30.0, min_life_s=5.0)
        return replace(plain, **self.limits)


@dataclass
class SiteBlock:
    cluster: Cluster
    status: BlockStatus = PENDING
    managers: list[SimManager] = field(default_factory=list)
    excluded: tuple[str, ...] = ()


class Site:
    """A simulation, one scaler for each cluster, and what has been requested and ended.

    Attributes:
        requests: (time, block) of each request.
        drains: (time, block) of each block that was told to drain.
        given_up: executors that were.
        looks: times of all looks at what is due.
    """

    def __init__(self, *clusters: Cluster, seed: int = 0, closed: bool = True) -> None:
        self.sim = Simulation(seed)
        self.clusters = {cluster.label: cluster for cluster in clusters}
        self.scalers = {c.label: BlockScaler(c.label, c.block_limits()) for c in clusters}
        self.blocks: dict[str, SiteBlock] = {}
        self.requests: list[tuple[float, str]] = []
        self.drains: list[tuple[float, str]] = []
        self.given_up: list[str] = []
        self.looks: list[float] = []
        self._next_look = 0
        self._planner, self._queue = Planner(), Queue()
        shapes = [scaler._limits.shape for scaler in self.scalers.values()]
        self.sim.client.say(DefineExecutors(shapes, closed))
        self.sim.client.listener = self._hear
        self._look()

    # ---- what tests look at -----------------------------------------------------------------

    def requested(self, label: str) -> int:
        return sum(name.rpartition("-")[0] == label for _, name in self.requests)

    def live(self) -> Counter[str]:
        """Blocks that exist, by executor."""
        return Counter(label for label, scaler in self.scalers.items() for _ in scaler.live)

    def phases(self, label: str) -> list[Phase]:
        return [info.phase for info in self.scalers[label].describe() if info.phase is not Phase.ENDED]

    def idle_down(self, limit_s: float = 3600.0) -> None:
        """Run until no block is left."""
        self.sim.run(until=lambda: not self.live(), limit_s=limit_s)

    # ---- the keeper's part ------------------------------------------------------------------

    def _hear(self, message: Any) -> None:
        now = self.sim.now
        if isinstance(message, Load):
            self._queue = Queue(message.classes)
            for scaler in self.scalers.values():
                scaler.on_load(message.blocks, self._queue, now)
        elif isinstance(message, ManagerUp) and message.executor in self.scalers:
            self.scalers[message.executor].on_manager_up(message.block, message.node, message.capacity, now)
        elif isinstance(message, ManagerDown) and message.executor in self.scalers:
            self.scalers[message.executor].on_manager_down(message.block, message.node, now, planned=message.planned)
        else:
            return
        self._look_at(now)

    def _look_at(self, time: float) -> None:
        """Look then, and not when it was intended before."""
        self._next_look += 1
        number = self._next_look
        self.sim.clock.at(time, lambda: self._look() if number == self._next_look else None)

    def _look(self) -> None:
        now = self.sim.now
        self.looks.append(now)
        for scaler in self.scalers.values():
            for name in scaler.live:
                scaler.on_status(name, self._status(self.blocks[name]), now)
        missing = self._planner.missing(self._queue, [scaler.supply(now) for scaler in self.scalers.values()])
        for label, scaler in self.scalers.items():
            for action in scaler.decide(now, missing.get(label, 0)):
                match action:
                    case RequestBlock():
                        self._submit(scaler, action)
                    case DrainBlock(name):
                        assert not any(m.pool.held() for m in self.blocks[name].managers if m.alive), (
                            "drained with work"
                        )
                        self.drains.append((now, name))
                        self.sim.client.say(DrainBlocks([name]))
                    case CancelBlock(name):
                        self._cancel(name)
                    case GiveUp(reason):
                        self.given_up.append(label)
                        self.sim.client.say(FailExecutor(label, reason))
                        if len(self.given_up) == len(self.scalers):
                            self.sim.client.say(FailExecutor("*", reason))
            assert len(scaler.live) <= scaler._limits.max_blocks
        due_at = min(scaler.due_at(now) for scaler in self.scalers.values())
        if any(scaler.changing for scaler in self.scalers.values()):
            due_at = min(due_at, now + POLL_S)
        if due_at < math.inf:
            self._look_at(due_at)

    # ---- the batch systems ------------------------------------------------------------------

    def _submit(self, scaler: BlockScaler, request: RequestBlock) -> None:
        cluster = self.clusters[scaler.label]
        self.requests.append((self.sim.now, request.name))
        if cluster.refuses:
            scaler.on_submit_failed(request.name, "the queue is closed", self.sim.now)
            return
        self.blocks[request.name] = SiteBlock(cluster, excluded=request.exclude_nodes)
        scaler.on_submitted(request.name, f"id-{request.name}", self.sim.now)
        self.sim.clock.after(cluster.start_s, lambda: self._start(request.name))

    def _start(self, name: str) -> None:
        block = self.blocks[name]
        cluster = block.cluster
        if block.status.state is not BlockState.PENDING:
            return
        if cluster.broken:
            block.status = BlockStatus(BlockState.FAILED, "no such module", 1)
            return
        block.status = BlockStatus(BlockState.RUNNING)
        for _ in range(cluster.nodes):
            manager = self.sim.add_manager(
                cluster.depth or cluster.cores,
                cluster.label,
                name,
                cluster.cores,
                memory_bytes=cluster.memory_bytes,
                gpus=[str(number) for number in range(cluster.gpus)],
                depth_limited=cluster.depth is not None,
                walltime_s=cluster.walltime_s,
            )
            block.managers.append(manager)
            if cluster.dies_after_s is not None:
                self.sim.clock.after(cluster.dies_after_s, lambda manager=manager: self.kill(manager))  # type: ignore[misc]

    def kill(self, manager: SimManager) -> None:
        """A manager is lost, and its connection closes."""
        if manager.alive:
            manager.die()
            self.sim.interchange.hang_up(manager.name)

    def _cancel(self, name: str) -> None:
        block = self.blocks[name]
        if not block.status.state.terminal:
            for manager in block.managers:
                self.kill(manager)
            block.status = BlockStatus(BlockState.CANCELLED)

    def _status(self, block: SiteBlock) -> BlockStatus:
        if block.status.state is BlockState.RUNNING and not any(manager.alive for manager in block.managers):
            lost = block.cluster.dies_after_s is not None
            block.status = BlockStatus(BlockState.FAILED, "", 1) if lost else BlockStatus(BlockState.COMPLETED, "", 0)
        return block.status
