"""`pilotflow create --dry-run`: what a run of a workflow would do, and `pilotflow graph`, `pilotflow convert`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.cli.workflow_plan import find_site
from pilotflow.errors import ConfigError
from pilotflow.resources import NodeShape, Request
from pilotflow.units import counted, did_you_mean, format_duration, format_memory
from pilotflow.workflow.allocations import batch_heads
from pilotflow.workflow.drawing import FORMATS
from pilotflow.workflow.heads import one_head
from pilotflow.workflow.order import levels
from pilotflow.workflow.picture import picture_of, stage_edges
from pilotflow.workflow.planned import Planned, planned_settings
from pilotflow.workflow.reading import read_file
from pilotflow.workflow.records import Action, Deed, Trigger, Workflow
from pilotflow.workflow.spec import read_workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from pilotflow.config.site import Partition

_KEY_WIDTH: Final = 18
_MOST_ROWS: Final = 60
_MOST_JOBS_AS_JSON: Final = 10_000


def show_workflow(path: str, config: str | None, site: str | None, as_json: bool) -> None:
    """Check a workflow and print what its run would do.

    Args:
        path: the workflow's file.
        config: a configuration file whose executors say what their nodes have, or None.
        site: the site whose partitions it is checked against; None for the one this is, if that is known.
        as_json: print it for programs.

    Raises:
        ConfigError: something is wrong with it; all that is, by line and column.
    """
    partitions = partitions_of(site)
    workflow = read_workflow(path, nodes=_nodes(config), partitions=partitions)
    planned = _planned(workflow, site) if partitions and not workflow.slurm_schedulers else None
    if as_json:
        print(json.dumps({**_as_data(workflow), "planned": None if planned is None else planned.settings}, indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    count = f"{len(workflow.jobs)} jobs in {len(workflow.stages)} stages" if len(workflow.jobs) > 1 else "1 job"
    console.print(
        f"{path}: workflow '{workflow.name}', {count}. Nothing is wrong.\n", style="green", markup=False, soft_wrap=True
    )
    if workflow.description:
        console.print(f"{workflow.description}\n", markup=False, soft_wrap=True)
    _print_stages(console, workflow)
    for rows in (_graph(workflow), _allocations(workflow), _more(workflow)):
        if rows:
            print()
            print_pairs(console, rows, _KEY_WIDTH)
    if planned is not None:
        console.print(f"\n{planned.words}", markup=False, soft_wrap=True)
    for name, lines in batch_heads(workflow).items():
        print(f"\nbatch scripts of '{name}' begin with:")
        print("\n".join(f"  {line}" for line in lines))
    _print_warnings(workflow)


def _nodes(config: str | None) -> list[NodeShape]:
    """What the nodes of a configuration's executors have, as far as it says."""
    if config is None:
        return []
    from pilotflow.config.file import load_config

    return [
        NodeShape(
            cpus_milli=None if executor.num_cpus is None else round(executor.num_cpus * 1000),
            memory_bytes=_bytes(executor.memory),
        )
        for executor in load_config(config).block_executors
    ]


def partitions_of(site: str | None) -> Sequence[Partition]:
    """The partitions of a site: of the one with this name, or of the one that this is; none if nothing tells."""
    from pilotflow.config.places import usual_places
    from pilotflow.config.sites import detect, read_catalog

    catalog = read_catalog(usual_places(os.environ))
    if site is not None:
        return catalog.site(site).site.partitions
    found = detect(catalog, os.environ)
    return found[0].file.site.partitions if len(found) == 1 or (found and found[0].file is catalog.admin) else ()


def _planned(workflow: Workflow, name: str | None) -> Planned | None:
    """What the site is asked for, if a plan decides that."""
    site, policies, _ = find_site(name)
    if site is None or site.batch_system != "slurm":
        return None
    return planned_settings(workflow, site, policies, site.defaults)


def _bytes(memory: str | int | None) -> int | None:
    from pilotflow.units import parse_memory

    return None if memory is None else parse_memory(memory)


