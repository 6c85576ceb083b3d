"""The commands for workflows: parsed here, done in `workflow_runs`, `workflow_shows` and `workflow_repairs`."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotflow.cli.in_words import errors_in_words, seconds_of
from pilotflow.cli.options import BASE, RUNS, WORKFLOWS, Account, Base, Json, RunName, SiteName

_UNTOUCHED = "Interrupted. The run was not touched."

WorkflowPath = Annotated[Path, typer.Argument(metavar="WORKFLOW", help="A workflow's file.")]
Jobs = Annotated[
    str | None,
    typer.Option(
        "--jobs", "-j", help="Only these: names, patterns, numbers such as 1-10, states such as failed; with commas."
    ),
]
Cpus = Annotated[int | None, typer.Option(min=1, help="Cores to offer; all by default.")]
MemoryGb = Annotated[float | None, typer.Option(min=0.001, help="Memory to offer, in GiB; what there is by default.")]
Gpus = Annotated[int | None, typer.Option(min=0, help="GPUs to offer; all by default.")]
Resources = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=AMOUNT", help="What else jobs ask for that each node has, such as licence=2; may be given again."
    ),
]
Depth = Annotated[int | None, typer.Option(min=1, help="Run so many jobs at once, whatever they ask for.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Run in the background; it survives logout.")]
NoLocal = Annotated[bool, typer.Option("--no-local", help="Run nothing here: jobs wait for runners.")]
Keep = Annotated[
    str | None, typer.Option(help="If the run's program dies, what runs ends, and waits so long for `resume` (1h).")
]
AutoRecover = Annotated[
    bool, typer.Option("--auto-recover", help="Jobs that lack memory or time ask for more and run again.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done, as `create` does.")]
Here = Annotated[bool, typer.Option("--here", help="Run all jobs on this machine, whatever the file or the site say.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Another setting of the site, such as partition; may be given again."
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")]


def run(
    workflow: WorkflowPath,
    num_cpus: Cpus = None,
    memory_gb: MemoryGb = None,
    num_gpus: Gpus = None,
    resources: Resources = None,
    max_parallel_jobs: Depth = None,
    detach: Detach = False,
    no_local: NoLocal = False,
    keep: Keep = None,
    auto_recover: AutoRecover = False,
    here: Here = False,
    site: SiteName = None,
    account: Account = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Run a workflow to its end, and say how it went."""
    from pilotflow.cli.workflow_runs import Options, start

    with errors_in_words():
        if dry_run:
            return _say_what_would_be_done(workflow, site, json)
        machine = (num_cpus, memory_gb, num_gpus, resources or (), max_parallel_jobs, no_local)
        options = Options(*machine, keep, auto_recover, here, site, account, settings or ())
        raise typer.Exit(start(workflow, options, run_dir, detached=detach, as_json=json))


@wraps(run)
def submit(**options: Any) -> None:
    """Run a workflow in the background; the same as `run --detach`."""
    run(**{**options, "detach": True})


def _say_what_would_be_done(workflow: Path, site: str | None, as_json: bool) -> None:
    from pilotflow.cli.create import show_workflow

    show_workflow(str(workflow), None, site, as_json)


def resume(run: RunName = "last", detach: Detach = False, run_dir: Base = BASE, json: Json = False) -> None:
    """Go on with a run whose program has ended or died; what has finished is not repeated."""
    from pilotflow.cli.workflow_runs import resume_run

    with errors_in_words():
        raise typer.Exit(resume_run(run, run_dir, detached=detach, as_json=json))


def attach(run: RunName = "last", run_dir: Base = BASE, json: Json = False) -> None:
    """Show a run live until it ends; Ctrl-C leaves it running."""
    from pilotflow.cli.workflow_runs import attach_to

    with errors_in_words("Detached. The run goes on."):
        raise typer.Exit(attach_to(run, run_dir, as_json=json))


def list_runs(run_dir: Base = BASE, json: Json = False) -> None:
    """List the runs of workflows."""
    from pilotflow.cli.workflow_shows import show_list

    with errors_in_words():
        show_list(run_dir, as_json=json)


def jobs(run: RunName = "last", select: Jobs = None, run_dir: Base = BASE, json: Json = False) -> None:
    """List a run's jobs: state, attempt, exit code, time, memory."""
    from pilotflow.cli.workflow_shows import show_jobs

    with errors_in_words():
        show_jobs(run, select, run_dir, as_json=json)


def results(run: RunName = "last", select: Jobs = None, run_dir: Base = BASE, json: Json = False) -> None:
    """List all ended attempts at a run's jobs."""
    from pilotflow.cli.workflow_shows import show_results

    with errors_in_words():
        show_results(run, select, run_dir, as_json=json)


def logs(
    run: RunName = "last",
    job: Annotated[str | None, typer.Argument(metavar="JOBS", help="Which jobs; those that failed by default.")] = None,
    follow: Follow = False,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, help="Only the last lines of each file.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Which attempt; the last by default.")] = None,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only what went to stderr.")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only what went to stdout.")] = False,
    run_dir: Base = BASE,
) -> None:
    """Print what jobs have printed."""
    from pilotflow.cli.workflow_logs import show_logs

    with errors_in_words():
        streams = [name for name, wanted in (("out", stdout), ("err", stderr)) if wanted] or ["out", "err"]
        show_logs(run, job, run_dir, follow=follow, lines=lines, attempt=attempt, streams=streams)


