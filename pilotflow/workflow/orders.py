"""What other terminals tell the program that has a run to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.control import instruct
from pilotflow.units import counted
from pilotflow.workflow.asked_blocks import EACH
from pilotflow.workflow.ranges import ranges

TIMEOUT_S: Final = 60.0


class Cancelled(NamedTuple):
    """What an order to cancel has done.

    Attributes:
        jobs: how many of the chosen ones had not ended, and have now.
        dependents: how many others have ended with them, since they cannot run without them.
    """

    jobs: int
    dependents: int = 0

    @property
    def words(self) -> str:
        """The same in words."""
        behind = f", and {self.dependents:,} that depended on them" if self.dependents else ""
        return f"{counted(self.jobs, 'job')}{behind}"

    def as_text(self) -> str:
        """For the way to another terminal; see `order_cancel`."""
        return f"{self.jobs} {self.dependents}"


def order_cancel(directory: Path, numbers: Sequence[int] | None) -> Cancelled:
    """Have jobs cancelled, all if None; returns how many were.

    Raises:
        RunClosed, InfrastructureError: the program cannot be reached.
    """
    if numbers is not None and not numbers:
        return Cancelled(0)
    words = [] if numbers is None else [f"{low}-{high}" for low, high in ranges(numbers)]
    said = instruct(read_connection(directory / "connection.json"), "cancel", words, TIMEOUT_S)
    return Cancelled(*map(int, said.split()))


def order_blocks(
    directory: Path, scheduler: str, count: int, max_parallel_jobs: int | None, *, each: bool = False
) -> str:
    """Have blocks of a scheduler asked for; returns the executor's label.

    Raises:
        RunClosed, InfrastructureError: the program cannot be reached.
        ConfigError: the run has no such executor.
    """
    depth = "" if max_parallel_jobs is None else str(max_parallel_jobs)
    words = [scheduler, str(count), depth, *([EACH] if each else [])]
    return instruct(read_connection(directory / "connection.json"), "schedule", words, TIMEOUT_S)
