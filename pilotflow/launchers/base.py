"""What a launcher is: text that starts one manager on each node of a block, and commands that start ranks.

`pilotflow.testing.launchers.check_launcher` runs the whole contract of the text against one.
"""

from __future__ import annotations

import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from pilotflow.errors import ConfigError
from pilotflow.launchers.steps import Step, step_environment, without_foreign


class Launcher(ABC):
    """Turns the command of one manager into shell text that starts it on every node of a block.

    A launcher that can also start the ranks of multi-node tasks says so with `starts_ranks`.
    """

    @property
    def starts_ranks(self) -> bool:
        """Whether `step` works."""
        return False

    @property
    def warning(self) -> signal.Signals:
        """What to send to the process that `step` describes, so that every rank gets SIGTERM."""
        return signal.SIGUSR1

    @abstractmethod
    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """Text for bash that runs `command` once per node and waits for all of them.

        Each copy finds its number, from 0, in the environment as PILOTFLOW_NODE_INDEX. The text's
        exit status is 0 if all copies ended with 0, else that of a copy that did not. A copy that ends,
        or dies, leaves the others alone. It works after `set -e` and `set -u`. Equal arguments give
        equal text: nothing is looked up or started here.

        Args:
            command: the argument list of one manager; every argument arrives as it is.
            nodes: copies to start, at least 1.

        Raises:
            ConfigError: this launcher cannot start so many.
        """

    def step(self, command: Sequence[str], step: Step) -> list[str]:
        """The argument list that runs `command` as the ranks of a step, and ends when all have ended.

        Rank r runs on node r // ranks_per_node of the step. Each rank finds its numbers in its
        environment, see `pilotflow.launchers.rank_text`. A rank that fails ends all others; the exit
        status is then not 0. SIGTERM to the process ends all ranks for certain, `warning` warns them.
        The process needs the environment from `environment`. Nothing is looked up or started here.

        Args:
            command: the argument list of one rank; every argument arrives as it is.
            step: which ranks, where.

        Raises:
            ConfigError: this launcher starts no ranks, or not these.
        """
        raise ConfigError(
            f"{type(self).__name__} starts no ranks, so its executor cannot run tasks on several nodes (step "
            f"{step.name}). Give the executor one that does: launcher: srun, mpirun or mpiexec."
        )

    def environment(self, step: Step, inherited: Mapping[str, str]) -> dict[str, str]:
        """The environment for the command of `step`: what was inherited, and what ranks learn of the step.

        Args:
            step: the step that is started.
            inherited: the environment of the process that starts it. What another mpirun has left in it,
                and what would change the meaning of the command, is not taken over.
        """
        return without_foreign(inherited) | step_environment(step)


def quote_command(command: Sequence[str]) -> str:
    """An argument list as shell text. Its first word is never taken for an assignment or a keyword."""
    first = "'" + command[0].replace("'", "'\"'\"'") + "'"
    return " ".join([first, *map(shlex.quote, command[1:])])