def events(
    run: RunName = "last",
    follow: Follow = False,
    run_dir: Base = BASE,
    json: Annotated[bool, typer.Option("--json", help="Print each as a line of JSON.")] = False,
) -> None:
    """List what happened to a run: its managers, blocks, actions, cancellations."""
    from pilotflow.cli.workflow_shows import show_events

    with errors_in_words():
        show_events(run, run_dir, follow=follow, as_json=json)


def cancel(run: RunName = "last", select: Jobs = None, run_dir: Base = BASE, json: Json = False) -> None:
    """Cancel a run, or some of its jobs and what depends on them; running ones are ended."""
    from pilotflow.cli.workflow_runs import cancel_run

    with errors_in_words(_UNTOUCHED):
        cancel_run(run, select, run_dir, as_json=json)


def watch(run: RunName = "last", run_dir: Base = BASE, json: Json = False) -> None:
    """The same as `attach`: show a run live until it ends."""
    attach(run, run_dir, json)


def runner(
    run: RunName = "last",
    num_cpus: Cpus = None,
    memory_gb: MemoryGb = None,
    num_gpus: Gpus = None,
    resources: Resources = None,
    max_parallel_jobs: Depth = None,
    scheduler: Annotated[str | None, typer.Option(help="Serve jobs that are bound to this scheduler, too.")] = None,
    label: Annotated[str | None, typer.Option(help="Serve jobs with this label, too.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Leave after so long, such as 2h.")] = None,
    idle_limit: Annotated[str | None, typer.Option(help="Leave after so long without work, such as 10m.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Where its log goes.")] = None,
    run_dir: Base = BASE,
) -> None:
    """Add a manager to a running run, by hand, from this terminal; it leaves when the run ends."""
    from pilotflow.cli.workflow_runner import Offered, run_runner

    with errors_in_words():
        limit = None if time_limit is None else seconds_of("--time-limit", time_limit)
        idle = None if idle_limit is None else seconds_of("--idle-limit", idle_limit)
        offer = (num_cpus, memory_gb, num_gpus, resources or (), max_parallel_jobs)
        offered = Offered(*offer, scheduler, label, limit, idle, output_dir)
        raise typer.Exit(run_runner(run, run_dir, offered))


def rerun(
    run: RunName = "last",
    failed: Annotated[bool, typer.Option("--failed", help="What did not end well, and what depends on it.")] = False,
    select: Jobs = None,
    workflow: Annotated[Path | None, typer.Option(help="The changed file; that of the run by default.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, and why.")] = False,
    detach: Detach = False,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Run again what has changed or failed since, or --failed, or --jobs; and what depends on that."""
    from pilotflow.cli.workflow_repairs import rerun_run

    with errors_in_words():
        code = rerun_run(
            run,
            run_dir,
            failed=failed,
            selector=select,
            file=workflow,
            dry_run=dry_run,
            detached=detach,
            as_json=json,
        )
        raise typer.Exit(code)


def recover(
    run: RunName = "last",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change, and why.")] = False,
    retry_unknown: Annotated[bool, typer.Option(help="Run again, too, what failed for no known reason.")] = False,
    auto: Annotated[bool, typer.Option("--auto", help="From now on do this while the run runs.")] = False,
    detach: Detach = False,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Give jobs that failed for lack of memory or time more of it, and run them again."""
    from pilotflow.cli.workflow_repairs import recover_run

    with errors_in_words():
        code = recover_run(
            run, run_dir, dry_run=dry_run, retry_unknown=retry_unknown, auto=auto, detached=detach, as_json=json
        )
        raise typer.Exit(code)


def correct(
    workflow: WorkflowPath,
    from_run: Annotated[str, typer.Option("--from", help="The run whose measures count.")] = "last",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the corrected file, as YAML.")] = None,
    run_dir: Base = BASE,
    json: Json = False,
) -> None:
    """Say what a workflow's resource requirements should be, by what a run has used."""
    from pilotflow.cli.workflow_repairs import correct as correct_file

    with errors_in_words():
        correct_file(workflow, from_run, run_dir, output=output, as_json=json)


def delete(
    run: RunName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="It is meant.")] = False,
    run_dir: Base = BASE,
) -> None:
    """Delete a run: its record and the output of its jobs."""
    from pilotflow.cli.workflow_files import delete_run

    with errors_in_words():
        delete_run(run, run_dir, sure=yes)


def export_run(
    run: RunName = "last",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The archive; run-NUMBER.tar.gz.")] = None,
    run_dir: Base = BASE,
) -> None:
    """Write a run, its record and the output of its jobs, into one archive."""
    from pilotflow.cli.workflow_files import export_run as write

    with errors_in_words():
        write(run, run_dir, output)


def import_run(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="What `export` has written.")],
    run_dir: Base = BASE,
) -> None:
    """Make a run of an archive."""
    from pilotflow.cli.workflow_files import import_run as read

    with errors_in_words():
        read(archive, run_dir)


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    app.command("run", rich_help_panel=WORKFLOWS)(run)
    background = "Run a workflow in the background; the same as `run --detach`."
    app.command("submit", help=background, rich_help_panel=WORKFLOWS)(submit)
    commands: dict[str, Any] = {
        "list": list_runs,
        "attach": attach,
        "watch": watch,
        "jobs": jobs,
        "results": results,
        "logs": logs,
        "events": events,
        "cancel": cancel,
        "resume": resume,
        "runner": runner,
        "rerun": rerun,
        "recover": recover,
        "correct": correct,
        "delete": delete,
        "export": export_run,
        "import": import_run,
    }
    for name, function in commands.items():
        app.command(name, rich_help_panel=RUNS)(function)
