"""`pilotflow plan`, and `pilotflow slurm generate`: what allocations would come to, and the file that asks for them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.cli.runs import find_directory
from pilotflow.errors import ConfigError
from pilotflow.resources import Capacity
from pilotflow.units import counted, format_duration, format_memory, parse_duration
from pilotflow.workflow.history import open_history
from pilotflow.workflow.plan_files import Sections, as_lines, dump, sections, walltime_text, whole_file
from pilotflow.workflow.plans import (
    BLOCK_START_S,
    Choice,
    Durations,
    Plan,
    job_start_s,
    measured_durations,
    plan,
    plan_here,
    written_durations,
)
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.schemes import Ask, Place, places_of
from pilotflow.workflow.spec import read_workflow

if TYPE_CHECKING:
    from rich.console import Console

    from pilotflow.config.policy import LocatedPolicy
    from pilotflow.config.site import Site

SHOWN: Final = 12
PROBE_TIMEOUT_S: Final = 20.0
IDLE_S: Final = 120.0
"""The `max_idletime` of runs."""
_CHEAPER: Final = 0.99
"""What costs more than this share of what a faster way costs is not cheaper."""
_STARTS: Final = re.compile(r"to start at ([0-9-]+T[0-9:]+)")


@dataclass(frozen=True)
class Wanted:
    """What the command line says.

    Attributes:
        site: the site's name; None for the one this is.
        partitions: only these.
        queue_wait: a duration, "probe", or None for what can be had.
        from_run: the run whose measured times count.
        account: who pays.
        base: where runs are.
    """

    site: str | None = None
    partitions: tuple[str, ...] = ()
    queue_wait: str | None = None
    from_run: str | None = None
    account: str | None = None
    base: Path = Path("runs")


@dataclass(frozen=True)
class Found:
    """A plan with what it stands on."""

    workflow: Workflow
    plan: Plan
    site: Site | None
    assumptions: tuple[str, ...]
    account: str | None


def find_plan(path: str, wanted: Wanted) -> Found:
    """Compare the ways to ask for a workflow's nodes.

    Raises:
        ConfigError: something is wrong with the file, or with what is asked for.
    """
    workflow = read_workflow(path)
    with (
        nullcontext() if wanted.from_run is None else open_history(find_directory(wanted.from_run, wanted.base)) as run
    ):
        durations = written_durations(workflow) if run is None else measured_durations(workflow, run)
    site, policies, is_here = find_site(wanted.site)
    start = job_start_s(workflow)
    if site is None or site.batch_system == "local":
        if wanted.partitions or wanted.queue_wait or wanted.account:
            options = "--partition, --queue-wait and --account"
            raise ConfigError(f"{options} are about a site with a batch system; name it by --site.")
        here = _this_machine()
        has = f"{here.capacity.cpus_milli // 1000} cores and {format_memory(here.capacity.memory_bytes)}"
        words = (durations.source, f"this machine alone, with {has}; for a cluster name a site by --site")
        return Found(workflow, plan_here(workflow, durations, here), site, words, None)
    places = places_of(site, policies, wanted.partitions)
    if not places:
        raise ConfigError(f"site '{site.name}' does not say how many cores its nodes have, so nothing can be planned.")
    account = wanted.account or site.account.default
    wait = _Wait(wanted.queue_wait, account, may_ask=is_here)
    found = _planned(workflow, durations, places, wait)
    assumed = (
        durations.source,
        wait.words(),
        f"a batch job takes {format_duration(BLOCK_START_S)} to come up, each job {format_duration(start)} to start",
        f"a batch job without work ends after {format_duration(IDLE_S)}",
    )
    return Found(workflow, found, site, assumed, account)


def _planned(workflow: Workflow, durations: Durations, places: Sequence[Place], wait: _Wait) -> Plan:
    idle_s = workflow.idle_s
    return plan(workflow, durations, places, wait, IDLE_S if idle_s is None else idle_s)


def find_site(name: str | None) -> tuple[Site | None, Sequence[LocatedPolicy], bool]:
    """The site that is meant, its policies, and whether it is this one."""
    from pilotflow.config.places import usual_places
    from pilotflow.config.sites import detect, read_catalog, site_of

    catalog = read_catalog(usual_places(os.environ))
    site = site_of(catalog, name, os.environ)
    is_here = any(found.file.site is site for found in detect(catalog, os.environ))
    return site, catalog.policies(None if site is None else site.name), is_here


def _this_machine() -> Place:
    from pilotflow.node.measure import measure_node

    report = measure_node()
    slots = max(1, report.cpus_milli // 1000)
    gpus = tuple(str(number) for number, _ in enumerate(report.gpus))
    return Place("this machine", Capacity(report.cpus_milli, report.memory_bytes or 0, gpus, slots=slots))


class _Wait:
    """How long batch jobs wait in the queue: as said, or as Slurm expects, or not at all."""

    def __init__(self, said: str | None, account: str | None, *, may_ask: bool) -> None:
        self._account = account
        self._probed: dict[tuple[str, int, float], float | None] = {}
        self._probing = said == "probe" or (said is None and may_ask and shutil.which("sbatch") is not None)
        self._said = None if said in (None, "probe") else parse_duration(said or 0)
        if said == "probe" and shutil.which("sbatch") is None:
            raise ConfigError("--queue-wait probe: there is no sbatch on this machine's PATH. Give a duration instead.")

    def __call__(self, ask: Ask) -> float:
        if self._said is not None or not self._probing:
            return self._said or 0.0
        key = (ask.place.name, ask.nodes, ask.walltime_s)
        if key not in self._probed:
            self._probed[key] = expected_wait_s(ask, self._account)
        return self._probed[key] or 0.0

    def words(self) -> str:
        """What was assumed."""
        if self._said is not None:
            return f"each batch job waits {format_duration(self._said)} in the queue, as given by --queue-wait"
        if not self._probing:
            return "no batch job waits in the queue, as nobody here can be asked about that; give --queue-wait"
        silent = sum(wait is None for wait in self._probed.values())
        text = "each batch job waits as long as `sbatch --test-only` expects of one such alone"
        return text + (f"; about {silent} kinds of them Slurm said nothing, they wait 0s" if silent else "")


def expected_wait_s(ask: Ask, account: str | None) -> float | None:
    """How long Slurm expects such a batch job to wait; None if it does not say."""
    argv = ["sbatch", "--test-only", f"--partition={ask.place.name}", f"--nodes={ask.nodes}", "--exclusive"]
    if ask.walltime_s < float("inf"):
        argv.append(f"--time={walltime_text(ask.walltime_s)}")
    argv += [f"--account={account}"] if account else []
    try:
        done = subprocess.run(
            [*argv, "--wrap=true"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _STARTS.search(done.stderr + done.stdout)
    if done.returncode or found is None:
        return None
    return max(0.0, datetime.fromisoformat(found[1]).timestamp() - time.time())


# ---- showing it -----------------------------------------------------------------------------


def show_plan(path: str, wanted: Wanted, *, as_json: bool) -> int:
    """Print the ways to ask for a workflow's nodes, and which one to take; returns the exit code.

    Raises:
        ConfigError: see `find_plan`.
    """
    found = find_plan(path, wanted)
    if as_json:
        print(json.dumps(_as_data(found), indent=2))
        return 0 if found.plan.best is not None else 1
    from rich.console import Console

    console = Console(highlight=False)
    where = f" on site '{found.site.name}'" if found.site is not None else ""
    count = len(found.workflow.jobs)
    jobs = counted(count, "job")
    console.print(f"{path}: workflow '{found.workflow.name}', {jobs}{where}\n", markup=False, soft_wrap=True)
    best = found.plan.best
    rows = [_row(choice, "*" if choice is best else "") for choice in _worth_showing(found.plan)]
    header = ("", "way", "batch jobs", "walltime", "waits", "makespan", "node-hours", "idle")
    print_table(console, header, rows, (5, 6, 7))
    more = len(found.plan.choices) - len(rows)
    if more > 0:
        print(f"and {more} more that are slower or cost more; `--json` has all of them.")
    print()
    print_pairs(console, [("assumed" if not n else "", words) for n, words in enumerate(found.assumptions)], 10)
    _recommend(console, found)
    return 0 if best is not None else 1


def _recommend(console: Console, found: Found) -> None:
    best = found.plan.best
    print()
    if best is None:
        choice = found.plan.choices[0] if found.plan.choices else None
        console.print(_why_none(found.workflow, choice), style="yellow", markup=False, soft_wrap=True)
        return
    console.print(f"Take '{best.scheme.name}' (*): {found.plan.why}.", style="green", markup=False, soft_wrap=True)
    lines = _sections(found)
    if lines is not None:
        print("\nThese lines request it:\n")
        print(as_lines(lines), end="")


def _why_none(workflow: Workflow, choice: Choice | None) -> str:
    if choice is None:
        return "No partition takes these jobs: `pilotflow site match` says which request fits where, and why not."
    unfinished = choice.forecast.unfinished
    names = ", ".join(workflow.jobs[job].name for job in unfinished[:3])
    more = f" and {len(unfinished) - 3:,} more" if len(unfinished) > 3 else ""
    return (
        f"Nothing that was compared gets all jobs done: {names}{more} would not end. They ask for more than a node "
        "has, need more time than an allocation lives, or depend on such jobs."
    )


def _sections(found: Found) -> Sections | None:
    best = found.plan.best
    is_slurm = found.site is not None and found.site.batch_system == "slurm"
    if best is None or not is_slurm or best.scheme.name == "as written":
        return None
    return sections(found.workflow, best.scheme, found.account)


def _worth_showing(found: Plan) -> list[Choice]:
    """The best, what the file says, each that is cheaper than all faster ones, and one of each kind."""
    shown, cheapest = list[Choice](), float("inf")
    by_time = sorted(found.choices, key=lambda one: (not one.is_complete, one.forecast.makespan_s, one.cost))
    for choice in by_time:
        is_cheaper = choice.is_complete and choice.cost < cheapest * _CHEAPER
        if is_cheaper or choice is found.best or choice.scheme.name == "as written":
            shown.append(choice)
        cheapest = min(cheapest, choice.cost) if choice.is_complete else cheapest
    for choice in by_time:
        if choice.scheme.name not in {one.scheme.name for one in shown}:
            shown.append(choice)
    return [choice for choice in found.choices if choice in shown][:SHOWN]


def _row(choice: Choice, mark: str) -> tuple[str, ...]:
    forecast, asks = choice.forecast, choice.scheme.asks
    makespan = format_duration(round(forecast.makespan_s, 1))
    if not choice.is_complete:
        makespan = f"{len(forecast.unfinished):,} left over"
    if choice.scheme.name == "this machine":
        return (mark, choice.scheme.name, "-", "-", "-", makespan, "-", f"{forecast.idle_share:.0%}")
    return (
        mark,
        choice.scheme.name,
        _asks(asks),
        ", ".join(dict.fromkeys(format_duration(ask.walltime_s) for ask in asks)),
        ", ".join(dict.fromkeys(format_duration(round(wait, 1)) for wait in choice.waits_s)),
        makespan,
        f"{choice.node_hours:,.2f}",
        f"{forecast.idle_share:.0%}",
    )


def _asks(asks: Sequence[Ask]) -> str:
    parts = [f"{ask.count} x {ask.nodes} node{'s' if ask.nodes > 1 else ''} {ask.place.name}" for ask in asks]
    return ", ".join(parts) if len(parts) <= 3 else f"{', '.join(parts[:2])} and {len(parts) - 2} more"


def _as_data(found: Found) -> dict[str, Any]:
    lines = _sections(found)
    best = found.plan.best
    return {
        "workflow": found.workflow.name,
        "jobs": len(found.workflow.jobs),
        "site": None if found.site is None else found.site.name,
        "assumptions": list(found.assumptions),
        "choices": [{**_choice_data(choice), "recommended": choice is best} for choice in found.plan.choices],
        "why": found.plan.why,
        "yaml": None if lines is None else as_lines(lines),
    }


def _choice_data(choice: Choice) -> dict[str, Any]:
    forecast = choice.forecast
    return {
        "way": choice.scheme.name,
        "batch_jobs": [
            {
                "scheduler": ask.name,
                "partition": ask.place.name,
                "count": ask.count,
                "nodes": ask.nodes,
                "walltime_s": ask.walltime_s if ask.walltime_s < float("inf") else None,
                "queue_wait_s": wait_s,
            }
            for ask, wait_s in zip(choice.scheme.asks, choice.waits_s, strict=True)
        ],
        "makespan_s": forecast.makespan_s,
        "node_hours": choice.node_hours,
        "cost": choice.cost,
        "idle_share": forecast.idle_share,
        "batch_jobs_started": forecast.batch_jobs,
        "unfinished": len(forecast.unfinished),
    }


def generate(path: str, wanted: Wanted, output: Path | None, *, overwrite: bool) -> None:
    """Write a workflow's file with the schedulers and actions that the plan recommends.

    Raises:
        ConfigError: see `find_plan`; or the file has schedulers already, or nothing gets all jobs done.
    """
    from pilotflow.workflow.reading import read_file

    found = find_plan(path, wanted)
    if found.site is None or found.site.batch_system != "slurm":
        raise ConfigError("slurm generate: this is no site with Slurm; name one by --site. `site list` has them.")
    if found.workflow.slurm_schedulers and not overwrite:
        raise ConfigError(f"{path} has slurm_schedulers of its own. To replace them say --overwrite.")
    choices = [choice for choice in found.plan.choices if choice.is_complete and choice.scheme.name != "as written"]
    if not choices:
        raise ConfigError(_why_none(found.workflow, found.plan.choices[0] if found.plan.choices else None))
    best = found.plan.best if found.plan.best in choices else choices[0]
    assert best is not None
    value = whole_file(dict(read_file(path).value), sections(found.workflow, best.scheme, found.account))
    text = dump(value, width=120)
    row = _row(best, "")
    sys.stderr.write(f"{row[1]}: {row[2]} for {row[3]}; done in {row[5]}, {row[6]} node-hours, {row[7]} idle\n")
    sys.stderr.writelines(f"assumed: {words}\n" for words in found.assumptions)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}.") from None
    sys.stderr.write(f"written: {output}\n")
