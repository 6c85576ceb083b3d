"""What runs, but is usually not meant: pointed out, with the lines to write instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from pilotflow.resources import NodeShape, Request, SortMethod
from pilotflow.units import counted, exact_memory, format_duration, format_memory
from pilotflow.workflow.findings import Findings
from pilotflow.workflow.heads import one_head
from pilotflow.workflow.reading import Path
from pilotflow.workflow.records import Job, Mode, SlurmScheduler, Workflow

LARGEST_CPUS: Final = 1024
LARGEST_MEMORY_BYTES: Final = 16 << 40
"""More than one node has anywhere: what is asked for each node must be a total."""

_LAUNCHERS: Final = ("srun", "mpirun", "mpiexec", "mpiexec.hydra", "aprun", "jsrun")
_LAUNCHER: Final = re.compile(
    rf"(?:^|(?<=[;&|(\n]))[ \t]*((?:\S*/)?(?:{'|'.join(map(re.escape, _LAUNCHERS))}))(?=\s)([^;&|\n]*)"
)
_TAKES_A_VALUE: Final = re.compile(
    r"-(?:[nNcpwJtAqCdmrx])|--?(?:np|ppn|host|hosts|hostfile|machinefile|ntasks|nodes|cpus-per-task|map-by|bind-to)"
)
_SPANS_NODES: Final = re.compile(
    r"\b(?:srun|mpi\w*|torchrun|torch\.distributed|deepspeed|horovodrun|accelerate|dask|ray|julia|charmrun|aprun|jsrun|pbsdsh)\b"
    r"|SLURM_(?:JOB_)?(?:NODELIST|NNODES|NTASKS)",
    re.IGNORECASE,
)
_STARTED_ON_EACH: Final = re.compile(r"\b(?:torchrun|torch\.distributed\.(?:run|launch)|accelerate launch)\b")
"""Programs that are to be started on every node, where they find each other."""


def look_for_mistakes(
    workflow: Workflow,
    paths: Sequence[Path],
    requirements: Mapping[str, Path],
    findings: Findings,
    nodes: Sequence[NodeShape] = (),
) -> None:
    """Warn of everything in a workflow that is usually not meant.

    Args:
        workflow: a workflow without errors.
        paths: where the entry of each stage is.
        requirements: where the entry of each of the requirements is.
        findings: where warnings go.
        nodes: what the nodes have on which it may run, as far as that is known.
    """
    seen = _Entries(workflow, paths, findings)
    _totals(workflow, requirements, findings, nodes)
    _launchers_in_commands(seen)
    _started_once_or_on_each(seen)
    _independent_jobs_on_many_nodes(seen)
    _too_much_for_their_scheduler(seen)
    _unbound_jobs(workflow, findings)
    _idle_nodes(workflow, findings)


class _Entries:
    """The first job of each entry stands for all of its copies."""

    def __init__(self, workflow: Workflow, paths: Sequence[Path], findings: Findings) -> None:
        self.workflow = workflow
        self.paths = paths
        self.findings = findings
        self.firsts: list[Job] = []
        self.counts = [0] * len(workflow.stages)
        for job in workflow.jobs:
            if not self.counts[job.stage]:
                self.firsts.append(job)
            self.counts[job.stage] += 1

    def warn(self, job: Job, key: str, text: str) -> None:
        """A warning about a key of a job's entry."""
        self.findings.warn((*self.paths[job.stage], key), text)


