"""Managers on one node without anything around them, and inside a command of the user's own."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher, quote_command
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.steps import Step
from pilotflow.units import kind, show


@dataclass(frozen=True)
class SimpleLauncher(Launcher):
    """Runs the one manager of a block of one node, with no shell between that stays.

    The manager gets signals itself and its exit status is the block's.
    """

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`.

        Raises:
            ConfigError: the block has more than one node.
        """
        if nodes != 1:
            raise ConfigError(
                f"SimpleLauncher starts one manager and the block has {nodes} nodes. Set nodes_per_block to 1, or "
                "launcher to single_node, srun or mpirun."
            )
        return f"PILOTFLOW_NODE_INDEX=0 {quote_command(command)}\n"


@dataclass(frozen=True)
class WrappedLauncher(Launcher):
    """Runs every manager inside a command of yours, such as one that enters a container.

    Args:
        prepend: shell text that runs the command which follows it, such as "apptainer exec tools.sif" or
            "nice -n 5". It is put before the manager's command on each node, where bash reads it: `$HOME`
            is that of the node. It must pass on the environment, signals, and the exit status. Ranks of
            multi-node tasks run inside it too.
        launcher: how the managers are started on the nodes.

    Raises:
        ConfigError: `prepend` is empty.
    """

    prepend: str
    launcher: Launcher = field(default_factory=SingleNodeLauncher)

    def __post_init__(self) -> None:
        given: object = self.prepend
        if not isinstance(given, str) or not given.strip() or "\0" in given:
            raise ConfigError(
                f"WrappedLauncher(prepend=...): {show(given)} is {kind(given)}, expected a command "
                "for the shell that runs what follows it, such as 'nice -n 5'."
            )

    @property
    def starts_ranks(self) -> bool:
        """See `Launcher.starts_ranks`."""
        return self.launcher.starts_ranks

    @property
    def warning(self) -> signal.Signals:
        """See `Launcher.warning`."""
        return self.launcher.warning

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`."""
        return self.launcher.wrap(self._inside(command), nodes)

    def step(self, command: Sequence[str], step: Step) -> list[str]:
        """See `Launcher.step`."""
        return self.launcher.step(self._inside(command), step)

    def environment(self, step: Step, inherited: Mapping[str, str]) -> dict[str, str]:
        """See `Launcher.environment`."""
        return self.launcher.environment(step, inherited)

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["bash", "-c", f'{self.prepend} "$@"', "bash", *command]
