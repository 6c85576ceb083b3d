"""Which task runs on which manager: greedy packing by request class.

Tasks that ask for the same thing share a `RequestClass` and wait in one queue. Each class keeps
the managers that might take one more of its tasks in a heap, oldest manager first, so that work
packs onto old blocks and young ones can drain. A manager leaves a class's heap when it turns out
to be full, and comes back when it frees something. So the cost of a placement is O(log managers)
and does not depend on how many tasks wait.

Managers are sent a little more than they can run (*prefill*), of the class they are running, when
the function is known to be short: a worker then never waits for a round trip. Prefilled tasks
hold no resources; when a task ends, a prefilled one of its class takes over its share.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from pilotflow.messages import Task
from pilotflow.resources import Capacity, Request

PREFILL_HORIZON_US = 50_000
"""A worker is sent ahead at most this much expected work..."""
PREFILL_MAX = 128
"""...and at most this many tasks."""
PREFILL_LONGEST_US = 1_000_000
"""Tasks expected to last longer than this are never sent ahead."""
MIN_TIME_FOR_NEW_TASKS_S = 300.0
"""A task that does not say its runtime needs this much of a block's walltime left..."""
MIN_SHARE_FOR_NEW_TASKS = 0.1
"""...or this share of it, where blocks are short."""


class RequestClass:
    """All tasks with the same request, binding and crash limit; they are interchangeable."""

    __slots__ = ("crash_limit", "executors", "heap", "id", "members", "order", "queue", "request")

    def __init__(self, id: int, request: Request, executors: tuple[str, ...], crash_limit: int) -> None:
        self.id = id
        self.request = request
        self.executors = frozenset(executors)
        self.crash_limit = crash_limit
        self.queue: deque[Task] = deque()
        self.heap: list[int] = []  # ids of managers that may fit one more, and `members` the same
        self.members: set[int] = set()
        runtime = request.runtime_s or 0.0
        self.order = (-request.priority, -request.gpus_milli, -runtime, -request.memory_bytes)

    def admits(self, executor: str) -> bool:
        """Whether its tasks may run on that executor."""
        return not self.executors or executor in self.executors


