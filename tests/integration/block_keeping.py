"""A block keeper with real local blocks: shell scripts stand for managers, the test for the interchange."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from pilotflow.core.block_records import BlockLimits, Phase
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.messages.client import ClientMessage, LiveBlocks, Load, ManagerDown, ManagerUp
from pilotflow.messages.records import BlockLoad, ClassLoad
from pilotflow.providers.local import LocalProvider
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request
from pilotflow.runtime.block_keeper import BlockKeeper, KeptExecutor

LIMITS = BlockLimits(
    shape=BlockShape("cpu", NodeShape(cpus_milli=2000, slots=2)),
    init_blocks=1,
    min_blocks=0,
    max_blocks=3,
    parallelism=1.0,
    max_idletime_s=300.0,
)
SLEEPER = "echo $$ > pid.new.$1; mv pid.new.$1 pid.$1; exec sleep 600"
"""Stands for a manager: leaves its process id and stays."""


class Client:
    """Takes the keeper's messages, and waits for what should come."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: list[ClientMessage] = []

    def send(self, message: ClientMessage) -> None:
        with self._changed:
            self._messages.append(message)
            self._changed.notify_all()

    def all(self, kind: type[Any]) -> list[Any]:
        with self._changed:
            return [message for message in self._messages if isinstance(message, kind)]

    def until(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """What the condition gives once it is true. Looked at on each message, and often besides."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (value := condition()):
                assert time.monotonic() < deadline, f"it did not come; there is {self._messages}"
                self._changed.wait(0.02)
            return value

    @property
    def live(self) -> list[str]:
        said = self.all(LiveBlocks)
        return [block.block for block in said[-1].blocks] if said else []


def kept(folder: Path, manager: str = SLEEPER, label: str = "cpu", **changes: Any) -> KeptExecutor:
    """An executor whose managers run `manager` in `folder`, with the block's name as $1."""
    provider = changes.pop("provider", None) or LocalProvider(worker_init=changes.pop("worker_init", ""))

    def argv(block: str) -> list[str]:
        return ["bash", "-c", f"cd '{folder}'; {manager}", "manager", block]

    shape = structs.replace(
        LIMITS.shape, executor=label, nodes=provider.nodes_per_block, walltime_s=provider.walltime_s
    )
    return KeptExecutor(label, provider, SingleNodeLauncher(), argv, replace(LIMITS, shape=shape, **changes))


@contextmanager
def keeping(
    run_dir: Path, *executors: KeptExecutor, is_over: Callable[[], bool] = bool
) -> Iterator[tuple[BlockKeeper, Client]]:
    client = Client()
    keeper = BlockKeeper(executors, run_dir, client.send, logging.getLogger("test.blocks"), is_over=is_over)
    keeper.start()
    try:
        yield keeper, client
    finally:
        assert keeper.close(20.0)


def up(block: str, slots: int = 2, node: str = "n0") -> ManagerUp:
    return ManagerUp(block.rpartition("-")[0], block, node, Capacity(1000 * slots, slots=slots))


def down(
    block: str, *, planned: bool = False, refused: bool = False, reason: str = "gone", node: str = "n0"
) -> ManagerDown:
    return ManagerDown(block.rpartition("-")[0], block, node, reason, planned, refused)


def load(queued: int = 0, label: str = "", **held: int) -> Load:
    """So many tasks wait, for that executor or for any; and each block (`cpu_0=2`) holds so many."""
    blocks = [BlockLoad(name.replace("_", "-"), 1, count, 2, 0.0, False) for name, count in held.items()]
    return Load([], blocks, [ClassLoad(Request(), (label,) if label else (), queued)] if queued else [])


def phases(keeper: BlockKeeper) -> dict[str, Phase]:
    return {info.block: info.phase for info in keeper.describe()}


def manager_pid(client: Client, folder: Path, block: str) -> int:
    path = folder / f"pid.{block}"
    return int(client.until(lambda: path.exists() and path.read_text()))


@dataclass(frozen=True, kw_only=True)
class Deaf(LocalProvider):
    """Does not cancel."""

    def cancel(self, ids: Sequence[str]) -> None:
        pass

    def end(self) -> None:
        ids = list(self._blocks)
        LocalProvider.cancel(self, ids)
        while not all(status.state.terminal for status in self.status(ids).values()):
            time.sleep(0.02)
