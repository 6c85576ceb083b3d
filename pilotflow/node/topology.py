"""Which CPUs are hyperthreads of one core, and which are near each other.

Sources: the kernel's Documentation/ABI/stable/sysfs-devices-node (cpulist) and
Documentation/admin-guide/cputopology.rst (thread_siblings_list, its newer name core_cpus_list).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pilotflow.node.files import Files, cpu_list

_NODE = re.compile(r"node([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA domain of the machine.

    Attributes:
        id: the kernel's number of it.
        cpus: ids of those of its CPUs that may be used here, ascending.
    """

    id: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Topology:
    """How the usable CPUs are related.

    Attributes:
        numa: NUMA domains that have any of them; one with all CPUs where the kernel says nothing.
        physical: physical cores, each as its usable CPUs in ascending order, by their first CPU.
    """

    numa: tuple[NumaNode, ...]
    physical: tuple[tuple[int, ...], ...]

    def numa_of(self, cpu: int) -> int:
        """The NUMA domain of a CPU."""
        return next((node.id for node in self.numa if cpu in node.cpus), self.numa[0].id)


def read_topology(files: Files, cpus: Iterable[int]) -> Topology:
    """The relations of these CPUs; where nothing can be read each is a core of its own in one domain."""
    usable = frozenset(cpus)
    return Topology(_numa_nodes(files, usable), _physical_cores(files, usable))


def _numa_nodes(files: Files, usable: frozenset[int]) -> tuple[NumaNode, ...]:
    nodes: list[NumaNode] = []
    rest = set(usable)
    for name in files.names("/sys/devices/system/node"):
        match = _NODE.fullmatch(name)
        mine = rest & (cpu_list(files.text(f"/sys/devices/system/node/{name}/cpulist")) or frozenset()) if match else ()
        if match and mine:
            nodes.append(NumaNode(int(match[1]), tuple(sorted(mine))))
            rest -= set(mine)
    if not nodes:
        return (NumaNode(0, tuple(sorted(usable))),)
    nodes.sort(key=lambda node: node.id)
    if rest:  # rubbish, or a CPU that has just come
        nodes[0] = NumaNode(nodes[0].id, tuple(sorted({*nodes[0].cpus, *rest})))
    return tuple(nodes)


def _physical_cores(files: Files, usable: frozenset[int]) -> tuple[tuple[int, ...], ...]:
    cores: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for cpu in sorted(usable):
        if cpu in seen:
            continue
        directory = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = cpu_list(files.text(f"{directory}/core_cpus_list")) or cpu_list(
            files.text(f"{directory}/thread_siblings_list")
        )
        core = tuple(sorted(((siblings or frozenset()) & usable - seen) | {cpu}))
        seen.update(core)
        cores.append(core)
    return tuple(cores)
