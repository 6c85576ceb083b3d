"""Measuring the node that this process runs on: `measure_node`."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pilotflow.core.placement import WHOLE, Place
from pilotflow.node.cgroups import CgroupLimits, read_limits
from pilotflow.node.environment import THREAD_VARIABLES, preset_variables
from pilotflow.node.files import Files
from pilotflow.node.gpus import FoundGpus, Gpu, Vendor, find_gpus
from pilotflow.node.report import Core, NodeReport, Overrides
from pilotflow.node.slurm import Allocation, is_on_node, read_allocation
from pilotflow.node.tools import Run, run_tool
from pilotflow.node.topology import Topology, read_topology
from pilotflow.units import format_memory


def measure_node(
    root: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
    affinity: Collection[int] | None = None,
    run: Run = run_tool,
    overrides: Overrides | None = None,
    now_unix_s: float | None = None,
) -> NodeReport:
    """What this node is and offers to tasks.

    What files, programs and the environment say may be missing or rubbish; that is never an error.
    It takes some milliseconds, and on a node with nvidia-smi as long as that takes, at most about
    20 s a call of it.

    Args:
        root: where the node's files are; another one than "/" in tests.
        environ: the environment, by default this process's.
        affinity: ids of the CPUs that this process may be scheduled on, by default as the kernel says.
        run: how to run a vendor's program.
        overrides: what the user says, which goes before everything that is measured.
        now_unix_s: the time in seconds since 1970, by default the clock's.
    """
    environ = os.environ if environ is None else environ
    overrides = overrides or Overrides()
    files = Files(root)
    notes: list[str] = []
    allocation = read_allocation(environ)
    if allocation is None and environ.get("SLURM_JOB_ID") and not is_on_node(environ):
        notes.append(
            f"This process has the variables of Slurm job {environ['SLURM_JOB_ID']} but runs on none of its nodes "
            "(a shell of salloc?), so Slurm's figures are not used."
        )
    limits = read_limits(files)
    usable = _usable_cpus(os.sched_getaffinity(0) if affinity is None else affinity, limits)
    topology = read_topology(files, usable)
    cpus = _count_cpus(usable, limits, allocation, overrides, notes)
    cores = _cores(cpus, topology, usable, overrides, notes)
    found = find_gpus(files, environ, allocation, run)
    notes += found.notes
    return NodeReport(
        cpus_milli=cpus.milli,
        cores=cores,
        pinned=bool(cores[0].cpus),
        usable_cpus=usable,
        quota_milli=None if limits.quota is None else limits.quota.amount,
        memory_bytes=_memory(files, limits, allocation, overrides, notes),
        gpus=_offered_gpus(found, overrides, notes),
        numa=topology.numa,
        physical_cores=topology.physical,
        allocation=allocation,
        time_left_s=_time_left(allocation, time.time() if now_unix_s is None else now_unix_s),
        preset=preset_variables(environ),
        notes=(*notes, *_thread_notes(environ)),
    )


@dataclass(frozen=True, slots=True)
class _Cpus:
    """How much CPU time is offered, in thousandths of a core, and by whose word, as a sentence's beginning."""

    milli: int
    said: str
    by_quota: bool = False


def _usable_cpus(affinity: Collection[int], limits: CgroupLimits) -> tuple[int, ...]:
    both = set(affinity) & limits.cpus if limits.cpus is not None else set(affinity)
    return tuple(sorted(both or affinity or {0}))


def _count_cpus(
    usable: tuple[int, ...],
    limits: CgroupLimits,
    allocation: Allocation | None,
    overrides: Overrides,
    notes: list[str],
) -> _Cpus:
    if overrides.num_cpus is not None:
        return _Cpus(WHOLE * overrides.num_cpus, f"the user said {_plural(overrides.num_cpus, 'core')}")
    quota = limits.quota
    limited = quota is not None and quota.amount < WHOLE * len(usable)
    if allocation is not None and allocation.cpus is not None:
        said = f"Slurm's figure for this node is {_plural(allocation.cpus, 'CPU')}"
        if quota is not None and quota.amount < WHOLE * allocation.cpus:
            notes.append(f"{said}, but {quota.file} allows the time of {quota.amount / WHOLE:g}: tasks will be slower.")
        return _Cpus(WHOLE * allocation.cpus, said)
    if quota is not None and limited:
        offered = max(WHOLE, quota.amount)
        notes.append(
            f"{_plural(len(usable), 'CPU')} can be used, but {quota.file} allows the time of "
            f"{quota.amount / WHOLE:g}: {offered / WHOLE:g} cores are offered."
        )
        return _Cpus(offered, f"{quota.file} limits CPU time, not which CPUs are used", by_quota=True)
    return _Cpus(WHOLE * len(usable), "")


