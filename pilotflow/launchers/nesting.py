"""Commands that start processes over nodes, where the task itself was started by such a command. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.ids import STEP_VARIABLE

STARTERS: Final = frozenset({"srun", "mpirun", "mpiexec", "orterun", "prterun", "aprun", "jsrun", "salloc"})
"""Programs that start others on nodes, without what their names may end with (mpirun.openmpi, mpiexec.hydra)."""
_WORD: Final = re.compile(
    r"\s*(?:\w+=(?:'[^']*'|\"[^\"]*\"|[^\s'\"]*)\s+|(?:exec|time|env|nohup|command)\s+)*(?P<program>[\w./+-]+)"
)
_RANK: Final = "PILOTFLOW_RANK"


def nested_starter(command: str) -> str | None:
    """The program that a command begins with, if it is one that starts others on nodes.

    Args:
        command: shell text. Variables before the program, `exec`, `env`, `time` and the like are looked over; a
            program further behind is not found.
    """
    found = _WORD.match(command)
    if found is None:
        return None
    name = found["program"].rpartition("/")[2]
    return name if name.partition(".")[0] in STARTERS else None


def why_nested(app: str, starter: str, place: str) -> str:
    """What is said of such a command.

    Args:
        app: whose command.
        starter: the program.
        place: what has started the task already: "step" or "rank".
    """
    started = {
        "step": "its executor places each task by srun already (mode: slurm)",
        "rank": "each rank of a task on several nodes or ranks has been started by the executor's launcher already",
    }[place]
    return (
        f"The command of '{app}' begins with {starter}, and {started}: the two would wait for each other's cores. Write "
        "the program alone and ask for num_nodes and ranks_per_node; or use an executor with mode: direct and a task "
        f"of one node, where {starter} is yours."
    )


def refuse_nested(app: str, command: str, environ: Mapping[str, str]) -> None:
    """Refuse a command that would start processes inside a step.

    Args:
        app: whose command.
        command: shell text.
        environ: of the process that is about to run it.

    Raises:
        ConfigError: it would.
    """
    place = "rank" if _RANK in environ else "step" if STEP_VARIABLE in environ else ""
    if place and (starter := nested_starter(command)) is not None:
        raise ConfigError(why_nested(app, starter, place))
