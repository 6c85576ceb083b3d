"""The commands about plans, measured resources, blocks and Slurm: parsed here, done in modules of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pilotflow.cli.in_words import errors_in_words, import_from_here
from pilotflow.cli.options import (
    BASE,
    RUNS,
    SITES,
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

slurm_app = typer.Typer(name="slurm", help="What Slurm is given.", no_args_is_help=True)


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


def blocks(
    run: RunName = "last",
    every: Annotated[bool, typer.Option("--all", help="Also the blocks that have ended.")] = False,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Show the blocks of a run: batch ids, states, why they wait, nodes, time left, load."""
    from pilotflow.cli.blocks import show_blocks

    with errors_in_words("Interrupted. The run was not touched."):
        show_blocks(run, run_dir, json, every)


@slurm_app.command("schedule-nodes")
def schedule_nodes(
    run: RunName = "last",
    scheduler: Annotated[
        str | None, typer.Option(help="Which entry of slurm_schedulers; the only one by default.")
    ] = None,
    num_hpc_jobs: Annotated[int, typer.Option("--num-hpc-jobs", "-n", min=1, help="How many allocations.")] = 1,
    max_parallel_jobs: Annotated[
        int | None, typer.Option(min=1, help="Those whose managers run so many jobs at once, as an action says.")
    ] = None,
    start_one_worker_per_node: Annotated[
        bool,
        typer.Option(
            "--start-one-worker-per-node", help="Those with a manager on each node (direct mode), as an action says."
        ),
    ] = False,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Have a running workflow ask for more allocations of one of its schedulers."""
    from pilotflow.cli.workflow_runs import schedule_blocks

    with errors_in_words("Interrupted. The run goes on."):
        each = start_one_worker_per_node
        schedule_blocks(run, scheduler, num_hpc_jobs, max_parallel_jobs, run_dir, each=each, as_json=json)


@slurm_app.command("script")
def script(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML or JSON file.", show_default=False)],
    executor: Annotated[str | None, typer.Option(help="Which executor; the first with Slurm by default.")] = None,
) -> None:
    """Print the batch script of an executor's first block, and submit nothing.

    NNNN in it is the number of the run's directory.
    """
    from pilotflow.cli.batch_script import batch_script

    with errors_in_words():
        import_from_here()
        print(batch_script(config, executor), end="")


@slurm_app.command("generate")
def generate(
    workflow: WorkflowFile,
    site: SiteName = None,
    partition: Partitions = None,
    account: Account = None,
    queue_wait: QueueWait = None,
    from_run: FromRun = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the schedulers that the file has.")] = False,
    run_dir: Base = BASE,
) -> None:
    """Print a workflow with the schedulers and actions that `plan` recommends, and submit nothing."""
    from pilotflow.cli.workflow_plan import Wanted, generate

    with errors_in_words():
        wanted = Wanted(site, tuple(partition or ()), queue_wait, from_run, account, run_dir)
        generate(workflow, wanted, output, overwrite=overwrite)


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command("plan", rich_help_panel=WORKFLOWS)(plan)
    app.command("resources", rich_help_panel=RUNS)(resources)
    app.command("blocks", rich_help_panel=RUNS)(blocks)
    app.add_typer(slurm_app, rich_help_panel=SITES)
