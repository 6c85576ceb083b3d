"""The commands of `pilotflow`.

Exit codes: 0 all went well, 1 a task's own code failed (or the output cannot be written), 2 the
command line or the configuration is wrong, 3 a process, node or block failed, 130 interrupted.
Errors of pilotflow never show a traceback: one message on stderr, red on terminals.

What a command needs is imported when it runs, so that `pilotflow --version` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pilotflow.cli.in_words import CONFIG_WRONG, errors_in_words, import_from_here
from pilotflow.cli.options import BASE, RUNS, SITES, WORKFLOWS, Base, Json, RunName, WorkflowFile
from pilotflow.cli.site_commands import add_site_commands
from pilotflow.cli.slurm_commands import add_commands as add_slurm_commands
from pilotflow.cli.workflow_commands import add_commands
from pilotflow.errors import ConfigError
from pilotflow.ids import VERSION


class _Commands(TyperGroup):
    """The commands. What they raise is theirs: typer turns an `EOFError` into "Aborted.", which tells nobody anything."""

    def invoke(self, ctx: Any) -> Any:
        """Call what the command line names."""
        try:
            return super().invoke(ctx)
        except EOFError as error:
            raise RuntimeError(f"a file has ended too early: {error}") from error


app = typer.Typer(
    name="pilotflow",
    cls=_Commands,
    help="Run many Python functions and shell commands on this machine or a batch system.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


add_commands(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"pilotflow {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(rich_help_panel=SITES)
def demo(
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; one per usable core if not given.")] = None,
    tasks: Annotated[int, typer.Option(min=1, max=1_000_000, help="Python tasks to run.")] = 20_000,
    run_dir: Annotated[Path, typer.Option(help="Where the run's directory goes.")] = Path("runs"),
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Count primes in many small tasks on this machine, and say how fast that went."""
    from pilotflow.cli.demo import run_demo

    with errors_in_words("Interrupted. All processes of the run have been ended."):
        run_demo(workers, tasks, run_dir, json)


@app.command(rich_help_panel=SITES)
def check(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say what a configuration file means, or everything that is wrong with it. Starts nothing."""
    from pilotflow.cli.check import check_as_json, check_as_text

    import_from_here()
    with errors_in_words():
        if json:
            if not check_as_json(config):
                raise typer.Exit(CONFIG_WRONG)
        else:
            check_as_text(config)


@app.command(rich_help_panel=SITES)
def schema(
    what: Annotated[str, typer.Argument(metavar="[config|workflow|site]", help="Which files.")] = "config",
) -> None:
    """Print the JSON Schema of configuration, workflow or site files, for editors that check while you write."""
    from json import dumps

    with errors_in_words():
        if what == "workflow":
            from pilotflow.workflow.schema import json_schema
        elif what == "config":
            from pilotflow.config.schema import json_schema
        elif what == "site":
            from pilotflow.config.schema import site_schema as json_schema
        else:
            raise ConfigError(f"There is no schema of '{what}'. Valid: config, workflow, site.")
        print(dumps(json_schema(), indent=2))


@app.command(rich_help_panel=WORKFLOWS)
def create(
    workflow: WorkflowFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="What this does anyway: nothing is started.")] = True,  # noqa: ARG001
    config: Annotated[
        str | None,
        typer.Option(metavar="CONFIG", help="A configuration whose executors say what nodes have, to check against."),
    ] = None,
    site: Annotated[
        str | None, typer.Option(metavar="SITE", help="The site to check against; the one this is, if that is known.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Check a workflow, and say what a run of it would do: jobs, requests, graph, allocations. Starts nothing."""
    from pilotflow.cli.create import show_workflow

    import_from_here()
    with errors_in_words():
        show_workflow(workflow, config, site, json)


@app.command(rich_help_panel=WORKFLOWS)
def graph(
    workflow: WorkflowFile,
    format: Annotated[str | None, typer.Option(help="svg, dot or mermaid; else as --output ends.")] = None,  # noqa: A002
    by: Annotated[str, typer.Option(help="Draw each job, or each stage; auto: jobs if they can be seen.")] = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file to write instead.")] = None,
) -> None:
    """Draw which jobs of a workflow wait for which."""
    from pilotflow.cli.create import draw

    with errors_in_words():
        draw(workflow, format, by, output)


@app.command(rich_help_panel=WORKFLOWS)
def convert(
    workflow: WorkflowFile,
) -> None:
    """Print a workflow's file (JSON, JSON5, KDL) as YAML."""
    from pilotflow.cli.create import convert as print_as_yaml

    with errors_in_words():
        print_as_yaml(workflow)


@app.command(rich_help_panel=RUNS)
def status(
    run: RunName = "last",
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Say, from another terminal, what waits and what works in a run."""
    from pilotflow.cli.status import say_status

    say_status(run, run_dir, json)


@app.command(rich_help_panel=RUNS, context_settings={"ignore_unknown_options": True})
def explain(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="As for `status`; the last by default.", show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Argument(metavar="TASK", help="The number or the name of a task or job.", show_default=False),
    ] = None,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Say why a task or job is not running, where it runs, or how it has ended; asks the run from another terminal."""
    from pilotflow.cli.explain import show_explanation

    with errors_in_words("Interrupted. The run was not touched."):
        show_explanation(run, task, run_dir, json)


add_slurm_commands(app)
add_site_commands(app)
