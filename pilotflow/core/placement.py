"""Which concrete cores and GPUs of one node a task gets: `CoreBook` hands out `Seat`s.

Cores are *logical indices*, 0 to n-1, and GPUs positions in the node's list of devices; what they
are in reality (CPU ids, device names) is the shell's business (`pilotflow.node`). All amounts are
whole thousandths, so what is given back restores exactly what was there.

The rules:

- A whole core belongs to one task. Parts of cores are taken from *shared* cores, which hold such
  parts only; a part is never split over two cores, and goes to the fullest shared core with room.
- A task's whole cores come from as few NUMA domains as possible: from the fullest domain that has
  enough of them (best fit, which keeps whole domains free for large tasks), else from those with
  most of them.
- Within a domain whole physical cores (all their hyperthreads) go to one task. What is left over,
  and any task of one core, gets an idle physical core while the domain has one: two tasks on the
  hyperthreads of one physical core run at little more than half speed each.
- Whole GPUs are near the task's cores if possible. A task that wants GPUs takes its cores where
  such GPUs are free. A part of a GPU is never split over two, and goes to the fullest shared one.

Packing whole cores beside running tasks can leave free parts that fit nobody (three tasks of 0.6
cores do not fit on two cores): then `take` says None although the sum would do, and the task waits
for another one to end. A task that fits into the whole node always fits once it is empty.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import msgspec

from pilotflow.errors import InternalError

WHOLE = 1000
"""Thousandths of one core or one GPU."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a logical core is.

    Attributes:
        numa: its NUMA domain's id.
        physical: an id of its physical core; hyperthreads of one core share it.
    """

    numa: int
    physical: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Cores and GPUs of one node.

    Attributes:
        cores: the place of each logical core.
        gpus: for each GPU its NUMA domain, or None if that is not known.
        cpus_milli: at most so many thousandths of cores at once; None for all of them. It is less
            where a quota limits the node's CPU time.
    """

    cores: tuple[Place, ...]
    gpus: tuple[int | None, ...] = ()
    cpus_milli: int | None = None

    @classmethod
    def flat(cls, cores: int, gpus: int = 0) -> Layout:
        """A node of one NUMA domain without hyperthreads."""
        return cls(tuple(Place(0, core) for core in range(cores)), (None,) * gpus)


class Seat(msgspec.Struct, frozen=True, gc=False):
    """What one task holds until it is given back.

    Attributes:
        cpus_milli, gpus_milli: how much that is, in thousandths.
        whole_cores: logical indices of the cores that are the task's alone, ascending.
        shared_core: the core that it shares, if it has a part of one.
        whole_gpus: positions of the GPUs that are the task's alone, ascending.
        shared_gpu: the GPU that it shares, if it has a part of one.
    """

    cpus_milli: int
    gpus_milli: int
    whole_cores: tuple[int, ...]
    shared_core: int | None
    whole_gpus: tuple[int, ...]
    shared_gpu: int | None

    @property
    def cores(self) -> tuple[int, ...]:
        """Every core that the task may run on."""
        return self.whole_cores if self.shared_core is None else (*self.whole_cores, self.shared_core)

    @property
    def gpus(self) -> tuple[int, ...]:
        """Every GPU that the task may use."""
        return self.whole_gpus if self.shared_gpu is None else (*self.whole_gpus, self.shared_gpu)


