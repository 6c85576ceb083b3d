"""The job of a block: what the keeper submits, and what a dry run shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pilotflow.providers.base import BlockJob
from pilotflow.runtime.kept import KeptExecutor


def block_job(
    executor: KeptExecutor,
    name: str,
    run_dir: Path,
    run_id: str = "",
    environment: Mapping[str, str] | None = None,
    exclude_nodes: tuple[str, ...] = (),
) -> BlockJob:
    """The block of this name, of an executor; nothing is written.

    Args:
        executor: whose block it is.
        name: the block's name.
        run_dir: the run's directory, absolute.
        run_id: the run's name, for people who look at the batch system.
        environment, exclude_nodes: as in `BlockJob`.
    """
    nodes, folder = executor.provider.nodes_per_block, run_dir / "blocks" / name
    return BlockJob(
        name=name,
        command=executor.launcher.wrap(executor.manager_argv(name), nodes),
        script=run_dir / "scripts" / f"{name}.sh",
        stdout=folder / "stdout",
        stderr=folder / "stderr",
        nodes=nodes,
        walltime_s=executor.provider.walltime_s,
        environment=environment or {},
        exclude_nodes=exclude_nodes,
        run=f"{run_id} in {run_dir}" if run_id else "",
        prelude=executor.prelude,
    )