def _print_stages(console: Console, workflow: Workflow) -> None:
    firsts, counts = dict[int, Any](), [0] * len(workflow.stages)
    for job in workflow.jobs:
        firsts.setdefault(job.stage, job)
        counts[job.stage] += 1
    needs: dict[int, list[str]] = {}
    for start, end in stage_edges(workflow.jobs):
        needs.setdefault(end, []).append(workflow.stages[start] if start != end else "itself, in a chain")
    rows = list[tuple[str, ...]]()
    for stage, name in enumerate(workflow.stages[:_MOST_ROWS]):
        job = firsts[stage]
        where = workflow.slurm_schedulers[job.scheduler].name if job.scheduler is not None else ", ".join(job.executors)
        rows.append(
            (name, str(counts[stage]), request_text(job.request), where or "anywhere", _short(needs.get(stage, [])))
        )
    print_table(console, ("stage", "jobs", "each needs, per node", "runs on", "after"), rows, right=(1,))
    if len(workflow.stages) > _MOST_ROWS:
        print(f"and {counted(len(workflow.stages) - _MOST_ROWS, 'more stage')}; `--json` has all of them.")


def _short(names: list[str]) -> str:
    if not names:
        return "-"
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def request_text(request: Request) -> str:
    """What a job asks for, as people read it."""
    cores = request.cpus_milli / 1000
    parts = [f"{cores:g} core" if cores == 1 else f"{cores:g} cores"]
    if request.memory_bytes:
        parts.append(format_memory(request.memory_bytes))
    if request.gpus_milli:
        parts.append(f"{request.gpus_milli / 1000:g} GPU" + ("" if request.gpus_milli <= 1000 else "s"))
    parts += [f"{amount} {name}" for name, amount in request.resources]
    text = ", ".join(parts)
    if request.num_nodes > 1:
        text += f" on {request.num_nodes} whole nodes"
    if request.ranks_per_node > 1:
        text += f", {counted(request.ranks_per_node, 'rank')} a node"
    if request.runtime_s is not None:
        text += f" for {format_duration(request.runtime_s)}"
    return text


def _graph(workflow: Workflow) -> list[tuple[str, str]]:
    """How many jobs can run beside each other, step by step."""
    level = levels(workflow.jobs)
    widths = [0] * (1 + max(level, default=0))
    for each in level:
        widths[each] += 1
    shown = " -> ".join(map(str, widths[:12])) + (" -> ..." if len(widths) > 12 else "")
    plain = sum(len(job.depends_on) for job in workflow.jobs)
    return [
        ("graph", f"{plain} dependencies between jobs" if plain != 1 else "1 dependency between jobs"),
        (
            "",
            f"{_steps(len(widths))}, with {shown} {'job' if widths == [1] else 'jobs'} that can run beside each other",
        ),
    ]


def _steps(count: int) -> str:
    return f"{count} steps one after another" if count > 1 else "one step"


def _allocations(workflow: Workflow) -> list[tuple[str, str]]:
    rows = [("mode", _MODES[workflow.execution.mode.value])]
    for number, scheduler in enumerate(workflow.slurm_schedulers):
        where = f" in partition {scheduler.partition}" if scheduler.partition else ""
        nodes = "1 node" if scheduler.nodes == 1 else f"{scheduler.nodes} nodes"
        text = f"{scheduler.name}: {nodes} for {format_duration(scheduler.walltime_s)}{where}"
        if scheduler.account:
            text += f", account {scheduler.account}"
        rows.append(("allocations" if not number else "", text))
    rows += [("actions" if not number else "", _action(workflow, each)) for number, each in enumerate(workflow.actions)]
    return rows


_MODES: Final = {
    "auto": "auto: srun places each job inside a Slurm allocation, managers start jobs elsewhere",
    "slurm": "slurm: srun places each job",
    "direct": "direct: managers start jobs themselves",
}
_MOMENTS: Final = {
    Trigger.ON_WORKFLOW_START: "at the start",
    Trigger.ON_WORKFLOW_COMPLETE: "at the end",
    Trigger.ON_WORKER_START: "when a manager starts",
    Trigger.ON_WORKER_COMPLETE: "when a manager ends",
}