class CoreBook:
    """Keeps which cores and GPUs of a node are free."""

    def __init__(self, layout: Layout) -> None:
        by_numa: dict[int, dict[int, list[int]]] = {}
        for core, place in enumerate(layout.cores):
            by_numa.setdefault(place.numa, {}).setdefault(place.physical, []).append(core)
        self._domains = [_Domain(numa, list(by_numa[numa].values())) for numa in sorted(by_numa)]
        domains = {domain.numa: domain for domain in self._domains}
        self._domain_of = [domains[place.numa] for place in layout.cores]
        self._single = [Seat(WHOLE, 0, (core,), None, (), None) for core in range(len(layout.cores))]
        self._shared: dict[int, int] = {}  # core -> thousandths in use
        limit = WHOLE * len(layout.cores)
        self._cpus_free = limit if layout.cpus_milli is None else min(limit, layout.cpus_milli)
        self._cores_free = len(layout.cores)
        self._gpus = _Gpus(layout.gpus)

    @property
    def cpus_free_milli(self) -> int:
        """Thousandths of cores that nobody holds; a task of that size need not fit (see above)."""
        return self._cpus_free

    @property
    def gpus_free_milli(self) -> int:
        """Thousandths of GPUs that nobody holds."""
        return self._gpus.free_milli()

    def fits(self, cpus_milli: int, gpus_milli: int = 0) -> bool:
        """Whether `take` would find a seat now."""
        whole, part = divmod(cpus_milli, WHOLE)
        return (
            cpus_milli <= self._cpus_free
            and whole + (part > 0 and self._shared_core_for(part) is None) <= self._cores_free
            and (gpus_milli == 0 or self._gpus.fits(gpus_milli))
        )

    def take(self, cpus_milli: int, gpus_milli: int = 0) -> Seat | None:
        """A seat with this much, or None if there is none now. It is held until `give_back`.

        Args:
            cpus_milli: thousandths of cores; 0 for a task that needs none, whose seat has none.
            gpus_milli: thousandths of GPUs.

        Raises:
            ValueError: an amount is negative.
        """
        if cpus_milli == WHOLE and gpus_milli == 0:  # by far most tasks
            return self._take_one()
        if cpus_milli < 0 or gpus_milli < 0:
            raise ValueError(f"A task cannot take {cpus_milli} thousandths of cores and {gpus_milli} of GPUs.")
        if not self.fits(cpus_milli, gpus_milli):
            return None
        whole, part = divmod(cpus_milli, WHOLE)
        shared = self._shared_core_for(part) if part else None
        taken = self._take_cores(whole + (part > 0 and shared is None), gpus_milli)
        if part:
            if shared is None:
                shared = taken.pop()
            self._shared[shared] = self._shared.get(shared, 0) + part
        self._cpus_free -= cpus_milli
        near = {self._domain_of[core].numa for core in (taken or ([] if shared is None else [shared]))}
        whole_gpus, shared_gpu = self._gpus.take(gpus_milli, near) if gpus_milli else ((), None)
        return Seat(cpus_milli, gpus_milli, tuple(sorted(taken)), shared, whole_gpus, shared_gpu)

    def give_back(self, seat: Seat) -> None:
        """A task that held this seat has ended.

        Raises:
            InternalError: the seat is not held.
        """
        for core in seat.whole_cores:
            if core in self._shared or not self._domain_of[core].put(core):
                raise InternalError(f"core {core} was given back twice")
            self._cores_free += 1
        if seat.shared_core is not None:
            self._leave_shared(seat.shared_core, seat.cpus_milli % WHOLE)
        self._cpus_free += seat.cpus_milli
        if seat.gpus_milli:
            self._gpus.give_back(seat)

    def _take_one(self) -> Seat | None:
        if self._cpus_free < WHOLE or not self._cores_free:
            return None
        best = None
        least = self._cores_free + 1
        for domain in self._domains:
            if 0 < domain.free < least:
                best, least = domain, domain.free
        assert best is not None, "free cores are in some domain"
        self._cpus_free -= WHOLE
        self._cores_free -= 1
        return self._single[best.take_one()]

    def _take_cores(self, count: int, gpus_milli: int) -> list[int]:
        """So many free cores; there are enough. The last one is alone on its physical core, if any is."""
        taken: list[int] = []
        wanted = self._gpus.places(gpus_milli) if gpus_milli else {}
        while len(taken) < count:
            need = count - len(taken)
            enough = [domain for domain in self._domains if domain.free >= need]
            if enough:
                best = min(enough, key=lambda domain: (-wanted.get(domain.numa, 0), domain.free))
                taken += best.take(need)
            else:
                best = max(self._domains, key=lambda domain: (domain.free, wanted.get(domain.numa, 0)))
                taken += best.take(best.free)
        self._cores_free -= count
        return taken

    def _shared_core_for(self, part: int) -> int | None:
        """The fullest shared core with room for so many thousandths."""
        best, most = None, -1
        for core, used in self._shared.items():
            if most < used <= WHOLE - part:
                best, most = core, used
        return best

    def _leave_shared(self, core: int, part: int) -> None:
        left = self._shared.get(core, 0) - part
        if left < 0:
            raise InternalError(f"a part of core {core} was given back twice")
        if left:
            self._shared[core] = left
        else:
            del self._shared[core]
            self._domain_of[core].put(core)
            self._cores_free += 1