def _cores(
    cpus: _Cpus, topology: Topology, usable: tuple[int, ...], overrides: Overrides, notes: list[str]
) -> tuple[Core, ...]:
    """Logical cores, each with real CPUs of its own if there is exactly one way to see it.

    With fewer real CPUs tasks must share them. With more, which of them are this job's is unknown,
    and others would be pinned to the same ones.
    """
    count = -(-cpus.milli // WHOLE)
    if overrides.pin and not cpus.by_quota:
        groups: tuple[tuple[int, ...], ...] = ()
        if count == len(usable):
            groups = tuple((cpu,) for cpu in usable)
        elif count == len(topology.physical):
            groups = topology.physical
        if groups:
            physical = {cpu: at for at, core in enumerate(topology.physical) for cpu in core}
            return tuple(Core(group, Place(topology.numa_of(group[0]), physical[group[0]])) for group in groups)
    why = cpus.said
    if not overrides.pin:
        why = "the user said so"
    elif count > len(usable):
        why += f", but this process may use only {len(usable)}"
    elif not cpus.by_quota:
        why += f", and which of the {len(usable)} that this process may use they are is unknown"
    notes.append(f"Tasks are not pinned to cores: {why}.")
    return tuple(Core((), Place(0, index)) for index in range(count))


def _memory(
    files: Files, limits: CgroupLimits, allocation: Allocation | None, overrides: Overrides, notes: list[str]
) -> int | None:
    """The least of what the machine has, control groups allow and Slurm gave."""
    match = re.search(r"^MemTotal:\s*([0-9]{1,15}) kB", files.text("/proc/meminfo") or "", re.MULTILINE)
    physical = int(match[1]) * 1024 if match and int(match[1]) else None
    amounts = [physical]
    has = f"the machine has {format_memory(physical)}" if physical is not None else "what the machine has is unknown"
    if limits.memory is not None and (physical is None or limits.memory.amount < physical):
        amounts.append(limits.memory.amount)
        notes.append(f"{limits.memory.file} limits memory to {format_memory(limits.memory.amount)}; {has}.")
    if allocation is not None and allocation.memory_bytes is not None:
        amounts.append(allocation.memory_bytes)
        if physical is not None and allocation.memory_bytes > physical:
            notes.append(f"Slurm's figure for this node is {format_memory(allocation.memory_bytes)}, but {has}.")
    measured = min((amount for amount in amounts if amount is not None), default=None)
    if overrides.memory_bytes is None:
        return measured
    if measured is not None and overrides.memory_bytes > measured:
        notes.append(
            f"{format_memory(overrides.memory_bytes)} of memory are offered as the user said, "
            f"but no more than {format_memory(measured)} can be used."
        )
    return overrides.memory_bytes


def _offered_gpus(found: FoundGpus, overrides: Overrides, notes: list[str]) -> tuple[Gpu, ...]:
    """The GPUs found; as many of them as the user said, and more if need be."""
    wanted = overrides.num_gpus
    if wanted is None:
        return found.offered
    gpus = list((*found.offered, *found.hidden)[:wanted])
    if len(gpus) < wanted:
        notes.append(f"{wanted} GPUs are offered as the user said, but {len(gpus)} were found.")
    vendor = gpus[0].vendor if gpus else Vendor.UNKNOWN
    taken = {gpu.id for gpu in gpus}
    free = (str(number) for number in range(wanted + len(gpus)) if str(number) not in taken)
    return (*gpus, *(Gpu(id, vendor) for id, _ in zip(free, range(wanted - len(gpus)), strict=False)))


def _time_left(allocation: Allocation | None, now_unix_s: float) -> float | None:
    if allocation is None or allocation.end_unix_s is None:
        return None
    return max(0.0, allocation.end_unix_s - now_unix_s)


def _thread_notes(environ: Mapping[str, str]) -> list[str]:
    found = [f"{name}={environ[name]}" for name in THREAD_VARIABLES if name in environ]
    if not found:
        return []
    return [f"{', '.join(found)} of the environment {'hold' if len(found) > 1 else 'holds'} for all tasks."]


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"
