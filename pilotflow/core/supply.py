"""What is asked and what is offered: request classes with their queues, managers with what is free."""

from __future__ import annotations

from collections import deque
from typing import Final

from pilotflow.messages import Task
from pilotflow.resources import Capacity, Request, SortMethod

MIN_TIME_FOR_NEW_TASKS_S = 300.0
"""A task that does not say its runtime needs this much of a block's walltime left..."""
MIN_SHARE_FOR_NEW_TASKS = 0.1
"""...or this share of it, where blocks are short."""
UNKNOWN: Final = 1 << 62
"""Stands for an amount that nobody knows, which limits nothing."""
FULL: Final = (-1, -1, -1)
"""What a manager offers that takes no task at all."""


def order_of(request: Request, method: SortMethod) -> tuple[float, ...]:
    """Which classes come first: smaller tuples do. Ties are for whoever was submitted first."""
    runtime = request.runtime_s or 0.0
    match method:
        case SortMethod.GPUS_RUNTIME_MEMORY:
            return (-request.priority, -request.gpus_milli, -runtime, -request.memory_bytes)
        case SortMethod.GPUS_MEMORY_RUNTIME:
            return (-request.priority, -request.gpus_milli, -request.memory_bytes, -runtime)
        case SortMethod.NONE:
            return (-request.priority,)


class RequestClass:
    """All tasks with the same request, binding and crash limit; they are interchangeable.

    A task that is cancelled while it waits stays in the queue, marked by a negative attempt, and
    is passed over: `queued` does not count it. So that a queue which nobody reads does not keep
    a million of them, it is cleaned whenever more than half of it is such.
    """

    __slots__ = (
        "blocked_since",
        "cancelled",
        "crash_limit",
        "executors",
        "id",
        "order",
        "queue",
        "request",
        "reserved",
        "sent_ahead",
    )

    def __init__(
        self,
        id: int,
        request: Request,
        executors: tuple[str, ...],
        crash_limit: int,
        method: SortMethod = SortMethod.GPUS_RUNTIME_MEMORY,
    ) -> None:
        self.id = id
        self.request = request
        self.executors = frozenset(executors)
        self.crash_limit = crash_limit
        self.order = order_of(request, method)
        self.queue: deque[Task] = deque()
        self.cancelled = 0  # tasks in the queue that do not wait any more
        self.sent_ahead: set[int] = set()  # ids of managers that were sent tasks ahead
        self.blocked_since: float | None = None  # since when its first task has found no room
        self.reserved: tuple[Manager, ...] = ()  # managers that are kept free for its first task

    @property
    def queued(self) -> int:
        """Tasks that wait."""
        return len(self.queue) - self.cancelled

    def admits(self, executor: str) -> bool:
        """Whether its tasks may run on that executor."""
        return not self.executors or executor in self.executors

    def first(self) -> Task | None:
        """The task that is next, left where it is."""
        queue = self.queue
        while queue:
            if queue[0].attempt >= 0:
                return queue[0]
            queue.popleft()
            self.cancelled -= 1
        return None

    def cancel(self, task: Task) -> None:
        """A waiting task does not wait any more."""
        task.attempt = -1
        self.cancelled += 1
        if self.cancelled > 64 and self.cancelled * 2 > len(self.queue):
            self.queue = deque(task for task in self.queue if task.attempt >= 0)
            self.cancelled = 0

    def take_all(self) -> list[Task]:
        """Everything that waits, taken out."""
        waiting = [task for task in self.queue if task.attempt >= 0]
        self.queue.clear()
        self.cancelled = 0
        return waiting


