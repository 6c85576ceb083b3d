"""Policies for makespan.py: pilotflow's scheduler, strictly first come first served, and slots."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from math import inf

from makespan_world import Node, Place, Policy, Workload, amounts, has

from pilotflow.core.scheduler import Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Task
from pilotflow.resources import Request


class Pilotflow(Policy):
    """The real scheduler core."""

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.scheduler = Scheduler()
        self.jobs: dict[int, int] = {}  # task -> job
        self.tasks: dict[int, int] = {}
        self.classes: dict[tuple[Request, tuple[str, ...]], int] = {}

    def join(self, place: Place, now: float) -> None:
        node = place.node
        manager = Manager(place.number, node.executor, node.block, f"node-{place.number}", node.capacity)
        manager.set_time_left(None if node.until == inf else node.until - now, now)
        self.scheduler.add_manager(manager)

    def leave(self, place: Place, now: float) -> None:
        for task in reversed(self.scheduler.remove_manager(self.scheduler.managers[place.number])):
            self.scheduler.requeue(task)

    def submit(self, job: int) -> None:
        key = self.work.jobs[job].request, self.work.jobs[job].executors
        cls = self.classes.get(key)
        if cls is None:
            cls = self.classes[key] = len(self.classes) + 1
            self.scheduler.add_class(RequestClass(cls, *key, 5))
        id = self.tasks[job] = len(self.tasks) + 1
        self.jobs[id] = job
        self.scheduler.submit(Task(id, 0, cls, cls, b""))

    def end(self, job: int) -> None:
        task = self.scheduler.tasks[self.tasks[job]]
        self.scheduler.learn(task.fn, int(self.work.jobs[job].seconds * 1e6))
        self.scheduler.release(self.scheduler.managers[task.manager], task)

    def decide(self, now: float) -> list[tuple[int, Sequence[int]]]:
        out: list[tuple[int, Sequence[int]]] = []
        by_task = self.scheduler.gangs.by_task
        for number, tasks in self.scheduler.step(now).items():
            for task in tasks:
                gang = by_task.get(task.id)
                numbers = [number] if gang is None else [manager.id for manager in gang.managers]
                out.append((self.jobs[task.id], numbers))
        return out

    def take_back(self, now: float) -> list[tuple[int, int]]:
        back = self.scheduler.rebalance(now)
        return [(self.jobs[task.id], number) for number, tasks in back.items() for task in tasks]

    def returned(self, job: int) -> None:
        task = self.scheduler.tasks[self.tasks[job]]
        self.scheduler.release(self.scheduler.managers[task.manager], task)
        self.scheduler.requeue(task)


class FirstCome(Policy):
    """Strictly in the order of submission: what does not fit keeps everybody behind it waiting."""

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.queues: dict[tuple[str, ...], deque[int]] = defaultdict(deque)  # by binding
        self.places: dict[int, Place] = {}
        self.held: dict[int, list[int]] = {}

    def join(self, place: Place, now: float) -> None:
        self.places[place.number] = place

    def leave(self, place: Place, now: float) -> None:
        del self.places[place.number]

    def submit(self, job: int) -> None:
        self.queues[self.work.jobs[job].executors].append(job)

    def end(self, job: int) -> None:
        del self.held[job]

    def decide(self, now: float) -> list[tuple[int, Sequence[int]]]:
        taken: dict[int, list[int]] = defaultdict(list)  # what was decided here and has not started
        out: list[tuple[int, Sequence[int]]] = []
        for queue in self.queues.values():
            while queue and (numbers := self._find(queue[0], now, taken)):
                job = queue.popleft()
                self.held[job] = numbers
                for number in numbers:
                    taken[number].append(job)
                out.append((job, numbers))
        return out

    def _find(self, job: int, now: float, taken: dict[int, list[int]]) -> list[int]:
        found: dict[str, list[int]] = defaultdict(list)
        what = self.work.jobs[job]
        for number, place in self.places.items():
            node = place.node
            if (
                (not what.executors or node.executor in what.executors)
                and now + (what.request.runtime_s or what.seconds) <= node.until
                and self.has_room(place, what.request, taken[number])
            ):
                found[node.block].append(number)
                if len(found[node.block]) == what.request.num_nodes:
                    return found[node.block]
        return []

    def has_room(self, place: Place, request: Request, taken: list[int]) -> bool:
        if not taken:
            return place.fits(request)
        copy = Place(0, place.node)
        copy.cpus, copy.memory, copy.gpus, copy.running = place.cpus, place.memory, [*place.gpus], {**place.running}
        for job in taken:
            copy.start(job, self.work.jobs[job].request)
        return copy.fits(request)


class Slots(FirstCome):
    """First come first served, each node in as many slots as tasks of the largest kind fit on it."""

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.slots = {node.executor: self._slots(node) for node in work.nodes}

    def _slots(self, node: Node) -> int:
        mine = [j.request for j in self.work.jobs if not j.executors or node.executor in j.executors]
        shared = [request for request in mine if request.num_nodes == 1]
        count = float(node.capacity.slots)
        for resource, most in has(node.capacity).items():
            largest = max((amounts(request, node.capacity)[resource] for request in shared), default=0)
            if not largest:
                continue
            if resource == "gpus" and largest < 1000:
                count = min(count, 1000 // largest * len(node.capacity.gpus))
            else:
                count = min(count, most // largest)
        return int(count)

    def has_room(self, place: Place, request: Request, taken: list[int]) -> bool:
        held = [self.work.jobs[job].request for job in (*place.running, *taken)]
        if any(other.num_nodes > 1 for other in held):
            return False
        return not held if request.num_nodes > 1 else len(held) < self.slots[place.node.executor]
