"""A scaler of one executor's blocks, its clock, and short words for what happens to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pilotflow.core.blocks import Action, BlockLimits, BlockScaler, BlockState, BlockStatus, Phase, RequestBlock
from pilotflow.messages import BlockLoad

LIMITS = BlockLimits(
    init_blocks=1,
    min_blocks=0,
    max_blocks=4,
    parallelism=1.0,
    nodes_per_block=1,
    slots_per_node_guess=2,
    max_idletime_s=10.0,
)
RUNNING = BlockStatus(BlockState.RUNNING)
FAILED = BlockStatus(BlockState.FAILED, "", 3)
DONE = BlockStatus(BlockState.COMPLETED, "", 0)


class Bench:
    """A scaler, its clock, and short words for what happens to it."""

    def __init__(self, **changes: Any) -> None:
        self.scaler = BlockScaler("cpu", replace(LIMITS, **changes))
        self.now = 1000.0

    def decide(self, after_s: float = 0.0) -> list[Action]:
        self.now += after_s
        return self.scaler.decide(self.now)

    def requested(self, after_s: float = 0.0) -> list[str]:
        """What is requested now, and nothing else."""
        actions = self.decide(after_s)
        assert all(isinstance(action, RequestBlock) for action in actions), actions
        return [action.name for action in actions if isinstance(action, RequestBlock)]

    def submit(self, *names: str) -> None:
        for name in names:
            self.scaler.on_submitted(name, f"id-{name}", self.now)

    def up(self, name: str, node: str = "n0", slots: int = 2) -> None:
        self.scaler.on_manager_up(name, node, slots, self.now)

    def down(self, name: str, node: str = "n0", *, planned: bool = False) -> None:
        self.scaler.on_manager_down(name, node, self.now, planned=planned)

    def status(self, name: str, status: BlockStatus) -> None:
        self.scaler.on_status(name, status, self.now)

    def load(self, queued: int = 0, leased: int = 0, **held: int) -> None:
        """Tasks that wait, are handed out; and what each block (`cpu_0=2`) holds."""
        loads = [BlockLoad(name.replace("_", "-"), 1, count, 2, 0.0, False) for name, count in held.items()]
        self.scaler.on_load(queued, leased, loads, self.now)

    def working(self, count: int = 1) -> list[str]:
        """Bring up what is requested now."""
        names = self.requested()
        assert len(names) == count
        self.submit(*names)
        for name in names:
            self.status(name, RUNNING)
            self.up(name)
        return names

    def fail_start(self, after_s: float = 0.0) -> str:
        (name,) = self.requested(after_s)
        self.submit(name)
        self.status(name, FAILED)
        return name

    def phases(self) -> dict[str, Phase]:
        return {info.block: info.phase for info in self.scaler.describe()}
