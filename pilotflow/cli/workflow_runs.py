"""Commands that run workflows: start, resume, attach, cancel."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pilotflow.cli.create import partitions_of
from pilotflow.cli.in_words import seconds_of
from pilotflow.cli.live import Live
from pilotflow.cli.runs import find_directory
from pilotflow.cli.site_shows import parse_settings
from pilotflow.cli.workflow_summary import as_data, print_summary
from pilotflow.config.here import effective_here, tell_message, within_policy
from pilotflow.config.settings import option_of
from pilotflow.core.job_states import ENDED
from pilotflow.errors import ConfigError
from pilotflow.requests import parse_request
from pilotflow.units import counted, did_you_mean
from pilotflow.workflow.coordinator import SUCCEEDED, create, detach, go_on
from pilotflow.workflow.engine import Engine
from pilotflow.workflow.history import open_history
from pilotflow.workflow.holding import is_held
from pilotflow.workflow.inbox import CancelJobs
from pilotflow.workflow.options import KEEP_S, RunOptions
from pilotflow.workflow.orders import Cancelled, order_blocks, order_cancel
from pilotflow.workflow.planned import planned_settings
from pilotflow.workflow.records import Mode, Workflow
from pilotflow.workflow.spec import read_workflow
from pilotflow.workflow.supplies import Supplies

if TYPE_CHECKING:
    from pilotflow.config.compose import Effective

GIB: Final = 1 << 30
_STANDS: Final = {
    "new": "it has not been started",
    "succeeded": "it has succeeded",
    "failed": "it has failed",
    "interrupted": "it was interrupted",
    "infrastructure": "it has ended early",
    "died": "its program is gone",
}
_CODES: Final = {"succeeded": 0, "failed": 1, "infrastructure": 3, "interrupted": 130}


class Options(NamedTuple):
    """What the command line says about where jobs run.

    Attributes:
        num_cpus, memory_gb, num_gpus, max_parallel_jobs: of this machine.
        resources: what else each node has, as NAME=AMOUNT.
        no_local: run nothing here.
        keep: how long results are kept for another program; None for what the workflow says.
        auto_recover: help jobs by itself.
        here: run everything on this machine, whatever the file and the site say.
        site, account: where, and what to charge.
        settings: others, as NAME=VALUE.
    """

    num_cpus: int | None = None
    memory_gb: float | None = None
    num_gpus: int | None = None
    resources: Sequence[str] = ()
    max_parallel_jobs: int | None = None
    no_local: bool = False
    keep: str | None = None
    auto_recover: bool = False
    here: bool = False
    site: str | None = None
    account: str | None = None
    settings: Sequence[str] = ()


def start(path: Path, options: Options, base: Path, *, detached: bool, as_json: bool) -> int:
    """Run a workflow; returns the exit code.

    Raises:
        ConfigError: anything is wrong with the file or the options; nothing was started.
    """
    workflow = read_workflow(path, partitions=partitions_of(None))
    for warning in workflow.warnings:
        sys.stderr.write(f"{workflow.where(warning.at)}: warning: {warning.text}\n")
    directory = create(workflow, parse_options(options, workflow), base)
    return begin(directory, detached=detached, as_json=as_json)


def parse_options(options: Options, workflow: Workflow) -> RunOptions:
    """What the command line, the workflow and the site together say about where jobs run.

    Raises:
        ConfigError: a value is wrong, or contradicts another one.
    """
    told = {**parse_settings(options.settings), "site": options.site, "account": options.account}
    settings = {key: value for key, value in told.items() if value is not None}
    if options.here and settings:
        raise ConfigError(f"--here runs everything on this machine, and {', '.join(settings)} say otherwise. Give one.")
    slurm = False
    if workflow.slurm_schedulers and not options.here:
        slurm = shutil.which("sbatch") is not None
        if settings:
            raise ConfigError(f"{workflow.path} has slurm_schedulers of its own; {', '.join(settings)} cannot be set.")
        if not slurm:
            sys.stderr.write("There is no sbatch on this machine's PATH: all jobs run here.\n")
    machine = (options.num_cpus, options.memory_gb, options.num_gpus, options.max_parallel_jobs)
    if slurm or options.here or options.no_local or any(value is not None for value in machine):
        by_site = False
        if settings:
            raise ConfigError(
                f"{_words(settings)}: said of a site's batch system, and other options say that jobs run on this "
                "machine, or on runners. Give one or the other."
            )
    else:
        found = effective_here(settings, "{option}")
        by_site = found is not None and found.site is not None and found.site.batch_system != "local"
        if by_site and found is not None:
            tell_message(found)
            settings |= _planned(workflow, found)
        elif lost := {key: value for key, value in settings.items() if key != "site"}:
            raise ConfigError(
                f"{_words(lost)}: said of a site's batch system, and no site is known to be here; all jobs would run "
                "on this machine. Name one by --site (`pilotflow site list` shows them), or leave it out."
            )
    made = RunOptions(
        num_cpus=options.num_cpus,
        memory_bytes=None if options.memory_gb is None else int(options.memory_gb * GIB),
        num_gpus=options.num_gpus,
        resources=parse_amounts(options.resources),
        max_parallel_jobs=options.max_parallel_jobs,
        local=not (options.no_local or slurm or by_site),
        slurm=slurm or by_site,
        settings=settings if by_site else None,
        auto_recover=options.auto_recover,
        keep_s=_keep_s(workflow, options.keep),
    )
    if slurm:
        own = Supplies(workflow, made)
        within_policy(own.config(), own.most_blocks(), own.origins())
    return made


def _keep_s(workflow: Workflow, said: str | None) -> float:
    if said is not None:
        return seconds_of("--keep", said)
    return KEEP_S if workflow.keep_s is None else workflow.keep_s


def parse_amounts(words: Sequence[str]) -> dict[str, int]:
    """Amounts by name, as `--resources NAME=AMOUNT` gives them.

    Raises:
        ConfigError: one is none.
    """
    found: dict[str, int] = {}
    for word in words:
        name, _, amount = (part.strip() for part in word.partition("="))
        if not amount.isdecimal() or name in found:
            raise ConfigError(f"--resources {word}: write each name once with its amount, such as licence=2.")
        found[name] = int(amount)
    parse_request(resources=found or None)  # names and amounts are those of requests
    return found


def _words(settings: Mapping[str, Any]) -> str:
    """Settings as they were given on the command line."""
    options = {key: option_of(key) for key in settings}
    return ", ".join(f"{text}{'=' if ' ' in text else ' '}{settings[key]}" for key, text in options.items())


def _planned(workflow: Workflow, found: Effective) -> dict[str, Any]:
    """What is asked of the site, shown before anything is; nothing if somebody has said it, or nobody can tell."""
    if found.site is None or found.site.batch_system != "slurm":
        return {}
    planned = planned_settings(workflow, found.site, found.policies, found.settings)
    if planned is None:
        return {}
    sys.stderr.write(f"{planned.words}\n")
    return planned.settings


def resume_run(run: str, base: Path, *, detached: bool, as_json: bool) -> int:
    """Go on with a run; returns the exit code. Of one in which nothing is left to do it only says how it went."""
    directory = find_directory(run, base)
    with open_history(directory) as history:
        summary = history.summary(stages=False)
    if summary.state in ("succeeded", "failed") and ENDED.issuperset(summary.counts.of):
        return _finish(directory, as_json=as_json)
    return begin(directory, detached=detached, as_json=as_json)


def begin(directory: Path, *, detached: bool, as_json: bool) -> int:
    """Go on with a run, here or in the background, and say how it went; returns the exit code."""
    if detached:
        pid = detach(directory)
        name = directory.name
        if as_json:
            print(json.dumps({"run": name, "directory": str(directory), "pid": pid}))
        else:
            print(f"Run {name} goes on in the background (pid {pid}, {directory}).")
            print(f"See it with `pilotflow attach {name}` or `pilotflow status {name}`.")
        return SUCCEEDED

    def beside(_: Engine) -> AbstractContextManager[object]:
        return Live(directory, quiet=as_json)

    code = go_on(directory, beside)
    _finish(directory, as_json=as_json)
    return code


def attach_to(run: str, base: Path, *, as_json: bool) -> int:
    """Show a run until it ends; returns the exit code of its end.

    Raises:
        ConfigError: it is not running, and has not ended.
    """
    directory = find_directory(run, base)
    with Live(directory, quiet=as_json):
        while is_held(directory):
            time.sleep(0.2)
    return _finish(directory, as_json=as_json)


def _finish(directory: Path, *, as_json: bool) -> int:
    with open_history(directory) as history:
        summary = history.summary()
        if as_json:
            print(json.dumps(as_data(history, summary), indent=2))
        else:
            print_summary(history, summary)
    if summary.state == "new" and not as_json:
        sys.stderr.write(f"Go on with it: pilotflow resume {summary.number}\n")
    return _CODES.get(summary.state, 3)


def _cancel_all(directory: Path) -> Cancelled:
    """Cancel what is left of a run that nobody has; what still runs for it is ended."""
    with open_history(directory) as history:
        counts = history.summary(stages=False).counts
    left = counts.total - counts.ended

    @contextmanager
    def beside(engine: Engine) -> Iterator[None]:
        engine.inbox.put(CancelJobs(None))
        yield

    go_on(directory, beside)
    return Cancelled(left)


def cancel_run(run: str, selector: str | None, base: Path, *, as_json: bool) -> None:
    """Cancel jobs of a run.

    Raises:
        ConfigError: the run is not running, or the selector selects nothing.
    """
    directory = find_directory(run, base)
    with open_history(directory) as history:
        numbers = history.select(selector) if selector is not None else None
        state = history.summary(stages=False).state
    if state == "running":
        cancelled = order_cancel(directory, numbers)
    elif state not in ("died", "interrupted", "new"):
        raise ConfigError(f"Run {directory.name} is not running ({_STANDS[state]}); there is nothing to cancel.")
    elif numbers is None:
        cancelled = _cancel_all(directory)
    else:
        raise ConfigError(
            f"Run {directory.name} is not running ({_STANDS[state]}). Cancel some of its jobs while it runs "
            f"(`pilotflow resume {directory.name} --detach`), or the whole run, without --jobs."
        )
    if as_json:
        print(json.dumps({"run": directory.name, "cancelled": cancelled.jobs, "dependents": cancelled.dependents}))
    elif cancelled.jobs:
        print(f"Run {directory.name}: cancelled {cancelled.words}.")
    else:
        print(f"Run {directory.name}: nothing to cancel; these jobs have ended.")


def schedule_blocks(
    run: str,
    scheduler: str | None,
    count: int,
    max_parallel_jobs: int | None,
    base: Path,
    *,
    each: bool = False,
    as_json: bool,
) -> None:
    """Have a run ask for more allocations.

    Raises:
        ConfigError: it is not running, or the scheduler has to be named.
        InfrastructureError: it has no such scheduler.
    """
    directory = find_directory(run, base)
    with open_history(directory) as history:
        workflow = history.workflow()
        names = [entry.name for entry in workflow.slurm_schedulers]
        state = history.summary(stages=False).state
    if not names:
        raise ConfigError(f"Run {directory.name} has no slurm_schedulers, so nothing can be asked for by one of them.")
    if scheduler is None:
        if len(names) != 1:
            raise ConfigError(f"Say which with --scheduler: {', '.join(names)}.")
        scheduler = names[0]
    if scheduler not in names:
        raise ConfigError(
            f"Run {directory.name} has no scheduler '{scheduler}'{did_you_mean(scheduler, names)}. "
            f"It has: {', '.join(names)}."
        )
    if state != "running":
        raise ConfigError(f"Run {directory.name} is not running ({_STANDS[state]}); go on with it first.")
    if each and workflow.execution.mode is not Mode.DIRECT:
        raise ConfigError(
            f"--start-one-worker-per-node is for direct mode, and run {directory.name} has mode: "
            f"{workflow.execution.mode.value}, in which srun starts jobs on all nodes. Leave it out."
        )
    label = order_blocks(directory, scheduler, count, max_parallel_jobs, each=each)
    if as_json:
        print(json.dumps({"run": directory.name, "executor": label, "blocks": count}))
    else:
        print(f"{counted(count, 'more block')} of executor '{label}' asked for.")
