"""`pilotflow status`: how a run stands, from another terminal.

It is called again and again, and beside runs that need the cores. So what the answer does not need is not imported,
and words that are plain are read here: the library that reads command lines takes three times as long as the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pilotflow.cli.in_words import errors_in_words
from pilotflow.cli.runs import find_connection, find_directory
from pilotflow.workflow.history import is_workflow, refuse_damaged


class Asked(NamedTuple):
    """What is asked: of which run, where run directories are, and whether the answer is for programs."""

    run: str = "last"
    base: Path = Path("runs")
    as_json: bool = False


def plainly_asked(words: Sequence[str]) -> Asked | None:
    """What these words after `status` ask; None for all but the plainest, which `commands` reads, or refuses."""
    asked, runs, rest = Asked(), list[str](), iter(words)
    for word in rest:
        if word == "--json":
            asked = asked._replace(as_json=True)
        elif word == "--run-dir" and (base := next(rest, "")) and not base.startswith("-"):
            asked = asked._replace(base=Path(base))
        elif word.startswith("-") or not word or runs:
            return None
        else:
            runs.append(word)
    return asked._replace(run=runs[0]) if runs else asked


def say_status(run: str, base: Path, as_json: bool) -> None:
    """Print how a run stands; ends in `SystemExit` with words if nobody can tell. See `show_status`."""
    with errors_in_words("Interrupted. The run was not touched."):
        show_status(run, base, as_json)


def show_status(run: str, base: Path, as_json: bool) -> None:
    """Print how a run stands: a workflow's by its store, while it runs and afterwards; another's interchange is asked.

    Args:
        run, base: which run, and where run directories are; see `find_directory`.
        as_json: print it for programs.

    Raises:
        ConfigError: there is no such run.
        RunClosed: it is over, and none of a workflow.
        InfrastructureError: it does not answer.
    """
    directory = find_directory(run, base)
    if is_workflow(directory):
        from pilotflow.cli.workflow_shows import show_status as show_workflow

        show_workflow(directory, as_json=as_json)
    else:
        refuse_damaged(directory)
        from pilotflow.cli.program_status import show_status as show_program

        show_program(find_connection(run, base), as_json)
