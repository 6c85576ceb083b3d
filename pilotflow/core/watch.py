"""Limits that users wrote for their tasks, held against what tasks take.

Only what was written is enforced: a task without `runtime` may run as long as its block lives, one
without `memory` may use what it gets. What a task exceeds ends its whole process tree, and only that.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotflow.core.orders import Worker
from pilotflow.messages.records import Excess
from pilotflow.resources import Request

LOOK_PERIOD_S = 0.25
"""Running tasks with a `runtime` are looked at this often; so late it may be noticed."""


@dataclass(frozen=True)
class Watch:
    """How far a task may go beyond its request.

    Attributes:
        memory_margin: memory above the request that is let pass, as a part of it.
        grace_s: seconds from the warning signal to the kill after a task has exceeded its `runtime`.
        where: the node and block, in words.
    """

    memory_margin: float = 0.05
    grace_s: float = 5.0
    where: str = ""

    def runtime_exceeded(self, worker: Worker, limit_s: float, request: Request, now: float) -> Excess | None:
        """What the worker's task takes too much time of, if it runs longer than `limit_s`."""
        taken = now - worker.head_since
        if taken < limit_s:
            return None
        return Excess("timeout" if limit_s == request.timeout_s else "runtime", limit_s, taken, self._place(worker))

    def memory_exceeded(self, worker: Worker, request: Request, taken: int) -> Excess | None:
        """What the worker's task takes too much memory of, if it does; `taken` in bytes."""
        if not request.memory_bytes or taken <= request.memory_bytes * (1.0 + self.memory_margin):
            return None
        return Excess("memory", request.memory_bytes, taken, self._place(worker))

    def out_of_memory(self, worker: Worker, request: Request) -> Excess:
        """The operating system has ended the worker's task for lack of memory."""
        return Excess("memory", request.memory_bytes, worker.peak_bytes, self._place(worker), by_system=True)

    def _place(self, worker: Worker) -> str:
        return f"worker {worker.id} {self.where}".strip()
