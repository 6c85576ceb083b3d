"""The commands that look ahead and back: plan and resources, parsed here, done in modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotflow.cli.in_words import errors_in_words

Base = Annotated[Path, typer.Option("--run-dir", help="Where run directories are.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
BASE = Path("runs")


def plan(
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="A workflow's file.", show_default=False)],
    site: Annotated[str | None, typer.Option(help="The site; this one by default.")] = None,
    partition: Annotated[list[str] | None, typer.Option(help="Only this partition; may be given again.")] = None,
    queue_wait: Annotated[str | None, typer.Option(help="How long batch jobs wait, such as 10m; or probe.")] = None,
    from_run: Annotated[str | None, typer.Option("--from", help="A run whose measured times count.")] = None,
    account: Annotated[str | None, typer.Option(help="Who pays.")] = None,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Compare the ways to ask for a workflow's nodes: time, node-hours, idle share; and say which to take."""
    from pilotflow.cli.workflow_plan import Wanted, show_plan

    with errors_in_words():
        wanted = Wanted(site, tuple(partition or ()), queue_wait, from_run, account, run_dir)
        raise typer.Exit(show_plan(workflow, wanted, as_json=json))


def resources(
    run: Annotated[str, typer.Argument(metavar="RUN", help="`last`, a number, or a run directory.")] = "last",
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
    app.command("plan")(plan)
    app.command("resources")(resources)
