"""An executor for the tests of what executors promise."""

from __future__ import annotations

from pathlib import Path

from pilotflow import Config, ExecutorConfig, PilotExecutor

WORKERS = 2


def two_workers(directory: Path) -> PilotExecutor:
    """An executor with so many workers, which gives a task up when it has killed two."""
    node = ExecutorConfig(max_workers_per_node=WORKERS)
    return PilotExecutor(config=Config(run_dir=directory, executors=[node], crash_limit=2))
