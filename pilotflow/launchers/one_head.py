"""One manager for all nodes of a Slurm job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.srun import SrunLauncher


@dataclass(frozen=True)
class OneHeadLauncher(SrunLauncher):
    """Starts one manager, in the job's batch script, which has all nodes; ranks are started as by `SrunLauncher`.

    Tasks on one node run at the head alone, and those on several begin there.
    """

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`: once, however many nodes there are."""
        return SingleNodeLauncher().wrap(command, 1)