class Manager:
    """One manager as the scheduler sees it: a node, what it has, and what of that is free.

    Attributes:
        leases: ids of the tasks it holds.
        active: of each class, how many of its tasks hold resources here.
        prefilled: of each class, how many were sent ahead and hold none.
        closed: it takes no more work: it drains, leaves, or is lost.
        end_at: when its block ends, if that is known.
        place: where it stands in its `RoomIndex`.
        reserved: the class whose first task is to be the next that this node takes.
        gang: id of the multi-node task that has the whole node, or 0.
    """

    __slots__ = (
        "active",
        "block",
        "capacity",
        "closed",
        "end_at",
        "executor",
        "free_cpus",
        "free_gpus",
        "free_memory",
        "free_resources",
        "free_slots",
        "gang",
        "gpu_shares",
        "id",
        "leases",
        "min_time_s",
        "node",
        "place",
        "prefilled",
        "reserved",
    )

    def __init__(self, id: int, executor: str, block: str, node: str, capacity: Capacity) -> None:
        self.id = id
        self.executor = executor
        self.block = block
        self.node = node
        self.capacity = capacity
        self.free_cpus = capacity.cpus_milli
        self.free_memory = capacity.memory_bytes or UNKNOWN
        self.free_gpus = [1000] * len(capacity.gpus)  # of each device
        self.free_resources = dict(capacity.resources)
        self.free_slots = capacity.slots
        self.gpu_shares: dict[int, list[tuple[int, ...]]] = {}  # class -> devices of each task that has some
        self.leases: set[int] = set()
        self.active: dict[int, int] = {}
        self.prefilled: dict[int, int] = {}
        self.closed = False
        self.end_at: float | None = None
        self.min_time_s = 0.0
        self.place = -1
        self.reserved: RequestClass | None = None
        self.gang = 0

    def could_ever_run(self, cls: RequestClass) -> bool:
        """Whether this node, empty, would take a task of the class, or its part of one on several nodes."""
        if not cls.admits(self.executor):
            return False
        capacity, request = self.capacity, cls.request
        if capacity.depth_limited:
            return request.num_nodes == 1
        has = dict(capacity.resources)
        return (
            request.cpus_milli <= capacity.cpus_milli
            and request.memory_bytes <= (capacity.memory_bytes or UNKNOWN)
            and request.gpus_milli <= 1000 * len(capacity.gpus)
            and all(amount <= has.get(name, 0) for name, amount in request.resources)
        )

    def offer(self) -> tuple[int, int, int]:
        """Upper bounds of free cores, memory and GPUs, all `FULL` if nothing can start here."""
        if self.free_slots <= 0 or self.closed or self.gang:
            return FULL
        if self.capacity.depth_limited:
            return (UNKNOWN, UNKNOWN, UNKNOWN)
        return (self.free_cpus, self.free_memory, sum(self.free_gpus))

    def fits(self, cls: RequestClass, now: float) -> bool:
        """Whether one more task of the class, which is for one node, can start now."""
        if self.free_slots <= 0 or self.closed or self.gang:
            return False
        if self.reserved is not None and self.reserved is not cls and self._delays(self.reserved, cls):
            return False
        request = cls.request
        if not self.capacity.depth_limited:
            if request.cpus_milli > self.free_cpus or request.memory_bytes > self.free_memory:
                return False
            if request.gpus_milli and not self._devices(request.gpus_milli):
                return False
            if request.resources and any(
                amount > self.free_resources.get(name, 0) for name, amount in request.resources
            ):
                return False
        return self.end_at is None or self.lasts(cls, now)

    def _delays(self, first: RequestClass, cls: RequestClass) -> bool:
        """Whether a task of the class would take what the node is kept free for."""
        if cls.order < first.order:
            return False
        wanted, request = first.request, cls.request
        if wanted.num_nodes > 1:
            return True
        return (
            self.free_slots <= 1
            or self.free_cpus - request.cpus_milli < wanted.cpus_milli
            or (request.memory_bytes > 0 and self.free_memory - request.memory_bytes < wanted.memory_bytes)
            or (request.gpus_milli > 0 and wanted.gpus_milli > 0)
            or bool({name for name, _ in request.resources} & {name for name, _ in wanted.resources})
        )

    def lasts(self, cls: RequestClass, now: float) -> bool:
        """Whether its block lives long enough for a task of the class that starts now."""
        if self.end_at is None:
            return True
        needed = self.min_time_s if cls.request.runtime_s is None else cls.request.runtime_s
        return now + needed <= self.end_at

    def take(self, cls: RequestClass) -> None:
        """Reserve what one task of the class needs."""
        request = cls.request
        self.free_slots -= 1
        self.free_cpus -= request.cpus_milli
        if request.memory_bytes:
            self.free_memory -= request.memory_bytes
        if request.gpus_milli:
            devices = self._devices(request.gpus_milli)
            for device in devices:
                self.free_gpus[device] -= min(1000, request.gpus_milli)
            self.gpu_shares.setdefault(cls.id, []).append(devices)
        if request.resources:
            for name, amount in request.resources:
                self.free_resources[name] = self.free_resources.get(name, 0) - amount
        self.active[cls.id] = self.active.get(cls.id, 0) + 1

    def give_back(self, cls: RequestClass) -> None:
        """Free what one task of the class held."""
        request = cls.request
        self.free_slots += 1
        self.free_cpus += request.cpus_milli
        if request.memory_bytes:
            self.free_memory += request.memory_bytes
        if request.gpus_milli:
            shares = self.gpu_shares[cls.id]
            for device in shares.pop():
                self.free_gpus[device] += min(1000, request.gpus_milli)
            if not shares:
                del self.gpu_shares[cls.id]
        if request.resources:
            for name, amount in request.resources:
                self.free_resources[name] += amount
        count = self.active[cls.id]
        if count > 1:
            self.active[cls.id] = count - 1
        else:
            del self.active[cls.id]

    def _devices(self, milli: int) -> tuple[int, ...]:
        """The GPUs that a request would get: one that is shared already if it is for a part; () if there is no room."""
        free = self.free_gpus
        if milli < 1000:
            best = -1
            for device, amount in enumerate(free):
                if amount >= milli and (best < 0 or amount < free[best]):
                    best = device
            return () if best < 0 else (best,)
        whole = [device for device, amount in enumerate(free) if amount == 1000]
        count = milli // 1000
        return tuple(whole[:count]) if len(whole) >= count else ()

    def set_time_left(self, time_left_s: float | None, now: float) -> bool:
        """Learn how much of the block's walltime is left, in seconds; True if it is more than was known."""
        before = self.end_at
        if time_left_s is None:
            self.end_at = None
            return before is not None
        if before is None:
            self.min_time_s = min(MIN_TIME_FOR_NEW_TASKS_S, MIN_SHARE_FOR_NEW_TASKS * time_left_s)
        self.end_at = now + time_left_s
        return before is not None and self.end_at > before + 1.0
