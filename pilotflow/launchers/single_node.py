"""Managers on the machine where the block's script runs, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher, quote_command
from pilotflow.launchers.copies import started
from pilotflow.launchers.mpirun import openmpi_step
from pilotflow.launchers.steps import Step

_START: Final = """\
for pilotflow_node in {nodes}; do
  PILOTFLOW_NODE_INDEX=$pilotflow_node {command} &
  pilotflow_pids="$pilotflow_pids $!"
done"""


@dataclass(frozen=True)
class SingleNodeLauncher(Launcher):
    """Starts all managers of a block on one machine, and passes SIGTERM on to them.

    The exit status is the first that is not 0, in the order of the nodes. A manager that ends does
    not end the others. Ranks are started by Open MPI's `mpirun`, on this machine only.
    """

    @property
    def starts_ranks(self) -> bool:
        """See `Launcher.starts_ranks`."""
        return True

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`."""
        return started(_START.format(nodes=" ".join(map(str, range(nodes))), command=quote_command(command)), "TERM")

    def step(self, command: Sequence[str], step: Step) -> list[str]:
        """See `Launcher.step`; for local steps only.

        Raises:
            ConfigError: the step's nodes are other machines.
        """
        if not step.local:
            raise ConfigError(
                f"SingleNodeLauncher starts ranks on its own machine only, and step {step.name} is for "
                f"{len(step.nodes)} nodes. Give the executor another one: launcher: srun or mpirun."
            )
        return openmpi_step("mpirun", command, step)
