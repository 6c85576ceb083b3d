"""The commands that look ahead and back: plan and resources, parsed here, done in modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotflow.cli.in_words import errors_in_words
from pilotflow.cli.options import (
    BASE,
    RUNS,
    WORKFLOWS,
    Account,
    Base,
    FromRun,
    Json,
    Partitions,
    QueueWait,
    RunName,
    SiteName,
    WorkflowFile,
)


def plan(
    workflow: WorkflowFile,
    site: SiteName = None,
    partition: Partitions = None,
    queue_wait: QueueWait = None,
    from_run: FromRun = None,
    account: Account = None,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Compare the ways to ask for a workflow's nodes: time, node-hours, idle share; and say which to take."""
    from pilotflow.cli.workflow_plan import Wanted, show_plan

    with errors_in_words():
        wanted = Wanted(site, tuple(partition or ()), queue_wait, from_run, account, run_dir)
        raise typer.Exit(show_plan(workflow, wanted, as_json=json))


def resources(
    run: RunName = "last",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write a page with plots: HTML.")] = None,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Say what a run's jobs asked for and what they used: cores, memory, time; --output also draws it."""
    from pilotflow.cli.workflow_usage import show_resources

    with errors_in_words():
        show_resources(run, run_dir, output=output, as_json=json)


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command("plan", rich_help_panel=WORKFLOWS)(plan)
    app.command("resources", rich_help_panel=RUNS)(resources)
