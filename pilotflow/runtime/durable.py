"""What makes a run durable: it outlives its program, and another program goes on with it.

Managers keep results until the program says that they are recorded, and it says so when they are
committed. The interchange of a durable run stays when the program is gone, what was handed out
goes on, and the next program takes over where the store ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pilotflow.core.block_records import KnownBlock
from pilotflow.errors import InterchangeLost
from pilotflow.messages.client import Instruction, ManagerDown, ManagerUp
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.store import Store, TaskRow

if TYPE_CHECKING:
    from pilotflow.runtime.durable_client import DurableClient


class Journal(Protocol):
    """Who records what happens to tasks. Called in the client loop's thread, and must not make it wait."""

    def ended(self, rows: list[TaskRow], batches: list[tuple[int, int]]) -> None:
        """These attempts have ended; call `Client.acknowledge` with the batches once they are recorded."""

    def begun(self, attempts: Sequence[tuple[int, int]]) -> None:
        """These attempts, (task, attempt), are running."""

    def crashed(self, attempts: Sequence[tuple[int, int, str]]) -> None:
        """These attempts were lost, and are followed by others: (task, attempt, how)."""

    def manager(self, event: ManagerUp | ManagerDown) -> None:
        """A manager has joined or left."""

    def instructed(self, event: Instruction) -> None:
        """Another terminal wants something; say `Obeyed` when it is done."""

    def lost(self, error: InterchangeLost) -> None:
        """The interchange is gone, and with it every task that was out."""


@dataclass(frozen=True)
class Durable:
    """How a durable run begins, or goes on.

    Attributes:
        directory: its run directory, which is there.
        run_id: its name.
        epoch: the number of the interchange's life, from 1.
        store: its run store; whoever opened it closes it.
        journal: hears of everything that happens to tasks.
        keep_s: how long the interchange waits for another program while nothing runs.
        known: told which blocks exist whenever that changes.
        blocks: those that there are from before.
        interchange: the connection file's content, if the interchange lives and is to be taken over.
        interchange_pid: its process.
        open: whether managers may join that no executor has asked for.
        spare: whether blocks are left to another try if this one cannot be started.
        prepare: called with the client before it says anything else: what must be known before any result comes.
    """

    directory: Path
    run_id: str
    epoch: int
    store: Store
    journal: Journal
    keep_s: float
    known: Callable[[list[KnownBlock]], None]
    blocks: tuple[KnownBlock, ...] = ()
    interchange: Connection | None = None
    interchange_pid: int = 0
    open: bool = False
    spare: bool = False
    prepare: Callable[[DurableClient], object] = bool
