"""What is free on a manager's node, as exact integers."""

from __future__ import annotations

from pilotflow.resources import DEFAULT_REQUEST, Capacity, Request


class Room:
    """Cores, memory and GPUs of one node that no running task holds, asked for by request class."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._requests: dict[int, Request] = {}
        self.cpus_milli = capacity.cpus_milli
        self.memory_bytes = capacity.memory_bytes
        self.gpus_milli = 1000 * len(capacity.gpus)

    def define(self, cls: int, request: Request) -> None:
        """What tasks of a class need. It never changes, or what was taken could not be given back."""
        self._requests.setdefault(cls, request)

    def fits(self, cls: int) -> bool:
        """Whether a task of the class may start; a depth-limited manager ignores requests."""
        request = self._requests.get(cls, DEFAULT_REQUEST)
        return self._capacity.depth_limited or (
            request.cpus_milli <= self.cpus_milli
            and request.gpus_milli <= self.gpus_milli
            and (self._capacity.memory_bytes == 0 or request.memory_bytes <= self.memory_bytes)
        )

    def take(self, cls: int) -> None:
        """A task has started."""
        request = self._requests.get(cls, DEFAULT_REQUEST)
        self.cpus_milli -= request.cpus_milli
        self.memory_bytes -= request.memory_bytes
        self.gpus_milli -= request.gpus_milli

    def free(self, cls: int) -> None:
        """A task has ended."""
        request = self._requests.get(cls, DEFAULT_REQUEST)
        self.cpus_milli += request.cpus_milli
        self.memory_bytes += request.memory_bytes
        self.gpus_milli += request.gpus_milli
