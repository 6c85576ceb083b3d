"""What would come of allocations: the real scheduler and the real graph of jobs, in a world of simulated time.

Nothing here decides where a job runs: that is done by `Scheduler`, told what it is told in a real run. This
module is the world around it: allocations that wait in the batch system's queue, start, and end when their
walltime is over or nobody needs them; nodes; and jobs that take as long as they are said to.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from math import inf
from typing import Final

import msgspec

from pilotflow.core.planning_records import Allocations, Forecast, PlannedJob, Span, World
from pilotflow.core.scheduler import Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.core.triggers import Trigger
from pilotflow.core.workflow import JobGraph
from pilotflow.messages.records import Task
from pilotflow.resources import Request

CRASH_LIMIT: Final = 5
PLANNED_ENDS: Final = 2
"""A job that was cut off so often by the end of an allocation is given up, as in a run."""
END_MARGIN_S: Final = 5.0
END_SHARE: Final = 0.1
"""A manager leaves so long before its walltime is over, or this share of it, whichever is less."""


def forecast(
    jobs: Sequence[PlannedJob],
    seconds: Sequence[float],
    bindings: Sequence[tuple[str, ...]],
    allocations: Sequence[Allocations],
    world: World | None = None,
) -> Forecast:
    """What happens if these jobs run on these allocations.

    Args:
        jobs: them, each depending on others by their places.
        seconds: how long each of them takes.
        bindings: the executors that each of them may run on; none for any.
        allocations: what is asked of the batch system.
        world: what else holds.
    """
    return _Simulation(jobs, seconds, bindings, allocations, world or World()).run()


class _Node:
    """What is in use of a manager's node, and how long it has been."""

    __slots__ = ("busy_s", "cpus", "gpus", "manager", "memory", "share", "since_s")

    def __init__(self, manager: Manager, now: float) -> None:
        self.manager = manager
        self.cpus = self.memory = self.gpus = 0
        self.share = self.busy_s = 0.0
        self.since_s = now

    def change(self, request: Request, sign: int, now: float) -> None:
        """A job has begun (1) or ended (-1) here."""
        self.busy_s += self.share * (now - self.since_s)
        self.since_s = now
        if request.num_nodes > 1:
            self.share = float(sign > 0)
            return
        has = self.manager.capacity
        self.cpus += sign * request.cpus_milli
        self.memory += sign * request.memory_bytes
        self.gpus += sign * request.gpus_milli
        shares = [self.cpus / has.cpus_milli if has.cpus_milli else 0.0]
        shares += [self.memory / has.memory_bytes] if has.memory_bytes else []
        shares += [self.gpus / (1000 * len(has.gpus))] if has.gpus else []
        self.share = min(1.0, max(shares))


class _Block:
    """A batch job that runs."""

    __slots__ = ("idle_since", "kind", "managers", "name", "running", "span")

    def __init__(self, name: str, kind: Allocations, span: Span) -> None:
        self.name = name
        self.kind = kind
        self.span = span
        self.managers: list[int] = []
        self.running = 0
        self.idle_since = inf


