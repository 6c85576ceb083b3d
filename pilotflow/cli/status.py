"""`pilotflow status`: how a run stands, from another terminal.

It is called again and again, and beside runs that need the cores: what the answer does not need is not imported.
"""

from __future__ import annotations

from pathlib import Path

from pilotflow.cli.runs import find_connection, find_directory
from pilotflow.workflow.history import is_workflow


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
        from pilotflow.cli.program_status import show_status as show_program

        show_program(find_connection(run, base), as_json)
