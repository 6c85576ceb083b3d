"""Arguments and options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

BASE: Final = Path("runs")

WORKFLOWS: Final = "Workflows"
RUNS: Final = "Runs"
SITES: Final = "Configuration and sites"
"""What the list of all commands has them under."""

RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="`last`, a number, a run directory, or where run directories are: then its newest."
    ),
]
WorkflowFile = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW", help="A workflow's file: YAML, JSON, JSON5 or KDL; - is standard input.", show_default=False
    ),
]
Base = Annotated[Path, typer.Option("--run-dir", help="Where run directories are.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
SiteName = Annotated[
    str | None, typer.Option("--site", help="The site whose partitions to use; found out if not given.")
]
Partitions = Annotated[list[str] | None, typer.Option("--partition", help="Only this partition; may be given again.")]
Account = Annotated[str | None, typer.Option("--account", help="What batch jobs are charged to.")]
QueueWait = Annotated[str | None, typer.Option("--queue-wait", help="How long batch jobs wait, such as 10m; or probe.")]
FromRun = Annotated[str | None, typer.Option("--from", help="A run whose measured times count.")]
