"""What a node is and offers, as measured when its manager starts."""

from __future__ import annotations

from dataclasses import dataclass

from pilotflow.core.placement import CoreBook, Layout, Place
from pilotflow.errors import ConfigError
from pilotflow.node.gpus import Gpu, Vendor
from pilotflow.node.slurm import Allocation
from pilotflow.node.topology import NumaNode
from pilotflow.units import format_memory


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the user says a node offers, instead of what is measured; None for what the user left open.

    Attributes:
        num_cpus: cores.
        memory_bytes: memory.
        num_gpus: GPUs.
        pin: whether tasks may be pinned to cores at all. False where several managers share a
            machine, each of which would pin its tasks to the same cores.

    Raises:
        ConfigError: a number is too small or larger than on any node there is.
    """

    num_cpus: int | None = None
    memory_bytes: int | None = None
    num_gpus: int | None = None
    pin: bool = True

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("num_cpus", self.num_cpus, 1, 1 << 16),
            ("memory_bytes", self.memory_bytes, 1, 1 << 60),
            ("num_gpus", self.num_gpus, 0, 1 << 10),
        ):
            if value is not None and not least <= value <= most:
                raise ConfigError(f"{name} of a node is {value}. Give a number from {least} to {most}.")


@dataclass(frozen=True, slots=True)
class Core:
    """A logical core: what one task of `num_cpus: 1` gets.

    Attributes:
        cpus: ids of the real CPUs it stands for; none where pinning is off. It is several where a
            core is counted as one although it has hyperthreads.
        place: where it is.
    """

    cpus: tuple[int, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node as measured.

    Attributes:
        cpus_milli: CPU time that tasks may use, in thousandths of a core.
        cores: logical cores; a task's seat has indices into them.
        pinned: whether each logical core stands for real CPUs of its own.
        usable_cpus: ids of the CPUs that this process may use, ascending.
        quota_milli: CPU time that control groups allow, in thousandths of a CPU; None if unlimited.
        memory_bytes: memory that tasks may use together; None if it cannot be found out.
        gpus: GPUs that tasks may have; a task's seat has positions in them. All are of one vendor.
        numa: NUMA domains with their usable CPUs.
        physical_cores: the usable CPUs of each physical core.
        allocation: what Slurm gave, if this process is in an allocation.
        time_left_s: seconds until the allocation ends, if that is known.
        preset: names of those variables about threads and GPUs that this process's environment has.
        notes: sentences for the log, about what is unusual here.
    """

    cpus_milli: int
    cores: tuple[Core, ...]
    pinned: bool
    usable_cpus: tuple[int, ...]
    quota_milli: int | None
    memory_bytes: int | None
    gpus: tuple[Gpu, ...]
    numa: tuple[NumaNode, ...]
    physical_cores: tuple[tuple[int, ...], ...]
    allocation: Allocation | None
    time_left_s: float | None
    preset: frozenset[str]
    notes: tuple[str, ...]

    @property
    def gpu_ids(self) -> tuple[str, ...]:
        """What a capacity lists as `gpus`."""
        return tuple(gpu.id for gpu in self.gpus)

    @property
    def vendor(self) -> Vendor | None:
        """Who made the GPUs; None if there are none."""
        return self.gpus[0].vendor if self.gpus else None

    def layout(self) -> Layout:
        """The cores and GPUs as the book of seats needs them."""
        return Layout(
            tuple(core.place for core in self.cores),
            tuple(gpu.numa for gpu in self.gpus) if self.pinned else (None,) * len(self.gpus),
            self.cpus_milli,
        )

    def book(self) -> CoreBook:
        """A book of seats with everything free."""
        return CoreBook(self.layout())

    def summary(self) -> str:
        """One line for the log: "4 cores, pinned, 2 NUMA domains; 15.6 GiB; 2 NVIDIA GPUs (0, 1)"."""
        cores = f"{self.cpus_milli / 1000:g} core{'s' * (self.cpus_milli != 1000)}"
        cores += ", pinned" if self.pinned else ", not pinned"
        if len(self.numa) > 1:
            cores += f", {len(self.numa)} NUMA domains"
        memory = "unknown memory" if self.memory_bytes is None else format_memory(self.memory_bytes)
        gpus = "no GPU"
        if self.vendor is not None:
            kind = "" if self.vendor is Vendor.UNKNOWN else f"{self.vendor.value} "
            gpus = f"{len(self.gpus)} {kind}GPU{'s' * (len(self.gpus) > 1)} ({', '.join(self.gpu_ids)})"
        return f"{cores}; {memory}; {gpus}"