class _Simulation:
    def __init__(
        self,
        jobs: Sequence[PlannedJob],
        seconds: Sequence[float],
        bindings: Sequence[tuple[str, ...]],
        allocations: Sequence[Allocations],
        world: World,
    ) -> None:
        self._jobs, self._seconds, self._bindings = jobs, seconds, bindings
        self._allocations, self._world = allocations, world
        triggers = [
            Trigger(number, kind.when, kind.after) for number, kind in enumerate(allocations) if kind.after is not None
        ]
        self._graph = JobGraph(jobs, triggers=triggers)
        self._scheduler = Scheduler()
        self._classes: dict[tuple[Request, tuple[str, ...]], int] = {}
        self._nodes: dict[int, _Node] = {}
        self._blocks: dict[str, _Block] = {}
        self._running: dict[int, tuple[int, tuple[int, ...]]] = {}  # job -> attempt, its managers
        self._cut: dict[int, int] = {}
        self._free = dict(world.partition_nodes)
        self._queue: deque[Span] = deque()  # batch jobs whose wait is over, without nodes
        self._events: list[tuple[float, int, int, str, object]] = []  # when, rank, order, what, which
        self._order = 0
        self._now = 0.0
        self._out = Forecast()

    def run(self) -> Forecast:
        for number, kind in enumerate(self._allocations):
            if kind.after is None:
                self._ask(number)
        self._graph.initialize()
        self._follow()
        events = self._events
        while events and not self._graph.is_over:
            self._now = events[0][0]
            due = []
            while events and events[0][0] == self._now:
                due.append(heapq.heappop(events))
            for _, _, _, what, which in due:  # what they bring about at the same time comes after the next step
                getattr(self, f"_{what}")(which)
            self._follow()
            self._step()
        self._queue.clear()
        for block in list(self._blocks.values()):
            self._end_block(block)
        self._out.unfinished = [job for job in range(len(self._jobs)) if job not in self._out.ends]
        self._out.makespan_s = max(self._out.ends.values(), default=0.0)
        return self._out

    def _at(self, when: float, rank: int, what: str, which: object) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, rank, self._order, what, which))

    # ---- jobs -------------------------------------------------------------------------------

    def _follow(self) -> None:
        """What the graph says has become possible."""
        while True:
            ready, fired = self._graph.take_ready(), self._graph.take_fired()
            if not ready and not fired:
                break
            for number in fired:
                self._ask(number)
            for job in ready:
                self._graph.given_out(job)
                self._scheduler.submit(self._task(job))
        self._graph.take_changed()

    def _task(self, job: int) -> Task:
        key = (self._jobs[job].request, self._bindings[job])
        cls = self._classes.get(key)
        if cls is None:
            cls = self._classes[key] = len(self._classes) + 1
            self._scheduler.add_class(RequestClass(cls, *key, CRASH_LIMIT, self._world.sort_method))
        return Task(job + 1, 0, cls, cls, b"")

    def _step(self) -> None:
        by_task = self._scheduler.gangs.by_task
        for number, tasks in self._scheduler.step(self._now).items():
            for task in tasks:
                gang = by_task.get(task.id)
                members = (number,) if gang is None else tuple(manager.id for manager in gang.managers)
                self._begin(task, members)

    def _begin(self, task: Task, members: tuple[int, ...]) -> None:
        job = task.id - 1
        request = self._jobs[job].request
        self._graph.begun(job)
        self._running[job] = (task.attempt, members)
        self._out.starts[job] = self._now
        for number in members:
            self._nodes[number].change(request, 1, self._now)
        block = self._block_of(members[0])
        block.running += 1
        length = self._seconds[job] + self._world.job_start_s
        limit = max(length, request.runtime_s or 0.0)
        block.span.needs_s = max(block.span.needs_s, self._now - block.span.start_s + limit)
        self._at(self._now + length, 0, "ended", (job, task.attempt))

    def _block_of(self, manager: int) -> _Block:
        return self._blocks[self._nodes[manager].manager.block]

    def _ended(self, which: tuple[int, int]) -> None:
        job, attempt = which
        if self._running.get(job, (0,))[0] != attempt:
            return  # it was cut off
        members = self._leave(job)
        self._scheduler.release(self._nodes[members[0]].manager, self._scheduler.tasks[job + 1])
        self._out.ends[job] = self._now
        self._block_of(members[0]).span.last_s = self._now
        self._graph.ended(job, 0)

    def _leave(self, job: int) -> tuple[int, ...]:
        """The job does not hold its nodes any more; returns them."""
        _, members = self._running.pop(job)
        for number in members:
            self._nodes[number].change(self._jobs[job].request, -1, self._now)
        block = self._block_of(members[0])
        block.running -= 1
        if not block.running:
            self._is_idle(block)
        return members

    # ---- batch jobs -------------------------------------------------------------------------

    def _ask(self, number: int) -> None:
        kind = self._allocations[number]
        for _ in range(kind.count):
            span = Span(number, self._now)
            self._out.spans.append(span)
            self._at(self._now + kind.wait_s, 3, "eligible", span)

    def _eligible(self, span: Span) -> None:
        self._queue.append(span)
        self._start_blocks()

    def _start_blocks(self) -> None:
        """Start what there are nodes for, in the order of asking in each partition."""
        held = set[str]()
        for span in list(self._queue):
            kind = self._allocations[span.kind]
            free = self._free.get(kind.partition)
            if kind.partition in held or (free is not None and free < kind.nodes):
                held.add(kind.partition)
                continue
            self._queue.remove(span)
            if free is not None:
                self._free[kind.partition] = free - kind.nodes
            span.start_s = self._now
            self._at(self._now + self._world.block_start_s, 4, "join", span)

    def _join(self, span: Span) -> None:
        kind = self._allocations[span.kind]
        block = _Block(f"block-{len(self._nodes)}", kind, span)
        self._blocks[block.name] = block
        lives = kind.walltime_s - self._world.block_start_s
        lives -= min(END_MARGIN_S, END_SHARE * lives) if lives < inf else 0.0
        following = msgspec.structs.replace(kind.capacity, slots=0, depth_limited=False)
        for place in range(kind.nodes):
            number = len(self._nodes) + 1
            capacity = following if kind.one_head and place else kind.capacity
            manager = Manager(number, kind.executor, block.name, f"node-{number}", capacity)
            manager.set_time_left(None if lives == inf else lives, self._now)
            self._nodes[number] = _Node(manager, self._now)
            self._scheduler.add_manager(manager)
            block.managers.append(number)
        if lives < inf:
            self._at(self._now + lives, 2, "walltime", block)
        self._is_idle(block)

    def _is_idle(self, block: _Block) -> None:
        block.idle_since = self._now
        self._at(self._now + self._world.idle_s, 1, "idle", (block, self._now))

    def _idle(self, which: tuple[_Block, float]) -> None:
        block, since = which
        if block.name in self._blocks and not block.running and block.idle_since == since:
            self._end_block(block)

    def _walltime(self, block: _Block) -> None:
        if block.name in self._blocks:
            self._end_block(block)

    def _end_block(self, block: _Block) -> None:
        cut = [job for job, (_, members) in self._running.items() if self._block_of(members[0]) is block]
        for job in cut:
            self._leave(job)
        for number in block.managers:
            node = self._nodes[number]
            for task in self._scheduler.remove_manager(node.manager):
                self._cut_off(task)
            self._out.busy_s += node.busy_s
            self._out.node_s += self._now - block.span.start_s
        del self._blocks[block.name]
        block.span.end_s = self._now
        kind = block.kind
        if kind.partition in self._free:
            self._free[kind.partition] += kind.nodes
            self._start_blocks()

    def _cut_off(self, task: Task) -> None:
        """Its allocation is over: it waits again, as in a run."""
        job = task.id - 1
        self._graph.lost(job)
        self._cut[job] = self._cut.get(job, 0) + 1
        if self._cut[job] >= PLANNED_ENDS:
            self._graph.ended(job, 1, terminated=True, again=False)
        else:
            self._scheduler.requeue(task)
