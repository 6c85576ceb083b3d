"""Which partitions of a site a request fits into, and why it does not fit into the others. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pilotflow.config.policy import LocatedPolicy, refusals
from pilotflow.config.site import Partition, Site
from pilotflow.resources import Request
from pilotflow.units import counted, format_duration, format_memory


@dataclass(frozen=True)
class Fit:
    """How a request and a partition go together.

    Attributes:
        partition: the partition.
        reasons: why it does not fit, in words with both numbers; empty if it does.
        at_once: how many such tasks run on one node at a time; None if that is not known.
        cost: node-hours of the site's unit that one such task takes, its share of a node counted; None
            without a runtime.
    """

    partition: Partition
    reasons: tuple[str, ...]
    at_once: int | None
    cost: float | None


def match(site: Site, request: Request, policies: Sequence[LocatedPolicy] = ()) -> list[Fit]:
    """How a request goes together with each partition: those that fit first, the cheapest of them first.

    Args:
        site: the site.
        request: what a task asks for, per node.
        policies: limits on walltime and partitions.
    """
    fits = [_fit(partition, request, policies) for partition in site.partitions]
    return sorted(
        fits, key=lambda fit: (bool(fit.reasons), fit.partition.explicit, fit.cost or 0, not fit.partition.default)
    )


def _fit(partition: Partition, request: Request, policies: Sequence[LocatedPolicy]) -> Fit:
    reasons: list[str] = []
    cpus, memory = partition.cpus_per_node, partition.memory_bytes
    if cpus is not None and request.cpus_milli > 1000 * cpus:
        reasons.append(f"{_cores(request.cpus_milli)} cores a node, it has {cpus}")
    if memory is not None and request.memory_bytes > memory:
        reasons.append(f"{format_memory(request.memory_bytes)} a node, it has {format_memory(memory)}")
    if request.gpus_milli > 1000 * partition.gpus_per_node:
        reasons.append(f"{_cores(request.gpus_milli)} GPUs a node, it has {partition.gpus_per_node or 'none'}")
    allowed = [located.policy.max_nodes for located in policies]
    most = min((many for many in (partition.max_nodes or partition.nodes, *allowed) if many is not None), default=None)
    if most is not None and request.num_nodes > most:
        reasons.append(f"{counted(request.num_nodes, 'node')}, a job gets at most {most}")
    reasons += _time(partition, request, policies)
    reasons += [text.removesuffix(".") for text in refusals(policies, partition.name)]
    at_once = None if reasons else _at_once(partition, request)
    return Fit(partition, tuple(reasons), at_once, _cost(partition, request, at_once))


def _time(partition: Partition, request: Request, policies: Sequence[LocatedPolicy]) -> list[str]:
    limits = [float(located.policy.max_walltime) for located in policies if located.policy.max_walltime is not None]
    if partition.max_walltime_s is not None:
        limits.append(partition.max_walltime_s)
    if request.runtime_s is None or not limits or request.runtime_s <= min(limits):
        return []
    return [f"{format_duration(request.runtime_s)}, a job may run {format_duration(min(limits))}"]


def _at_once(partition: Partition, request: Request) -> int | None:
    if request.num_nodes > 1:
        return 1
    rooms: list[int] = []
    if partition.cpus_per_node is not None and request.cpus_milli:
        rooms.append(1000 * partition.cpus_per_node // request.cpus_milli)
    if partition.memory_bytes is not None and request.memory_bytes:
        rooms.append(partition.memory_bytes // request.memory_bytes)
    if request.gpus_milli:
        rooms.append(1000 * partition.gpus_per_node // request.gpus_milli)
    return min(rooms, default=None)


def _cost(partition: Partition, request: Request, at_once: int | None) -> float | None:
    if request.runtime_s is None:
        return None
    return partition.charge_factor * request.num_nodes * request.runtime_s / 3600 / (at_once or 1)


def _cores(milli: int) -> str:
    return f"{milli / 1000:g}"