def _action(workflow: Workflow, action: Action) -> str:
    moment = _MOMENTS.get(action.trigger)
    if moment is None:
        names = [workflow.jobs[index].name for index in action.jobs]
        state = "ready" if action.trigger is Trigger.ON_JOBS_READY else "complete"
        moment = f"when {_short(names)} {'is' if len(names) == 1 else 'are'} {state}"
    if action.deed is Deed.RUN_COMMANDS:
        first = " ".join(action.commands[0].split())
        first = first if len(first) <= 60 else f"{first[:57]}..."
        more = len(action.commands) - 1
        return f"{moment}: run {first}" + (f" and {more} more command{'s' if more > 1 else ''}" if more else "")
    name = "blocks on this machine" if action.scheduler is None else workflow.slurm_schedulers[action.scheduler].name
    text = f"{moment}: ask for {action.num_allocations} x {name}"
    if action.start_one_worker_per_node:
        text += ", a manager on each node"
    elif one_head(workflow, action):
        text += ", one manager, on the first node"
    if action.max_parallel_jobs is not None:
        text += f", at most {counted(action.max_parallel_jobs, 'job')} at once whatever they need"
    return text


def _more(workflow: Workflow) -> list[tuple[str, str]]:
    outside = [each for each in workflow.files if not each.producers]
    missing = [each for each in outside if not os.path.exists(os.path.expanduser(each.path))]
    rows = list[tuple[str, str]]()
    if workflow.files:
        rows.append(
            (
                "files",
                f"{len(workflow.files)}, "
                + (f"{len(outside)} of them from outside" if outside else "all written by jobs"),
            )
        )
    if missing:
        rows.append(("", f"not there yet: {_short([each.path for each in missing])}"))
    if workflow.user_data:
        rows.append(("user data", f"{len(workflow.user_data)}, {sum(each.given for each in workflow.user_data)} given"))
    for handler in workflow.failure_handlers:
        rows.append(("failure handler", f"{handler.name}: {counted(len(handler.rules), 'rule')}"))
    return rows


def _print_warnings(workflow: Workflow) -> None:
    from rich.console import Console
    from rich.text import Text

    if workflow.warnings:
        print(flush=True)
    console = Console(stderr=True, highlight=False)
    for warned in workflow.warnings:
        console.print(Text(f"{workflow.where(warned.at)}: warning: {warned.text}", style="yellow"), soft_wrap=True)


def _as_data(workflow: Workflow) -> dict[str, Any]:
    counts = [0] * len(workflow.stages)
    for job in workflow.jobs:
        counts[job.stage] += 1
    data: dict[str, Any] = msgspec.to_builtins(workflow)
    data["jobs"] = data["jobs"][:_MOST_JOBS_AS_JSON]
    for job in data["jobs"]:
        job["request"] = msgspec.structs.asdict(workflow.jobs[job["index"]].request)
    return {
        "valid": True,
        "job_count": len(workflow.jobs),
        "stage_counts": dict(zip(workflow.stages, counts, strict=True)),
        "steps": 1 + max(levels(workflow.jobs), default=0),
        "batch_scripts": batch_heads(workflow),
        **data,
    }


def draw(path: str, kind: str | None, by: str, output: Path | None) -> None:
    """Print the graph of a workflow, or write it into a file.

    Args:
        path: the workflow's file.
        kind: svg, dot or mermaid; None takes what the output's suffix says, else mermaid.
        by: job, stage or auto.
        output: the file to write, or None.

    Raises:
        ConfigError: something is wrong with the workflow or with what is asked for.
    """
    suffix = {"gv": "dot", "mmd": "mermaid"}.get(output.suffix[1:], output.suffix[1:]) if output is not None else ""
    kind = kind or (suffix if suffix in FORMATS else "mermaid")
    if kind not in FORMATS:
        raise ConfigError(f"'{kind}' is no format of graphs{did_you_mean(kind, FORMATS)}. Valid: {', '.join(FORMATS)}.")
    if by not in ("auto", "job", "stage"):
        raise ConfigError(f"'{by}' cannot be drawn. Valid: auto, job, stage.")
    text = FORMATS[kind](picture_of(read_workflow(path), by))
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output}: cannot be written: {error.strerror}.") from None
    sys.stderr.write(f"written: {output}\n")


def convert(path: str) -> None:
    """Print a workflow's file as YAML, whatever it is written in.

    Raises:
        ConfigError: it cannot be read.
    """
    import yaml

    from pilotflow.workflow.findings import as_lines

    reading = read_file(path)
    if reading.problems:
        raise ConfigError(as_lines(path, sorted(reading.problems, key=lambda problem: problem.at)))
    yaml.safe_dump(reading.value, sys.stdout, sort_keys=False, allow_unicode=True, width=120)
