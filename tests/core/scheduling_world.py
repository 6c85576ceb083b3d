"""A small cluster under a scheduler: an event-driven driver that does its own sums and believes nothing.

Nodes start what they are leased as soon as it really fits; what does not fit waits there as sent
ahead. After every step all the rules of placement are checked against sums made anew from the
tasks that run.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from math import inf

from pilotflow.core.ahead import LONGEST_US
from pilotflow.core.scheduler import PATIENCE_S, Scheduler
from pilotflow.core.supply import MIN_TIME_FOR_NEW_TASKS_S, Manager, RequestClass
from pilotflow.messages.records import Task
from pilotflow.resources import Capacity, Request, SortMethod

__all__ = ["PATIENCE_S", "Kind", "Node", "World"]


@dataclass(eq=False)
class Kind:
    """A request class, and how long its tasks really take."""

    request: Request
    seconds: float
    executors: tuple[str, ...] = ()
    crash_limit: int = 5


@dataclass(eq=False)
class Node:
    """What a manager's node really runs.

    Attributes:
        running: the kind of each task that runs there, by id.
        ahead: tasks that were leased and have not begun.
    """

    manager: Manager
    end_at: float
    running: dict[int, Kind] = field(default_factory=dict)
    ahead: list[int] = field(default_factory=list)
    closed: bool = False

    def over(self) -> str:
        """What it has too little of for what runs there; "" if it is enough."""
        capacity: Capacity = self.manager.capacity
        requests = [kind.request for kind in self.running.values()]
        if len(requests) > capacity.slots:
            return "slots"
        if capacity.depth_limited:
            return ""
        if any(request.num_nodes > 1 for request in requests):
            return "nodes" if len(requests) > 1 else ""
        sums = Counter[str]()
        for request in requests:
            sums["cores"] += request.cpus_milli
            sums["memory"] += request.memory_bytes
            sums.update(dict(request.resources))
        limits = {"cores": capacity.cpus_milli, "memory": capacity.memory_bytes or inf, **dict(capacity.resources)}
        return next((name for name, amount in sums.items() if amount > limits.get(name, 0)), "")

    def could_run(self, kind: Kind) -> bool:
        """Whether it could begin with a task of a kind now, by the amounts that are not GPUs."""
        self.running[-1] = kind
        over = self.over()
        del self.running[-1]
        return not over


class World:
    """Managers, tasks and a clock.

    Attributes:
        started: how often each task began.
        ended: tasks that have ended, and when.
        cancelled: tasks that were cancelled.
        waited: of each task, since when it waits.
    """

    def __init__(self, kinds: list[Kind], method: SortMethod = SortMethod.GPUS_RUNTIME_MEMORY) -> None:
        self.scheduler = Scheduler()
        self.kinds = kinds
        for id, kind in enumerate(kinds):
            self.scheduler.add_class(RequestClass(id, kind.request, kind.executors, kind.crash_limit, method))
        self.now = 0.0
        self.nodes: dict[int, Node] = {}
        self.started: Counter[int] = Counter()
        self.begun_at: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.cancelled: set[int] = set()
        self.kind_of: dict[int, Kind] = {}
        self._ends: list[tuple[float, int, int]] = []  # when, task, attempt
        self._next_manager = 0
        self._balanced = 0.0

    # ---- what happens -----------------------------------------------------------------------

    def join(self, capacity: Capacity, executor: str = "cpu", block: str = "", left_s: float | None = None) -> Node:
        """A manager joins."""
        self._next_manager += 1
        id = self._next_manager
        manager = Manager(id, executor, block or f"block-{id}", f"node-{id}", capacity)
        manager.set_time_left(left_s, self.now)
        node = self.nodes[id] = Node(manager, inf if left_s is None else self.now + left_s)
        self.scheduler.add_manager(manager)
        return node

    def close(self, node: Node) -> None:
        """A manager takes no more."""
        node.closed = node.manager.closed = True

    def leave(self, node: Node) -> None:
        """A manager is lost, with all that it holds."""
        del self.nodes[node.manager.id]
        for task in reversed(self.scheduler.remove_manager(node.manager)):
            for other in self.nodes.values():
                other.running.pop(task.id, None)
            self.scheduler.requeue(task)

    def submit(self, kind: int) -> Task:
        """A task is submitted."""
        id = len(self.kind_of) + 1
        task = Task(id, 0, kind, kind, b"")
        self.kind_of[id] = self.kinds[kind]
        self.scheduler.submit(task)
        return task

    def cancel(self, id: int) -> None:
        """A task is cancelled, whether it waits or runs."""
        task = self.scheduler.find(id)
        if task is None:
            return
        self.cancelled.add(id)
        holder = self.scheduler.holder(id)
        if holder is None:
            self.scheduler.forget(task)
        else:
            self._end(task, holder)

    def run_for(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        self.step()
        while self._ends and self._ends[0][0] <= until:
            self._advance()
        self.now = until
        self.step()

    def run(self, limit_s: float = 1e7) -> None:
        """Let everything that has begun, and what follows, come to its end."""
        self.step()
        while self._ends:
            assert self.now < limit_s, "it does not come to an end"
            self._advance()

    def _advance(self) -> None:
        self.now = max(self.now, self._ends[0][0])
        while self._ends and self._ends[0][0] <= self.now:
            _, id, attempt = heapq.heappop(self._ends)
            task = self.scheduler.find(id)
            if task is not None and task.attempt == attempt and (holder := self.scheduler.holder(id)) is not None:
                self.ended[id] = self.now
                self.scheduler.learn(task.fn, int(self.kind_of[id].seconds * 1e6))
                self._end(task, holder)
        self.step()

    def _end(self, task: Task, holder: Manager) -> None:
        self.scheduler.release(holder, task)
        for node in self.nodes.values():
            node.running.pop(task.id, None)
            if task.id in node.ahead:
                node.ahead.remove(task.id)
        self._start_ahead(self.nodes[holder.id])

    def _start_ahead(self, node: Node) -> None:
        for id in [*node.ahead]:
            if node.could_run(self.kind_of[id]):
                node.ahead.remove(id)
                self._start(id, [node])

    def _start(self, id: int, nodes: list[Node]) -> None:
        kind = self.kind_of[id]
        for node in nodes:
            node.running[id] = kind
        self.started[id] += 1
        self.begun_at[id] = self.now
        heapq.heappush(self._ends, (self.now + kind.seconds, id, self.scheduler.tasks[id].attempt))

    # ---- deciding, and what must hold -------------------------------------------------------

    def step(self) -> None:
        """Let the scheduler decide, and check everything."""
        scheduler = self.scheduler
        if scheduler.any_ahead and self.now >= self._balanced + 0.25:
            self._balanced = self.now
            for manager_id, tasks in scheduler.rebalance(self.now).items():
                self._take_back(self.nodes[manager_id], tasks)
        new = scheduler.step(self.now)
        assert not scheduler.has_changed, "a step leaves nothing to be done"
        for manager_id, tasks in new.items():
            for task in tasks:
                self._begin(self.nodes[manager_id], task)
        self._check_order({task.id for tasks in new.values() for task in tasks if task.id in self.begun_at})
        self.check()

    def _take_back(self, node: Node, tasks: list[Task]) -> None:
        for task in reversed(tasks):
            if task.id in node.ahead:
                node.ahead.remove(task.id)
                self.scheduler.release(node.manager, task)
                self.scheduler.requeue(task)

    def _begin(self, node: Node, task: Task) -> None:
        kind = self.kind_of[task.id]
        manager = node.manager
        assert not node.closed, "a manager that takes nothing was given something"
        assert not kind.executors or manager.executor in kind.executors, "a task runs where it may not"
        self._check_time(node, kind)
        gang = self.scheduler.gangs.by_task.get(task.id)
        if kind.request.num_nodes > 1:
            assert gang is not None
            nodes = [self.nodes[member.id] for member in gang.managers]
            assert nodes[0] is node, "the first of the nodes leads"
            assert len({one.manager.id for one in nodes}) == kind.request.num_nodes
            assert len({one.manager.block for one in nodes}) == 1, "a task's nodes are of one block"
            assert not any(one.running or one.ahead for one in nodes), "nodes of a multi-node task are not empty"
            for one in nodes:
                self._check_time(one, kind)
            self._start(task.id, nodes)
            return
        assert gang is None
        if node.could_run(kind):
            self._start(task.id, [node])
            return
        assert self._may_go_ahead(task, kind), f"task {task.id} was sent where there is no room for it"
        node.ahead.append(task.id)

    def _may_go_ahead(self, task: Task, kind: Kind) -> bool:
        return kind.crash_limit > 1 and not self.scheduler._ahead.durations.longer_than(task.fn, LONGEST_US)

    def _check_time(self, node: Node, kind: Kind) -> None:
        left = node.end_at - self.now
        runtime = kind.request.runtime_s
        if runtime is not None:
            assert runtime <= left + 1e-6, "a task was started that cannot end in time"
        elif left < inf:
            assert left >= min(MIN_TIME_FOR_NEW_TASKS_S, node.manager.min_time_s) - 1e-6, "a task was started too late"

    def check(self) -> None:
        """Every rule that must hold between two steps."""
        for node in self.nodes.values():
            over = node.over()
            assert not over, f"node {node.manager.id} is over its {over}"
            self._check_gpus(node)
        self._check_places()
        self._check_books()
        self._check_nothing_fits()
        self._check_reservations()

    def _check_order(self, new: set[int]) -> None:
        """Nobody took a place that was right for a task of higher priority, or for an older one of the same kind."""
        waiting = [cls for cls in self.scheduler.classes.values() if cls.queued and cls.request.num_nodes == 1]
        for cls in waiting:
            kind, first = self.kinds[cls.id], cls.first()
            assert first is not None
            same = {
                i
                for i, other in enumerate(self.kinds)
                if (other.request, other.executors) == (kind.request, kind.executors)
            }
            late = [id for id in new if self.scheduler.tasks[id].cls in same and id > first.id]
            assert not late, f"tasks {late} were not first come first served: {first.id} waits"
            for node in self.nodes.values():
                less = {
                    id for id in new & node.running.keys() if node.running[id].request.priority < kind.request.priority
                }
                if (
                    not less
                    or kind.request.gpus_milli
                    or node.manager.reserved is not None
                    or not cls.admits(node.manager.executor)
                    or not self._in_time(node, kind)
                ):
                    continue
                before = node.running
                node.running = {id: other for id, other in before.items() if id not in less}
                assert not node.could_run(kind), f"tasks {less} took a place from a more urgent one of kind {cls.id}"
                node.running = before

    def _check_gpus(self, node: Node) -> None:
        """Parts of a GPU are parts of one; what a task has stays what it has."""
        manager = node.manager
        if manager.capacity.depth_limited:
            return
        used = [0] * len(manager.capacity.gpus)
        wanting = {id for id, kind in node.running.items() if kind.request.gpus_milli and kind.request.num_nodes == 1}
        assert manager.gpu_shares.keys() >= wanting
        for id in wanting:
            milli = node.running[id].request.gpus_milli
            devices = manager.gpu_shares[id]
            assert len(set(devices)) == max(1, -(-milli // 1000)), "a task has the wrong number of GPUs"
            for device in devices:
                used[device] += min(1000, milli)
        assert all(amount <= 1000 for amount in used), f"GPUs of node {manager.id} are shared by mistake: {used}"

    def _check_places(self) -> None:
        scheduler = self.scheduler
        queued = Counter(task.id for cls in scheduler.classes.values() for task in cls.queue if task.attempt >= 0)
        held = Counter(id for manager in scheduler.managers.values() for id in manager.leases)
        places = queued + held
        assert all(count == 1 for count in places.values()), "a task is in several places"
        assert places.keys() == scheduler.tasks.keys()
        done = self.ended.keys() | self.cancelled
        assert places.keys() == self.kind_of.keys() - done, "a task was lost, or lives on"
        for node in self.nodes.values():
            really = {id for id in node.running if scheduler.tasks[id].manager == node.manager.id}
            assert really | {*node.ahead} == node.manager.leases

    def _check_books(self) -> None:
        """What the scheduler believes is free on a node is what is."""
        for node in self.nodes.values():
            manager = node.manager
            single = [kind for kind in node.running.values() if kind.request.num_nodes == 1]
            assert manager.free_slots == manager.capacity.slots - len(single)
            if manager.capacity.depth_limited:
                continue
            assert manager.free_cpus == manager.capacity.cpus_milli - sum(kind.request.cpus_milli for kind in single)
            assert sum(manager.prefilled.values()) == len(node.ahead)

    def _check_nothing_fits(self) -> None:
        """No waiting task fits on any manager, but where room is kept for one that is more urgent."""
        waiting = [cls for cls in self.scheduler.classes.values() if cls.queued]
        for node in self.nodes.values():
            manager = node.manager
            if node.closed or any(kind.request.num_nodes > 1 for kind in node.running.values()):
                continue
            for cls in waiting:
                kind = self.kinds[cls.id]
                if kind.request.num_nodes > 1 or not cls.admits(manager.executor) or not self._in_time(node, kind):
                    continue
                kept = manager.reserved
                if kept is not None and kept.cls.order <= cls.order and kept.cls is not cls:
                    continue
                assert not (node.could_run(kind) and self._gpus_fit(node, kind)), (
                    f"a task of kind {cls.id} waits though node {manager.id} has room"
                )
        self._check_no_gang_fits(waiting)

    def _check_no_gang_fits(self, waiting: list[RequestClass]) -> None:
        for cls in waiting:
            kind = self.kinds[cls.id]
            if kind.request.num_nodes == 1:
                continue
            empty: Counter[str] = Counter()
            for node in self.nodes.values():
                manager = node.manager
                kept = manager.reserved
                if (
                    not (node.running or node.ahead or node.closed or manager.capacity.depth_limited)
                    and (kept is None or kept.cls is cls or cls.order < kept.cls.order)
                    and manager.could_ever_run(cls)
                    and self._in_time(node, kind)
                ):
                    empty[manager.block] += 1
            assert all(count < kind.request.num_nodes for count in empty.values()), "enough nodes are empty"

    def _in_time(self, node: Node, kind: Kind) -> bool:
        left = node.end_at - self.now
        runtime = kind.request.runtime_s
        return left >= node.manager.min_time_s + 1e-6 if runtime is None else runtime <= left - 1e-6

    @staticmethod
    def _gpus_fit(node: Node, kind: Kind) -> bool:
        milli = kind.request.gpus_milli
        if not milli or node.manager.capacity.depth_limited:
            return True
        free = node.manager.free_gpus
        return any(amount >= milli for amount in free) if milli < 1000 else free.count(1000) >= milli // 1000

    def _check_reservations(self) -> None:
        """What is kept free is kept for somebody who waits, and both sides know."""
        holders = [cls for cls in self.scheduler.classes.values() if cls.reserved]
        for cls in holders:
            assert cls.queued, "nodes are kept free for nobody"
            assert all(manager.reserved is not None and manager.reserved.cls is cls for manager in cls.reserved)
            assert all(manager.id in self.scheduler.managers for manager in cls.reserved)
        assert len({cls.executors for cls in holders}) == len(holders), "one lane keeps nodes for several"
        kept = sum(manager.reserved is not None for manager in self.scheduler.managers.values())
        assert kept == sum(len(cls.reserved) for cls in holders)
