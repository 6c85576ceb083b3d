"""The nodes of a Slurm job, each with what the job has of it: for the manager at the head of an allocation.

Source: `scontrol show job --details` (scontrol(1), Slurm 22.05): one line for each group of nodes where the
job has the same, as in `Nodes=node[1-2] CPU_IDs=0-3 Mem=2000 GRES=gpu:2(IDX:0-1)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pilotflow.node.slurm import count_at, expand_hosts, memory_at

_LINE: Final = re.compile(
    r"^\s*Nodes=(?P<nodes>\S+) CPU_IDs=(?P<cpus>[0-9,-]+) Mem=(?P<mem>[0-9]+) GRES=(?P<gres>\S*)", re.MULTILINE
)
_GPUS: Final = re.compile(r"(?:^|,)gpu(?::[^:,()]+)?:(?P<count>[0-9]+)(?:\([^)]*\))?")
_RANGE: Final = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class SlurmNode:
    """One node of a job.

    Attributes:
        name: its name in Slurm.
        cpus: CPUs that the job has there.
        memory_bytes: memory that it has there; 0 if Slurm does not say.
        gpus: how many GPUs it has there.
    """

    name: str
    cpus: int
    memory_bytes: int = 0
    gpus: int = 0


def read_job_nodes(details: str) -> tuple[SlurmNode, ...]:
    """The nodes in the answer of `scontrol show job --details`, in Slurm's order; none if there are none in it."""
    nodes: list[SlurmNode] = []
    for line in _LINE.finditer(details):
        cpus = sum(int(last or first) - int(first) + 1 for first, last in _RANGE.findall(line["cpus"]))
        gpus = sum(int(found["count"]) for found in _GPUS.finditer(line["gres"]))
        memory = int(line["mem"]) * _MIB
        nodes += [SlurmNode(name, cpus, memory, gpus) for name in expand_hosts(line["nodes"]) or ()]
    return tuple(nodes)


def nodes_of_environment(environ: Mapping[str, str]) -> tuple[SlurmNode, ...]:
    """The nodes as the variables of a job's batch script tell them, for when slurmctld does not answer.

    GPUs are told of the first node alone; it is assumed that the others have as many.
    """
    names = expand_hosts(environ.get("SLURM_JOB_NODELIST", "")) or []
    gpus = environ.get("SLURM_GPUS_ON_NODE", "")
    count = int(gpus) if gpus.isdecimal() else 0
    found: list[SlurmNode] = []
    for index, name in enumerate(names):
        cpus = count_at(environ.get("SLURM_JOB_CPUS_PER_NODE", ""), index)
        if cpus is None:
            return ()
        found.append(SlurmNode(name, cpus, memory_at(environ, cpus, count) or 0, count))
    return tuple(found)
