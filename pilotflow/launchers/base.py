"""What a launcher is: text that starts one manager on each node of a block.

`pilotflow.testing.launchers.check_launcher` runs the whole contract against one.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Sequence


class Launcher(ABC):
    """Turns the command of one manager into shell text that starts it on every node of a block."""

    @abstractmethod
    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """Text for bash that runs `command` once per node and waits for all of them.

        Each copy finds its number, from 0, in the environment as PILOTFLOW_NODE_INDEX. The text's
        exit status is 0 if all copies ended with 0, else that of a copy that did not. It works after
        `set -e` and `set -u`. Equal arguments give equal text: nothing is looked up or started here.

        Args:
            command: the argument list of one manager; every argument arrives as it is.
            nodes: copies to start, at least 1.
        """


def quote_command(command: Sequence[str]) -> str:
    """An argument list as shell text. Its first word is never taken for an assignment or a keyword."""
    first = "'" + command[0].replace("'", "'\"'\"'") + "'"
    return " ".join([first, *map(shlex.quote, command[1:])])
