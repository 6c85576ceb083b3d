"""What Slurm gives a job on this node, by the environment of the job's processes.

Source of all rules: "OUTPUT ENVIRONMENT VARIABLES" in sbatch(1) and srun(1), Slurm 22.05 and later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MAX_NAMES: Final = 1 << 17
"""More nodes than any cluster has: a list that would be longer is rubbish."""
_MAX_CPUS: Final = 1 << 16
"""More CPUs than any node has."""
_MIB: Final = 1 << 20
_UNITS: Final = {"": _MIB, "K": 1 << 10, "M": _MIB, "G": 1 << 30, "T": 1 << 40}
_COUNT = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")
_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)")
_RANGE = re.compile(r"([0-9]{1,12})(?:-([0-9]{1,12}))?")
_PIECE = re.compile(r"([^\[\],]+)|\[([0-9,-]+)\]")
_HOST = re.compile(r"(?:[^\[\],]|\[[0-9,-]+\])+")
_HOSTS = re.compile(rf"{_HOST.pattern}(?:,{_HOST.pattern})*")


@dataclass(frozen=True, slots=True)
class Allocation:
    """A job's share of this node; None for what Slurm does not say.

    Attributes:
        job: the job's id.
        node: this node's name in Slurm.
        cpus: CPUs of the job on this node. They are hardware threads or cores, as the site counts.
        memory_bytes: memory of the job on this node.
        gpus: how many GPUs the job has on this node.
        gpu_ids: the ids of those GPUs among all of the node.
        end_unix_s: when the job must end, in seconds since 1970.
    """

    job: str
    node: str | None
    cpus: int | None
    memory_bytes: int | None
    gpus: int | None
    gpu_ids: tuple[str, ...] | None
    end_unix_s: float | None


def read_allocation(environ: Mapping[str, str]) -> Allocation | None:
    """The allocation that this process is in, or None.

    A shell that salloc starts on a login node has a job's variables but is on none of its nodes; it
    lacks those that Slurm's daemon on a node sets for the processes it starts.
    """
    job = environ.get("SLURM_JOB_ID")
    if not job or not is_on_node(environ):
        return None
    cpus = _cpus(environ)
    gpu_ids = _gpu_ids(environ)
    gpus = _whole(environ.get("SLURM_GPUS_ON_NODE"))
    if gpus is None and gpu_ids is not None:
        gpus = len(gpu_ids)
    end = _whole(environ.get("SLURM_JOB_END_TIME"))
    return Allocation(
        job=job,
        node=environ.get("SLURMD_NODENAME"),
        cpus=cpus,
        memory_bytes=memory_at(environ, cpus, gpus),
        gpus=gpus,
        gpu_ids=gpu_ids,
        end_unix_s=None if end is None else float(end),
    )


def is_on_node(environ: Mapping[str, str]) -> bool:
    """Whether Slurm's daemon on a node has started this process or one above it."""
    return any(environ.get(name) for name in ("SLURMD_NODENAME", "SLURM_NODEID", "SLURM_PROCID"))


def expand_hosts(text: str) -> list[str] | None:
    """The node names of a list as Slurm writes it, "a[1-2,05],b3", or None if it is not one."""
    if not _HOSTS.fullmatch(text):
        return None
    names: list[str] = []
    for host in _HOST.findall(text):
        expanded = [""]
        for plain, ranges in _PIECE.findall(host):
            endings = _expand_ranges(ranges) if ranges else [""]
            if endings is None or len(names) + len(expanded) * len(endings) > _MAX_NAMES:
                return None
            expanded = [name + plain + ending for name in expanded for ending in endings]
        names += expanded
    return names


def _expand_ranges(text: str) -> list[str] | None:
    numbers: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first + len(numbers) >= _MAX_NAMES:
            return None
        numbers += [str(value).zfill(len(match[1])) for value in range(first, last + 1)]
    return numbers


def count_at(text: str, index: int | None) -> int | None:
    """The number for one node of a list such as "72(x2),36".

    Args:
        text: the list.
        index: the node's place in the job's node list, None if that is not known; then there is an
            answer only if all nodes have the same.
    """
    runs: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _COUNT.fullmatch(part.strip())
        if match is None:
            return None
        runs.append((int(match[1]), int(match[2] or 1)))
    if len({amount for amount, _ in runs}) == 1:
        return runs[0][0]
    if index is None:
        return None
    for amount, times in runs:
        if index < times:
            return amount
        index -= times
    return None


def _cpus(environ: Mapping[str, str]) -> int | None:
    """CPUs of the job on this node.

    SLURM_CPUS_ON_NODE is the share of the *step*, which may have fewer than the job, so it comes
    second; SLURM_CPUS_PER_TASK is what somebody asked for and says nothing about a node.
    """
    of_job = count_at(environ.get("SLURM_JOB_CPUS_PER_NODE", ""), _index(environ))
    of_step = _whole(environ.get("SLURM_CPUS_ON_NODE"))
    return next((cpus for cpus in (of_job, of_step) if cpus is not None and 0 < cpus <= _MAX_CPUS), None)


def _index(environ: Mapping[str, str]) -> int | None:
    """This node's place in the job's node list; SLURM_NODEID counts within the step's nodes."""
    names = expand_hosts(environ.get("SLURM_JOB_NODELIST", ""))
    name = environ.get("SLURMD_NODENAME")
    if names and name in names:
        return names.index(name)
    steps = environ.get("SLURM_STEP_NODELIST")
    if steps is None or steps == environ.get("SLURM_JOB_NODELIST"):
        return _whole(environ.get("SLURM_NODEID"))
    return None


def memory_at(environ: Mapping[str, str], cpus: int | None, gpus: int | None) -> int | None:
    """Memory on this node; Slurm's figures are MiB, and 0 means all that the node has."""
    for name, times in (("SLURM_MEM_PER_NODE", 1), ("SLURM_MEM_PER_CPU", cpus), ("SLURM_MEM_PER_GPU", gpus)):
        match = _SIZE.fullmatch(environ.get(name, "").strip().upper())
        if match and times:
            return int(match[1]) * _UNITS[match[2]] * times or None
    return None


def _gpu_ids(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """Ids among all GPUs of the node: of a step its own, else those of the batch script.

    SLURM_JOB_GPUS is set for the batch script, on the job's first node, and steps on other nodes
    inherit it, where it is about another node.
    """
    step = environ.get("SLURM_STEP_ID")
    text = environ.get("SLURM_STEP_GPUS") or ("" if step else environ.get("SLURM_JOB_GPUS", ""))
    ids: list[str] = []
    for part in text.split(",") if text else ():
        match = _RANGE.fullmatch(part.strip())
        numbers = _expand_ranges(part) if match else None
        ids += numbers or [part.strip()]
    return tuple(dict.fromkeys(filter(None, ids))) or None


def _whole(text: str | None) -> int | None:
    stripped = (text or "").strip()
    return int(stripped) if re.fullmatch(r"[0-9]{1,15}", stripped) else None
