"""What is free on a manager's node: seats with concrete cores and GPUs, and exact amounts of the rest."""

from __future__ import annotations

from typing import Final

import msgspec

from pilotflow.core.placement import WHOLE, CoreBook, Layout, Seat
from pilotflow.resources import DEFAULT_REQUEST, Capacity, Request

NO_SEAT: Final = Seat(0, 0, (), None, (), None)
"""What tasks of a depth-limited manager have: nothing of their own."""


class Room:
    """Cores, memory, GPUs and consumables of one node that no running task holds, asked for by request class.

    Args:
        capacity: what the node offers.
        layout: where its cores and GPUs are; one NUMA domain if not given.
        whole: parts of cores and GPUs are given as whole ones.
    """

    def __init__(self, capacity: Capacity, layout: Layout | None = None, *, whole: bool = False) -> None:
        self._gives_whole = whole
        self._requests: dict[int, Request] = {}
        self.any_runtime = False  # whether any class limits the time of its tasks
        self._book: CoreBook | None = None
        if not capacity.depth_limited:
            cores = -(-capacity.cpus_milli // 1000)
            flat = Layout(Layout.flat(cores).cores, (None,) * len(capacity.gpus), capacity.cpus_milli)
            self._book = CoreBook(layout or flat)
        self._whole = (capacity.cpus_milli, 1000 * len(capacity.gpus))
        self._limits_memory = capacity.memory_bytes > 0
        self.memory_bytes = capacity.memory_bytes
        self.resources = dict(capacity.resources)

    def define(self, cls: int, request: Request) -> None:
        """What tasks of a class need. It never changes, or what was taken could not be given back."""
        if self._gives_whole and (request.cpus_milli % WHOLE or request.gpus_milli % WHOLE):
            cpus, gpus = (-(-milli // WHOLE) * WHOLE for milli in (request.cpus_milli, request.gpus_milli))
            request = msgspec.structs.replace(request, cpus_milli=cpus, gpus_milli=gpus)
        self._requests.setdefault(cls, request)
        self.any_runtime = self.any_runtime or request.limit_s is not None

    def request(self, cls: int) -> Request:
        """What tasks of a class need."""
        return self._requests.get(cls, DEFAULT_REQUEST)

    def fits(self, cls: int) -> bool:
        """Whether a task of the class may start; a depth-limited manager ignores requests."""
        request = self.request(cls)
        if self._book is not None and request.num_nodes > 1:
            return self._book.fits(*self._whole)
        return self._book is None or (
            self._book.fits(request.cpus_milli, request.gpus_milli)
            and (not self._limits_memory or request.memory_bytes <= self.memory_bytes)
            and all(amount <= self.resources.get(name, 0) for name, amount in request.resources)
        )

    def take(self, cls: int) -> Seat | None:
        """A task starts: its seat, or None if there is no room for it."""
        if self._book is None:
            return NO_SEAT
        request = self.request(cls)
        if request.num_nodes > 1:  # the whole node is its own
            return self._book.take(self._whole[0], self._whole[1])
        if self._limits_memory and request.memory_bytes > self.memory_bytes:
            return None
        if request.resources and any(amount > self.resources.get(name, 0) for name, amount in request.resources):
            return None
        seat = self._book.take(request.cpus_milli, request.gpus_milli)
        if seat is not None:
            self.memory_bytes -= request.memory_bytes
            for name, amount in request.resources:
                self.resources[name] -= amount
        return seat

    def free(self, cls: int, seat: Seat) -> None:
        """A task has ended."""
        if self._book is None:
            return
        request = self.request(cls)
        self._book.give_back(seat)
        if request.num_nodes > 1:
            return
        self.memory_bytes += request.memory_bytes
        for name, amount in request.resources:
            self.resources[name] += amount
