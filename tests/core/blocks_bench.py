"""A scaler of one executor's blocks, its clock, the load, and short words for what happens to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msgspec import Struct, structs

from pilotflow.core.block_records import Action, BlockLimits, BlockState, BlockStatus, DropBlock, Phase, RequestBlock
from pilotflow.core.blocks import BlockScaler
from pilotflow.core.scaling import Planner, Queue
from pilotflow.messages.records import BlockLoad, ClassLoad
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request

SHAPE = BlockShape("cpu", NodeShape(cpus_milli=2000, slots=2))
LIMITS = BlockLimits(
    shape=SHAPE,
    init_blocks=1,
    min_blocks=0,
    max_blocks=4,
    parallelism=1.0,
    max_idletime_s=10.0,
)
RUNNING = BlockStatus(BlockState.RUNNING)
FAILED = BlockStatus(BlockState.FAILED, "", 3)
DONE = BlockStatus(BlockState.COMPLETED, "", 0)


class Bench:
    """A scaler, its clock, and short words for what happens to it. `nodes` and so on are those of its shape."""

    def __init__(self, **changes: Any) -> None:
        node = structs.replace(SHAPE.node, **_those_of(NodeShape, changes))
        shape = structs.replace(SHAPE, node=node, **_those_of(BlockShape, changes))
        self.scaler = BlockScaler("cpu", replace(LIMITS, shape=shape, **changes))
        self.now = 1000.0
        self.queue = Queue()
        self.sent_away: list[str] = []  # blocks that are over and whose managers nobody has seen go

    def decide(self, after_s: float = 0.0) -> list[Action]:
        self.now += after_s
        missing = Planner().missing(self.queue, [self.scaler.supply(self.now)])
        actions = self.scaler.decide(self.now, missing.get("cpu", 0))
        self.sent_away += [action.name for action in actions if isinstance(action, DropBlock)]
        return [action for action in actions if not isinstance(action, DropBlock)]

    def requested(self, after_s: float = 0.0) -> list[str]:
        """What is requested now, and nothing else."""
        actions = self.decide(after_s)
        assert all(isinstance(action, RequestBlock) for action in actions), actions
        return [action.name for action in actions if isinstance(action, RequestBlock)]

    def submit(self, *names: str) -> None:
        for name in names:
            self.scaler.on_submitted(name, f"id-{name}", self.now)

    def up(self, name: str, node: str = "n0", slots: int = 2, **has: Any) -> None:
        self.scaler.on_manager_up(name, node, Capacity(1000 * slots, slots=slots, **has), self.now)

    def down(self, name: str, node: str = "n0", *, planned: bool = False) -> None:
        self.scaler.on_manager_down(name, node, self.now, planned=planned)

    def status(self, name: str, status: BlockStatus) -> None:
        self.scaler.on_status(name, status, self.now)

    def load(self, queued: int = 0, request: Request | None = None, **held: int) -> None:
        """Tasks that find no room where there are managers; and what each block (`cpu_0=2`) holds."""
        loads = [BlockLoad(name.replace("_", "-"), 1, count, 2, 0.0, False) for name, count in held.items()]
        self.queue = Queue([ClassLoad(request or Request(), (), queued)] if queued else [])
        self.scaler.on_load(loads, self.queue, self.now)

    def working(self, count: int = 1, slots: int = 2) -> list[str]:
        """Bring up what is requested now."""
        names = self.requested()
        assert len(names) == count
        self.submit(*names)
        for name in names:
            self.status(name, RUNNING)
            self.up(name, slots=slots)
        return names

    def fail_start(self, after_s: float = 0.0) -> str:
        (name,) = self.requested(after_s)
        self.submit(name)
        self.status(name, FAILED)
        return name

    def phases(self) -> dict[str, Phase]:
        return {info.block: info.phase for info in self.scaler.describe()}


def _those_of(kind: type[Struct], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: changes.pop(name) for name in kind.__struct_fields__ if name in changes}
