"""What other terminals tell the program that has a run to do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.control import instruct
from pilotflow.workflow.ranges import ranges

TIMEOUT_S: Final = 60.0


def order_cancel(directory: Path, numbers: Sequence[int] | None) -> int:
    """Have jobs cancelled, all if None; returns how many were, with those that depended on them.

    Raises:
        RunClosed, InfrastructureError: the program cannot be reached.
    """
    if numbers is not None and not numbers:
        return 0
    words = [] if numbers is None else [f"{low}-{high}" for low, high in ranges(numbers)]
    return int(instruct(read_connection(directory / "connection.json"), "cancel", words, TIMEOUT_S))


def order_blocks(directory: Path, scheduler: str, count: int, max_parallel_jobs: int | None) -> str:
    """Have blocks of a scheduler asked for; returns the executor's label.

    Raises:
        RunClosed, InfrastructureError: the program cannot be reached.
        ConfigError: the run has no such executor.
    """
    depth = "" if max_parallel_jobs is None else str(max_parallel_jobs)
    words = [scheduler, str(count), depth]
    return instruct(read_connection(directory / "connection.json"), "schedule", words, TIMEOUT_S)