def _totals(workflow: Workflow, places: Mapping[str, Path], findings: Findings, nodes: Sequence[NodeShape]) -> None:
    """Requirements that no node has, since values are for each node."""
    cpus = _largest([node.cpus_milli for node in nodes], LARGEST_CPUS * 1000)
    memory = _largest([node.memory_bytes for node in nodes], LARGEST_MEMORY_BYTES)
    known = "any node that is known here has" if nodes else "any node has"
    for name, request in _requirements(workflow):
        wrong, right = list[str](), list[str]()
        for key, value, limit, words, exact in (
            ("num_cpus", request.cpus_milli, cpus, _cores, _cores),
            ("memory", request.memory_bytes, memory, format_memory, exact_memory),
        ):
            if value <= limit:
                continue
            wrong.append(f"{key} is {words(value)}, more than the {words(limit)} that {known}")
            each = -(-value // request.num_nodes)
            if request.num_nodes > 1 and each <= limit:
                right.append(f"`{key}: {exact(each)}`")
        if not wrong:
            continue
        ending = "Values are for each node."
        if right:
            ending = f"Values are for each of the {request.num_nodes} nodes, so write {' and '.join(right)}."
        elif request.num_nodes == 1:
            ending += " To spread a job over several, write `num_nodes` and what each of them gives."
        findings.warn(places[name], f"requirements '{name}': {'; '.join(wrong)}. {ending}")


def _largest(values: Sequence[int | None], otherwise: int) -> int:
    known = [value for value in values if value]
    return max(known) if known and len(known) == len(values) else otherwise


def _requirements(workflow: Workflow) -> list[tuple[str, Request]]:
    """The requirements that jobs have, in order of their names' first use."""
    made = dict[str, Request]()
    for job in workflow.jobs:
        if job.requirements is not None:
            made.setdefault(job.requirements, job.request)
    return list(made.items())


def _cores(milli: int) -> str:
    return f"{milli / 1000:g}"


def _may_be_steps(workflow: Workflow, job: Job) -> bool:
    """Whether srun may start a job: in slurm mode, or in auto mode where allocations are asked for."""
    mode = workflow.execution.mode
    return mode is Mode.SLURM or (mode is Mode.AUTO and bool(workflow.slurm_schedulers) and not job.executors)


def _launchers_in_commands(seen: _Entries) -> None:
    """`srun` or `mpirun` in commands that srun starts anyway."""
    for job in seen.firsts:
        match = _LAUNCHER.search(job.command or "")
        if match is None or job.command is None or not _may_be_steps(seen.workflow, job):
            continue
        launcher = match[1].rpartition("/")[2]
        right = " ".join(_without_options(match[2].split()))
        before, after = job.command[: match.start(1)], job.command[match.end() :]
        space = " " if match[2][-1:].isspace() else ""
        line = f"{before}{right}{space}{after}".strip()
        in_mode = "in slurm mode" if seen.workflow.execution.mode is Mode.SLURM else "inside an allocation"
        seen.warn(
            job,
            "command",
            f"{in_mode} srun starts this job already, and {launcher} inside it would fight with it over nodes and "
            f"tasks. Write `command: {_one_line(line)}`, with `ranks_per_node` for several processes a node. To call "
            f"{launcher} yourself, write `execution_config: {{mode: direct}}`.",
        )


def _started_once_or_on_each(seen: _Entries) -> None:
    """In direct mode: `mpirun` in each of the ranks that are started anyway, or `torchrun` on the first node alone."""
    if seen.workflow.execution.mode is not Mode.DIRECT:
        return
    for job in seen.firsts:
        many, command = job.request.num_nodes, job.command or ""
        launcher, on_each = _LAUNCHER.search(command), _STARTED_ON_EACH.search(command)
        if many < 2 or job.function is not None:
            continue
        if launcher is not None and not job.request.spreads_itself:
            seen.warn(
                job,
                "command",
                f"with `ranks_per_node` this command is started on each of its {many} nodes, and {launcher[1]} would start "
                "all processes again in each. Leave `ranks_per_node` out to start it once.",
            )
        elif on_each is not None and launcher is None and job.request.spreads_itself:
            seen.warn(
                job,
                "command",
                f"in direct mode this command is started once, on the first of its {many} nodes, where {on_each[0]} would "
                "wait for its like on the others. Write `ranks_per_node: 1` to start it on each.",
            )


def _without_options(words: Sequence[str]) -> Sequence[str]:
    """The words of a command behind its launcher's options."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if _TAKES_A_VALUE.fullmatch(words[at]) else 1
    return words[at:] or words


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else f"{flat[:97]}..."


def _independent_jobs_on_many_nodes(seen: _Entries) -> None:
    """Several jobs that each ask for several nodes, and show no sign of using more than one."""
    for job in seen.firsts:
        many = job.request.num_nodes
        if many < 2 or seen.counts[job.stage] < 2 or job.request.ranks_per_node > 1 or job.function is not None:
            continue
        if _SPANS_NODES.search(f"{job.command} {job.invocation_script or ''}"):
            continue
        seen.warn(
            job,
            "resource_requirements",
            f"each of these {seen.counts[job.stage]} jobs takes {many} whole nodes, but its command does not look as if "
            "it ran on several. Jobs that need not talk to each other spread over nodes by themselves: write "
            "`num_nodes: 1` (the default).",
        )


def _too_much_for_their_scheduler(seen: _Entries) -> None:
    """Jobs that fit into no allocation of the scheduler they are bound to."""
    asked = [(action.scheduler, action.max_parallel_jobs) for action in seen.workflow.actions]
    by_number = {number for number, most in asked if most is not None} - {
        number for number, most in asked if most is None
    }
    for job in seen.firsts:
        if job.scheduler is None:
            continue
        scheduler = seen.workflow.slurm_schedulers[job.scheduler]
        if job.request.num_nodes > scheduler.nodes:
            seen.warn(
                job,
                "scheduler",
                f"this job spans {job.request.num_nodes} nodes, but allocations of '{scheduler.name}' have "
                f"{scheduler.nodes}, so it would wait forever. Write `nodes: {job.request.num_nodes}` there.",
            )
        elif job.request.num_nodes > 1 and job.scheduler in by_number:
            seen.warn(
                job,
                "scheduler",
                f"this job spans {job.request.num_nodes} nodes, but all actions that ask for '{scheduler.name}' say "
                "`max_parallel_jobs`, with which each job runs on one node, so it would fail. Leave that out of one of them.",
            )
        runtime_s = job.request.runtime_s
        if runtime_s is not None and runtime_s > scheduler.walltime_s:
            seen.warn(
                job,
                "scheduler",
                f"this job may run {format_duration(runtime_s)}, but allocations of '{scheduler.name}' live "
                f"{format_duration(scheduler.walltime_s)}, so it would wait forever. Write a longer `walltime` there, "
                "or a shorter `runtime`.",
            )


def _unbound_jobs(workflow: Workflow, findings: Findings) -> None:
    """Jobs that may go to any of several different schedulers, in no order that suits these."""
    kinds = {_kind_of(each) for each in workflow.slurm_schedulers}
    free = sum(job.scheduler is None and not job.executors for job in workflow.jobs)
    if len(kinds) > 1 and free and workflow.sort_method is SortMethod.NONE:
        findings.warn(
            ("jobs_sort_method",),
            f"{counted(free, 'job')} without a scheduler may go to any, and they differ: small jobs may take the large nodes. Write "
            "`jobs_sort_method: gpus_runtime_memory`, or give such jobs a `scheduler`.",
        )


def _kind_of(scheduler: SlurmScheduler) -> tuple[object, ...]:
    return scheduler.partition, scheduler.gres, scheduler.mem, scheduler.nodes


def _idle_nodes(workflow: Workflow, findings: Findings) -> None:
    """Allocations of several nodes with one manager, at their head, for jobs that could use the others."""
    for index, action in enumerate(workflow.actions):
        if not one_head(workflow, action) or action.scheduler is None:
            continue
        nodes = workflow.slurm_schedulers[action.scheduler].nodes
        sizes = [job.request.num_nodes for job in workflow.jobs if job.scheduler in (None, action.scheduler)]
        single, beside = sizes.count(1), sum(1 < size <= nodes // 2 for size in sizes)
        idle = list[str]()
        if single:
            idle.append(f"{counted(single, 'single-node job')} can run on that node alone")
        if beside > 1:
            idle.append(f"{beside} jobs on fewer nodes run one after another, since each begins there")
        if idle:
            findings.warn(
                ("actions", index),
                f"in direct mode these {nodes} nodes have one manager, on the first of them: {' and '.join(idle)}, while "
                "other nodes idle. For a manager on each node write `start_one_worker_per_node: true`.",
            )
