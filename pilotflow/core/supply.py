"""What is asked and what is offered: request classes with their queues, managers with what is free."""

from __future__ import annotations

from collections import deque

from pilotflow.messages import Task
from pilotflow.resources import Capacity, Request

MIN_TIME_FOR_NEW_TASKS_S = 300.0
"""A task that does not say its runtime needs this much of a block's walltime left..."""
MIN_SHARE_FOR_NEW_TASKS = 0.1
"""...or this share of it, where blocks are short."""


class RequestClass:
    """All tasks with the same request, binding and crash limit; they are interchangeable.

    A task that is cancelled while it waits stays in the queue, marked by a negative attempt, and
    is passed over: `queued` does not count it. So that a queue which nobody reads does not keep
    a million of them, it is cleaned whenever more than half of it is such.
    """

    __slots__ = ("ahead", "cancelled", "crash_limit", "executors", "heap", "id", "members", "order", "queue", "request")

    def __init__(self, id: int, request: Request, executors: tuple[str, ...], crash_limit: int) -> None:
        self.id = id
        self.request = request
        self.executors = frozenset(executors)
        self.crash_limit = crash_limit
        self.queue: deque[Task] = deque()
        self.heap: list[int] = []  # ids of managers that may fit one more, and `members` the same
        self.members: set[int] = set()
        self.ahead: set[int] = set()  # ids of managers that were sent tasks ahead
        self.cancelled = 0  # tasks in the queue that do not wait any more
        runtime = request.runtime_s or 0.0
        self.order = (-request.priority, -request.gpus_milli, -runtime, -request.memory_bytes)

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
    """One manager as the scheduler sees it."""

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
        "free_slots",
        "id",
        "leases",
        "left",
        "min_time_s",
        "node",
        "prefilled",
    )

    def __init__(self, id: int, executor: str, block: str, node: str, capacity: Capacity) -> None:
        self.id = id
        self.executor = executor
        self.block = block
        self.node = node
        self.capacity = capacity
        self.free_cpus = capacity.cpus_milli
        self.free_memory = capacity.memory_bytes
        self.free_gpus = 1000 * len(capacity.gpus)
        self.free_slots = capacity.slots
        self.leases: dict[int, Task] = {}
        self.active: dict[int, int] = {}  # class -> tasks that hold resources
        self.prefilled: dict[int, int] = {}  # class -> tasks sent ahead
        self.left: list[RequestClass] = []  # classes that could run here, but found no room the last time
        self.closed = False  # takes no more work: draining, leaving or lost
        self.end_at: float | None = None  # when its block ends
        self.min_time_s = 0.0

    def could_ever_run(self, cls: RequestClass) -> bool:
        """Whether an empty manager of this kind would take a task of the class."""
        if not cls.admits(self.executor) or cls.request.num_nodes > 1:
            return False
        capacity, request = self.capacity, cls.request
        return capacity.depth_limited or (
            request.cpus_milli <= capacity.cpus_milli
            and request.memory_bytes <= (capacity.memory_bytes or request.memory_bytes)
            and request.gpus_milli <= 1000 * len(capacity.gpus)
        )

    def fits(self, cls: RequestClass, now: float) -> bool:
        """Whether one more task of the class can start now."""
        if self.free_slots <= 0 or self.closed:
            return False
        request = cls.request
        if not self.capacity.depth_limited and (
            request.cpus_milli > self.free_cpus
            or request.gpus_milli > self.free_gpus
            or (request.memory_bytes > self.free_memory and self.capacity.memory_bytes > 0)
        ):
            return False
        return self.end_at is None or self.lasts(cls, now)

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
            self.free_gpus -= request.gpus_milli
        self.active[cls.id] = self.active.get(cls.id, 0) + 1

    def give_back(self, cls: RequestClass) -> None:
        """Free what one task of the class held."""
        request = cls.request
        self.free_slots += 1
        self.free_cpus += request.cpus_milli
        if request.memory_bytes:
            self.free_memory += request.memory_bytes
        if request.gpus_milli:
            self.free_gpus += request.gpus_milli
        count = self.active[cls.id]
        if count > 1:
            self.active[cls.id] = count - 1
        else:
            del self.active[cls.id]

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