class Manager:
    """One manager as the scheduler sees it."""

    __slots__ = (
        "active",
        "block",
        "capacity",
        "classes",
        "closed",
        "end_at",
        "executor",
        "free_cpus",
        "free_gpus",
        "free_memory",
        "free_slots",
        "id",
        "leases",
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
        self.classes: list[RequestClass] = []  # those whose tasks could ever run here
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
        if self.end_at is None:
            return True
        needed = self.min_time_s if request.runtime_s is None else request.runtime_s
        return now + needed <= self.end_at

    def take(self, cls: RequestClass) -> None:
        """Reserve what one task of the class needs."""
        request = cls.request
        self.free_slots -= 1
        self.free_cpus -= request.cpus_milli
        self.free_memory -= request.memory_bytes
        self.free_gpus -= request.gpus_milli
        self.active[cls.id] = self.active.get(cls.id, 0) + 1

    def give_back(self, cls: RequestClass) -> None:
        """Free what one task of the class held."""
        request = cls.request
        self.free_slots += 1
        self.free_cpus += request.cpus_milli
        self.free_memory += request.memory_bytes
        self.free_gpus += request.gpus_milli
        self.active[cls.id] -= 1

    def set_time_left(self, time_left_s: float | None, now: float) -> None:
        """Learn how much of the block's walltime is left, in seconds."""
        if time_left_s is None:
            self.end_at = None
            return
        if self.end_at is None:
            self.min_time_s = min(MIN_TIME_FOR_NEW_TASKS_S, MIN_SHARE_FOR_NEW_TASKS * time_left_s)
        self.end_at = now + time_left_s


class Scheduler:
    """The queue of a run and the managers that serve it.

    Call the event methods as things happen, then `step` once a turn; it returns the new leases.
    """

    def __init__(self) -> None:
        self.classes: dict[int, RequestClass] = {}
        self.managers: dict[int, Manager] = {}
        self.tasks: dict[int, Task] = {}  # queued and leased
        self.holder: dict[int, Manager] = {}  # leased only
        self._waiting: dict[int, RequestClass] = {}  # classes with something in their queue
        self._dirty: dict[int, Manager] = {}  # managers that freed something since the last step
        self._mean_us: dict[int, float] = {}  # function -> expected duration

    # ---- events -----------------------------------------------------------------------------

    def add_class(self, cls: RequestClass) -> None:
        """A request class that tasks will name."""
        self.classes[cls.id] = cls
        for manager in self.managers.values():
            if manager.could_ever_run(cls):
                manager.classes.append(cls)
                cls.members.add(manager.id)
                heappush(cls.heap, manager.id)

    def add_manager(self, manager: Manager) -> None:
        """A manager has joined."""
        self.managers[manager.id] = manager
        manager.classes = [cls for cls in self.classes.values() if manager.could_ever_run(cls)]
        self._dirty[manager.id] = manager

    def submit(self, task: Task) -> None:
        """A new task waits."""
        self.tasks[task.id] = task
        cls = self.classes[task.cls]
        cls.queue.append(task)
        self._waiting[cls.id] = cls

    def requeue(self, task: Task) -> None:
        """A task that was handed out waits again, before those that never were."""
        cls = self.classes[task.cls]
        self.tasks[task.id] = task
        cls.queue.appendleft(task)
        self._waiting[cls.id] = cls

    def forget(self, task: Task) -> None:
        """A waiting task is cancelled; its place in the queue is passed over."""
        del self.tasks[task.id]
        task.attempt = -1

    def release(self, manager: Manager, task: Task) -> None:
        """A leased task has ended there, however it did."""
        id = task.id
        del manager.leases[id]
        del self.holder[id]
        del self.tasks[id]
        cls_id = task.cls
        ahead = manager.prefilled.get(cls_id, 0)
        if ahead:
            manager.prefilled[cls_id] = ahead - 1
        else:
            manager.give_back(self.classes[cls_id])
        self._dirty[manager.id] = manager

    def adopt(self, manager: Manager, task: Task) -> None:
        """A manager already holds this task, from before the interchange knew either."""
        cls = self.classes[task.cls]
        manager.take(cls)
        manager.leases[task.id] = task
        self.tasks[task.id] = task
        self.holder[task.id] = manager

    def learn(self, fn: int, duration_us: int) -> None:
        """An attempt at a task of that function took so long."""
        mean = self._mean_us.get(fn)
        self._mean_us[fn] = duration_us if mean is None else mean + 0.1 * (duration_us - mean)

    def reopen(self, manager: Manager) -> None:
        """Something about the manager changed that may let it take more."""
        self._dirty[manager.id] = manager

    def remove_manager(self, manager: Manager) -> list[Task]:
        """A manager is gone; returns the tasks it held."""
        held = list(manager.leases.values())
        for task in held:
            del self.holder[task.id]
            del self.tasks[task.id]
        manager.leases.clear()
        manager.closed = True
        self.managers.pop(manager.id, None)
        self._dirty.pop(manager.id, None)
        return held

    # ---- deciding ---------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether a step could place anything."""
        return bool(self._waiting)

    @property
    def any_dirty(self) -> bool:
        """Whether any manager has freed something since the last step."""
        return bool(self._dirty)

    def step(self, now: float) -> dict[int, list[Task]]:
        """Lease waiting tasks to managers; returns the new leases by manager."""
        dirty = self._dirty
        self._dirty = {}
        for manager in dirty.values():
            for cls in manager.classes:
                if manager.id not in cls.members and manager.fits(cls, now):
                    cls.members.add(manager.id)
                    heappush(cls.heap, manager.id)
        leases: dict[int, list[Task]] = {}
        if not self._waiting:
            return leases
        ordered = sorted(self._waiting.values(), key=_by_order) if len(self._waiting) > 1 else [*self._waiting.values()]
        for cls in ordered:
            self._place(cls, now, leases)
        for cls in ordered:
            if cls.queue:
                self._prefill(cls, dirty, leases, now)
            if not cls.queue:
                del self._waiting[cls.id]
        return leases

    def _place(self, cls: RequestClass, now: float, leases: dict[int, list[Task]]) -> None:
        queue, heap = cls.queue, cls.heap
        while queue and heap:
            id = heap[0]
            manager = self.managers.get(id)
            if manager is None or not manager.fits(cls, now):
                heappop(heap)
                cls.members.discard(id)
                continue
            task = queue.popleft()
            if task.attempt < 0:  # cancelled meanwhile
                continue
            manager.take(cls)
            self._lease(manager, task, leases)

    def _prefill(
        self, cls: RequestClass, dirty: dict[int, Manager], leases: dict[int, list[Task]], now: float
    ) -> None:
        """Send ahead to managers that run this class and have just finished or got something."""
        queue = cls.queue
        touched = [*dirty] if not leases else {**dict.fromkeys(dirty), **dict.fromkeys(leases)}
        for id in touched:
            manager = self.managers.get(id)
            if manager is None or manager.closed or manager.end_at is not None:
                continue
            active = manager.active.get(cls.id, 0)
            ahead = manager.prefilled.get(cls.id, 0)
            room = 1
            while active and queue:
                task = queue[0]
                if task.attempt < 0:
                    queue.popleft()
                    continue
                room = active * self._depth(task.fn) - ahead
                if room <= 0:
                    break
                queue.popleft()
                ahead += 1
                manager.prefilled[cls.id] = ahead
                self._lease(manager, task, leases)
            if not queue:
                return

    def _depth(self, fn: int) -> int:
        mean = self._mean_us.get(fn)
        if mean is None or mean > PREFILL_LONGEST_US:
            return 0
        return min(PREFILL_MAX, int(PREFILL_HORIZON_US / (mean + 1.0)) or 1)

    def _lease(self, manager: Manager, task: Task, leases: dict[int, list[Task]]) -> None:
        task.attempt += 1
        manager.leases[task.id] = task
        self.holder[task.id] = manager
        new = leases.get(manager.id)
        if new is None:
            leases[manager.id] = [task]
        else:
            new.append(task)


def _by_order(cls: RequestClass) -> tuple[tuple[float, ...], int]:
    while cls.queue and cls.queue[0].attempt < 0:
        cls.queue.popleft()
    return cls.order, (cls.queue[0].id if cls.queue else 0)
