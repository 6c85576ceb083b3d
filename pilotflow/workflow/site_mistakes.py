"""What a workflow asks of partitions that they do not give, as far as a site's file tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pilotflow.config.site import Partition
from pilotflow.resources import NodeShape, Request
from pilotflow.units import did_you_mean, format_duration, format_memory
from pilotflow.workflow.findings import Findings
from pilotflow.workflow.reading import Path
from pilotflow.workflow.records import SlurmScheduler, Workflow


def node_of(partition: Partition) -> NodeShape:
    """What a node of a partition has, as far as its site's file says."""
    return NodeShape(
        cpus_milli=None if partition.cpus_per_node is None else 1000 * partition.cpus_per_node,
        memory_bytes=partition.memory_bytes,
        gpus=partition.gpus_per_node,
    )


def look_at_partitions(
    workflow: Workflow, requirements: Mapping[str, Path], findings: Findings, partitions: Sequence[Partition]
) -> None:
    """Warn of schedulers, and jobs bound to them, that their partitions cannot serve.

    These are warnings, since a site's file may be older than the site.

    Args:
        workflow: a workflow without errors.
        requirements: where the entry of each of the requirements is.
        findings: where warnings go.
        partitions: what the site has.
    """
    by_name = {partition.name: partition for partition in partitions}
    default = next((partition for partition in partitions if partition.default), None)
    for index, scheduler in enumerate(workflow.slurm_schedulers):
        path: Path = ("slurm_schedulers", index)
        partition = default if scheduler.partition is None else by_name.get(scheduler.partition)
        if partition is None:
            if scheduler.partition is not None:
                near = did_you_mean(scheduler.partition, by_name)
                text = f"this site has no partition '{scheduler.partition}'{near}. Valid: {', '.join(by_name)}."
                findings.warn((*path, "partition"), text)
            continue
        _limits(scheduler, partition, path, findings)
        _requests(workflow, index, partition, requirements, findings)


def _limits(scheduler: SlurmScheduler, partition: Partition, path: Path, findings: Findings) -> None:
    longest_s = partition.max_walltime_s
    if longest_s is not None and scheduler.walltime_s > longest_s:
        findings.warn(
            (*path, "walltime"),
            f"{format_duration(scheduler.walltime_s)} is more than batch jobs of partition '{partition.name}' may run, "
            f"{format_duration(longest_s)}.",
        )
    if partition.max_nodes is not None and scheduler.nodes > partition.max_nodes:
        findings.warn(
            (*path, "nodes"),
            f"{scheduler.nodes} nodes are more than one batch job of partition '{partition.name}' may have, "
            f"{partition.max_nodes}. Write `nodes: {partition.max_nodes}`, and more allocations.",
        )
    if scheduler.nodes < partition.min_nodes:
        findings.warn(
            (*path, "nodes"),
            f"one batch job of partition '{partition.name}' must have {partition.min_nodes} nodes at least, not "
            f"{scheduler.nodes}. Write `nodes: {partition.min_nodes}`.",
        )


def _requests(
    workflow: Workflow, index: int, partition: Partition, requirements: Mapping[str, Path], findings: Findings
) -> None:
    seen = set[str]()
    for job in workflow.jobs:
        if job.scheduler == index and job.requirements is not None and job.requirements not in seen:
            seen.add(job.requirements)
            lacks = _lacks(job.request, partition)
            if lacks:
                findings.warn(
                    requirements[job.requirements],
                    f"requirements '{job.requirements}' fit on no node of partition '{partition.name}', where jobs like "
                    f"'{job.name}' go by their scheduler: {'; '.join(lacks)}.",
                )


def _lacks(request: Request, partition: Partition) -> list[str]:
    node = node_of(partition)
    lacks = list[str]()
    if node.cpus_milli is not None and request.cpus_milli > node.cpus_milli:
        lacks.append(f"{request.cpus_milli / 1000:g} cores of {node.cpus_milli / 1000:g}")
    if node.memory_bytes is not None and request.memory_bytes > node.memory_bytes:
        lacks.append(f"{format_memory(request.memory_bytes)} of {format_memory(node.memory_bytes)}")
    if node.gpus is not None and request.gpus_milli > 1000 * node.gpus:
        lacks.append(f"{request.gpus_milli / 1000:g} GPUs of {node.gpus}")
    return lacks