class _Domain:
    """Free cores of one NUMA domain. Masks have a bit for each physical core, or for each thread of one."""

    def __init__(self, numa: int, physicals: list[list[int]]) -> None:
        self.numa = numa
        self.free = sum(map(len, physicals))
        self._threads = physicals
        self._fewest = min(map(len, physicals))
        self._full = [(1 << len(threads)) - 1 for threads in physicals]
        self._left = list(self._full)  # physical core -> mask of its free threads
        self._idle = (1 << len(physicals)) - 1  # physical cores with all threads free
        self._partial = 0  # physical cores with some threads free
        self._where = {
            core: (at, 1 << thread) for at, threads in enumerate(physicals) for thread, core in enumerate(threads)
        }

    def take_one(self) -> int:
        """A free core, on an idle physical core if there is one."""
        candidates = self._idle or self._partial
        bit = candidates & -candidates
        at = bit.bit_length() - 1
        left = self._left[at]
        thread = left & -left
        self._left[at] = left = left ^ thread
        self._idle &= ~bit
        if left:
            self._partial |= bit
        else:
            self._partial &= ~bit
        self.free -= 1
        return self._threads[at][thread.bit_length() - 1]

    def take(self, count: int) -> list[int]:
        """So many free cores, which there are: whole physical ones first."""
        taken: list[int] = []
        idle = self._idle
        while idle and count - len(taken) >= self._fewest:
            bit = idle & -idle
            idle ^= bit
            at = bit.bit_length() - 1
            threads = self._threads[at]
            if len(threads) <= count - len(taken):
                taken += threads
                self._left[at] = 0
                self._idle ^= bit
                self.free -= len(threads)
        while len(taken) < count:
            taken.append(self.take_one())
        return taken

    def put(self, core: int) -> bool:
        """Free a core; False if it was free."""
        at, thread = self._where[core]
        left = self._left[at]
        if left & thread:
            return False
        self._left[at] = left = left | thread
        bit = 1 << at
        if left == self._full[at]:
            self._idle |= bit
            self._partial &= ~bit
        else:
            self._partial |= bit
        self.free += 1
        return True


class _Gpus:
    """Free GPUs of the node, few enough to look at each."""

    def __init__(self, numa: tuple[int | None, ...]) -> None:
        self._numa = numa
        self._used = [0] * len(numa)  # thousandths
        self._alone = [False] * len(numa)  # held whole by one task

    def free_milli(self) -> int:
        return WHOLE * len(self._used) - sum(self._used)

    def fits(self, milli: int) -> bool:
        whole, part = divmod(milli, WHOLE)
        return whole + (part > 0 and self._shared_for(part) is None) <= self._used.count(0)

    def places(self, milli: int) -> dict[int, int]:
        """For NUMA domains, how many of the wanted devices a task there could have near."""
        whole, part = divmod(milli, WHOLE)
        shared = self._shared_for(part) if part else None
        most = whole + (part > 0 and shared is None)
        near: dict[int, int] = {}
        for numa, used in zip(self._numa, self._used, strict=True):
            if used == 0 and numa is not None:
                near[numa] = min(most, near.get(numa, 0) + 1)
        if shared is not None and (numa := self._numa[shared]) is not None:
            near[numa] = near.get(numa, 0) + 1
        return near

    def take(self, milli: int, near: set[int]) -> tuple[tuple[int, ...], int | None]:
        """Whole devices and a shared one; `fits` has said yes."""
        whole, part = divmod(milli, WHOLE)
        shared = self._shared_for(part, near) if part else None
        idle = self._idle_by_distance(near)
        taken = idle[:whole]
        for device in taken:
            self._used[device] = WHOLE
            self._alone[device] = True
        if part:
            if shared is None:
                shared = idle[whole]
            self._used[shared] += part
        return tuple(sorted(taken)), shared

    def give_back(self, seat: Seat) -> None:
        for device in seat.whole_gpus:
            if not self._alone[device]:
                raise InternalError(f"GPU {device} was given back twice")
            self._used[device] = 0
            self._alone[device] = False
        if seat.shared_gpu is not None:
            left = self._used[seat.shared_gpu] - seat.gpus_milli % WHOLE
            if left < 0 or self._alone[seat.shared_gpu]:
                raise InternalError(f"a part of GPU {seat.shared_gpu} was given back twice")
            self._used[seat.shared_gpu] = left

    def _shared_for(self, part: int, near: Collection[int] = ()) -> int | None:
        """The fullest device with room beside parts of other tasks, of equal ones a near one."""
        fitting = [device for device, used in enumerate(self._used) if 0 < used <= WHOLE - part]
        return max(fitting, key=lambda device: (self._used[device], self._numa[device] in near), default=None)

    def _idle_by_distance(self, near: set[int]) -> list[int]:
        """Idle devices: near ones first, then those of the domain with most of them."""
        idle = [device for device, used in enumerate(self._used) if used == 0]
        count = {numa: sum(self._numa[device] == numa for device in idle) for numa in set(self._numa)}
        return sorted(idle, key=lambda device: (self._numa[device] not in near, -count[self._numa[device]], device))
