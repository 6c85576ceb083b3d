"""What is asked and what is offered: request classes with their queues, managers with what is free."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from pilotflow.core.needs import FULL, NOTHING, Needs, Offer, needs_of, order_of
from pilotflow.messages.records import Task
from pilotflow.resources import Capacity, Request, SortMethod

if TYPE_CHECKING:
    from pilotflow.core.gangs import Block
    from pilotflow.core.patience import Reservation
    from pilotflow.core.sections import Section

MIN_TIME_FOR_NEW_TASKS_S = 300.0
"""A task that does not say its runtime needs this much of a block's walltime left..."""
MIN_SHARE_FOR_NEW_TASKS = 0.1
"""...or this share of it, where blocks are short."""
UNKNOWN: Final = 1 << 62
"""Stands for an amount that nobody knows, which limits nothing."""


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
        "needs",
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
        self.needs = needs_of(request)
        self.queue: deque[Task] = deque()
        self.cancelled = 0  # tasks in the queue that do not wait any more
        self.sent_ahead: set[int] = set()  # ids of managers that were sent tasks ahead
        self.blocked_since = (
            0.0  # since when it waits and no task of it was placed; inf if one has begun since the last step
        )
        self.reserved: tuple[Manager, ...] = ()  # managers that are kept free for its first task

    @property
    def queued(self) -> int:
        """Tasks that wait."""
        return len(self.queue) - self.cancelled

    def admits(self, executor: str) -> bool:
        """Whether its tasks may run on that executor."""
        return not self.executors or executor in self.executors

    def is_before(self, other: RequestClass) -> bool:
        """Whether its first task comes before that of another class."""
        if self.order != other.order:
            return self.order < other.order
        mine, theirs = self.first(), other.first()
        return mine is not None and (theirs is None or mine.id < theirs.id)

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
        gpu_shares: devices of each task that has some. Which ones is known by task, since two
            halves that are given back are a whole GPU only if they were of the same one.
        closed: it takes no more work: it drains, leaves, or is lost.
        end_at: when its block ends, if that is known.
        start_by: tasks that do not say their runtime must have started by then.
        reserved: for which class the node is kept free, if for one.
        gang: id of the multi-node task that has the whole node, if one does.
        place: where it stands in the indices of its section.
        section: the managers that are alike in what they may be given. The scheduler sets it,
        home: and its block.
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
        "home",
        "id",
        "leases",
        "min_time_s",
        "node",
        "place",
        "prefilled",
        "reserved",
        "section",
        "start_by",
    )

    home: Block
    section: Section

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
        self.gpu_shares: dict[int, tuple[int, ...]] = {}
        self.leases: set[int] = set()
        self.active: dict[int, int] = {}
        self.prefilled: dict[int, int] = {}
        self.closed = False
        self.end_at: float | None = None
        self.start_by = inf
        self.min_time_s = 0.0
        self.place = -1
        self.reserved: Reservation | None = None
        self.gang: int | None = None

    def could_ever_run(self, cls: RequestClass) -> bool:
        """Whether this node, empty, would take a task of the class, or its part of one on several nodes."""
        if not cls.admits(self.executor):
            return False
        capacity, needs = self.capacity, cls.needs
        if capacity.depth_limited:
            return needs.nodes == 1
        if capacity.follows and needs.nodes == 1:
            return False
        return (
            needs.cpus <= capacity.cpus_milli
            and needs.memory <= (capacity.memory_bytes or UNKNOWN)
            and needs.gpus <= 1000 * len(capacity.gpus)
            and self._has(cls.request.resources, dict(capacity.resources))
        )

    def limits(self) -> Offer:
        """What it would offer if it were empty."""
        return FULL if self.closed or self.capacity.follows else self._limits()

    def _limits(self) -> Offer:
        until = inf if self.end_at is None else self.end_at
        capacity = self.capacity
        if capacity.depth_limited:
            return Offer(UNKNOWN, UNKNOWN, UNKNOWN, until, self.start_by)
        memory = capacity.memory_bytes or UNKNOWN
        return Offer(capacity.cpus_milli, memory, 1000 * len(capacity.gpus), until, self.start_by)

    def offer(self) -> Offer:
        """What it has for one more task."""
        if self.free_slots <= 0 or self.closed or self.gang is not None:
            return FULL
        until = inf if self.end_at is None else self.end_at
        if self.capacity.depth_limited:
            return Offer(UNKNOWN, UNKNOWN, UNKNOWN, until, self.start_by)
        return Offer(self.free_cpus, self.free_memory, self._free_gpus(), until, self.start_by)

    def room(self, now: float, nodes: int) -> Needs:
        """The largest needs that it can meet now, each by itself; `nodes` is how many it can be one of."""
        if self.free_slots <= 0 or self.closed or self.gang is not None:
            return NOTHING
        left = inf if self.end_at is None else self.end_at - now + 1e-3  # `lasts` decides what is that close
        open_end = 1 if now <= self.start_by else 0
        if self.capacity.depth_limited:
            return Needs(UNKNOWN, UNKNOWN, UNKNOWN, left, open_end, 1)
        return Needs(self.free_cpus, self.free_memory, self._free_gpus(), left, open_end, nodes)

    def limits_as_room(self, nodes: int) -> Needs:
        """The largest needs that it could meet if it were empty; `nodes` is how many it can be one of."""
        limits = FULL if self.closed else self._limits()
        return Needs(limits.cpus, limits.memory, limits.gpus, inf, 1, nodes)

    def has_room(self, cls: RequestClass) -> bool:
        """Whether what is free is enough for one more task of the class, which is for one node."""
        if self.free_slots <= 0 or self.gang is not None:
            return False
        if self.capacity.depth_limited:
            return True
        needs = cls.needs
        if needs.cpus > self.free_cpus or needs.memory > self.free_memory:
            return False
        if needs.gpus and needs.gpus > self._free_gpus():
            return False
        return not cls.request.resources or self._has(cls.request.resources, self.free_resources)

    def fits(self, cls: RequestClass, now: float) -> bool:
        """Whether one more task of the class, which is for one node, can start now."""
        if self.closed or not self.has_room(cls):
            return False
        if self.reserved is not None and self.reserved.delays(self, cls, now):
            return False
        return self.end_at is None or self.lasts(cls, now)

    def is_balanced_by(self, cls: RequestClass) -> bool:
        """Whether free cores and memory, as shares of the node's, differ no more with one more task of the class."""
        difference = self._more_cores()
        return abs(difference + self.lean(cls)) <= abs(difference)

    def is_balanced_with(self, cls: RequestClass) -> bool:
        """The same for a task of the class that is taken into account already."""
        difference = self._more_cores()
        return abs(difference) <= abs(difference - self.lean(cls))

    def lean(self, cls: RequestClass) -> float:
        """How much more of the node's memory than of its cores a task of the class takes."""
        capacity = self.capacity
        if not capacity.memory_bytes or not capacity.cpus_milli:
            return 0.0
        return cls.needs.memory / capacity.memory_bytes - cls.needs.cpus / capacity.cpus_milli

    def _more_cores(self) -> float:
        capacity = self.capacity
        if not capacity.memory_bytes or not capacity.cpus_milli:
            return 0.0
        return self.free_cpus / capacity.cpus_milli - self.free_memory / capacity.memory_bytes

    def lasts(self, cls: RequestClass, now: float) -> bool:
        """Whether its block lives long enough for a task of the class that starts now."""
        if self.end_at is None:
            return True
        runtime = cls.request.runtime_s
        return now <= self.start_by if runtime is None else now + runtime <= self.end_at

    def take(self, cls: RequestClass, id: int) -> None:
        """Reserve what a task of the class needs."""
        request = cls.request
        self.free_slots -= 1
        self.free_cpus -= request.cpus_milli
        if request.memory_bytes:
            self.free_memory -= request.memory_bytes
        if request.gpus_milli:
            devices = self.gpu_shares[id] = self._devices(cls.needs.gpus)
            for device in devices:
                self.free_gpus[device] -= min(1000, request.gpus_milli)
        if request.resources:
            for name, amount in request.resources:
                self.free_resources[name] = self.free_resources.get(name, 0) - amount
        self.active[cls.id] = self.active.get(cls.id, 0) + 1

    def give_back(self, cls: RequestClass, id: int) -> None:
        """Free what a task of the class held."""
        request = cls.request
        self.free_slots += 1
        self.free_cpus += request.cpus_milli
        if request.memory_bytes:
            self.free_memory += request.memory_bytes
        if request.gpus_milli:
            for device in self.gpu_shares.pop(id):
                self.free_gpus[device] += min(1000, request.gpus_milli)
        if request.resources:
            for name, amount in request.resources:
                self.free_resources[name] += amount
        count = self.active[cls.id]
        if count > 1:
            self.active[cls.id] = count - 1
        else:
            del self.active[cls.id]

    @staticmethod
    def _has(wanted: tuple[tuple[str, int], ...], has: dict[str, int]) -> bool:
        return all(amount <= has.get(name, 0) for name, amount in wanted)

    def _free_gpus(self) -> int:
        """As in `Offer`: exact, since a request is for a part of one GPU or for whole ones."""
        free = self.free_gpus
        if not free:
            return 0
        return 1000 * free.count(1000) or max(free)

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
            self.end_at, self.start_by = None, inf
            return before is not None
        if before is None:
            asked = self.capacity.min_time_s
            usual = min(MIN_TIME_FOR_NEW_TASKS_S, MIN_SHARE_FOR_NEW_TASKS * time_left_s)
            self.min_time_s = usual if asked is None else asked
        end_at = now + time_left_s
        if before is not None and before < end_at <= before + 1.0:
            return False  # a message that was late; many such must not move the end unnoticed
        self.end_at = end_at
        self.start_by = end_at - self.min_time_s
        return before is not None and end_at > before
