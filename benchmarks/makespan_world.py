"""A simulated cluster for makespan.py: what a workload is, the real room on nodes, and who drives a policy."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from pilotflow.resources import Capacity, Request

BALANCE_S = 0.25


class Job(NamedTuple):
    """A task of a workload: what it asks for, how long it really takes, and what it waits for."""

    request: Request
    seconds: float
    needs: tuple[int, ...] = ()
    at: float = 0.0  # submitted then, or when the last of what it needs has ended
    executors: tuple[str, ...] = ()


class Node(NamedTuple):
    """A node of the cluster: there from one time to another."""

    block: str
    capacity: Capacity
    since: float = 0.0
    until: float = inf
    executor: str = "cpu"


class Workload(NamedTuple):
    """What is to be done, and on what.

    Attributes:
        gap: why it cannot come near the bound; "" if it should.
    """

    name: str
    nodes: list[Node]
    jobs: list[Job]
    gap: str = ""


def amounts(request: Request, node: Capacity) -> dict[str, float]:
    """What a task occupies on each of its nodes, by resource; all of them if it takes whole nodes."""
    if request.num_nodes > 1:
        return has(node)
    return {"cores": request.cpus_milli, "memory": request.memory_bytes, "gpus": request.gpus_milli}


def has(node: Capacity) -> dict[str, float]:
    """What a node has, by resource."""
    return {"cores": node.cpus_milli, "memory": node.memory_bytes, "gpus": 1000 * len(node.gpus)}


class Place:
    """A node with what is really free on it, whatever a policy believes."""

    def __init__(self, number: int, node: Node) -> None:
        self.number = number
        self.node = node
        self.cpus = node.capacity.cpus_milli
        self.memory = node.capacity.memory_bytes
        self.gpus = [1000] * len(node.capacity.gpus)
        self.running: dict[int, tuple[int, ...]] = {}  # job -> its GPUs
        self.ahead: deque[int] = deque()

    def fits(self, request: Request) -> bool:
        if request.num_nodes > 1:
            return not self.running
        return (
            request.cpus_milli <= self.cpus
            and request.memory_bytes <= self.memory
            and self._devices(request) is not None
        )

    def start(self, job: int, request: Request) -> None:
        assert self.fits(request), f"node {self.number} is over-subscribed"
        devices = self._devices(request) if request.num_nodes == 1 else ()
        assert devices is not None
        self.running[job] = devices
        self._change(request, devices, -1)

    def end(self, job: int, request: Request) -> None:
        self._change(request, self.running.pop(job), 1)

    def _change(self, request: Request, devices: tuple[int, ...], sign: int) -> None:
        if request.num_nodes > 1:
            self.cpus += sign * self.node.capacity.cpus_milli
            return
        self.cpus += sign * request.cpus_milli
        self.memory += sign * request.memory_bytes
        for device in devices:
            self.gpus[device] += sign * min(1000, request.gpus_milli)

    def _devices(self, request: Request) -> tuple[int, ...] | None:
        milli = request.gpus_milli
        if not milli:
            return ()
        if milli < 1000:
            free = [(amount, device) for device, amount in enumerate(self.gpus) if amount >= milli]
            return (min(free)[1],) if free else None
        whole = [device for device, amount in enumerate(self.gpus) if amount == 1000][: milli // 1000]
        return tuple(whole) if len(whole) == milli // 1000 else None


class Policy(ABC):
    """Decides. Its methods are called as things happen, then `decide` once for each time at which something did."""

    def __init__(self, work: Workload) -> None:
        self.work = work

    @abstractmethod
    def join(self, place: Place, now: float) -> None: ...

    @abstractmethod
    def leave(self, place: Place, now: float) -> None: ...

    @abstractmethod
    def submit(self, job: int) -> None: ...

    @abstractmethod
    def end(self, job: int) -> None: ...

    @abstractmethod
    def decide(self, now: float) -> list[tuple[int, Sequence[int]]]:
        """Jobs to start or send ahead, each with the numbers of its places."""

    def take_back(self, now: float) -> list[tuple[int, int]]:
        """Jobs that were sent ahead and should not have been, with their places."""
        return []

    def returned(self, job: int) -> None:  # noqa: B027  most send nothing ahead
        """One of those had not begun."""


class Simulation:
    """A policy does a workload.

    Attributes:
        started: when each job began.
        now: the time; when all is done, when the last job ended.
    """

    def __init__(self, work: Workload, policy: Policy) -> None:
        self.work = work
        self.policy = policy
        self.now = 0.0
        self.started: dict[int, float] = {}
        self._places = {number: Place(number, node) for number, node in enumerate(work.nodes, 1)}
        self._members: dict[int, Sequence[int]] = {}  # places of each job
        self._waits_for = {i: len(job.needs) for i, job in enumerate(work.jobs)}
        self._followers: dict[int, list[int]] = defaultdict(list)
        self._events: list[tuple[float, int, str, int]] = []  # when, order, what, which
        for i, job in enumerate(work.jobs):
            for j in job.needs:
                self._followers[j].append(i)
            if not job.needs:
                heapq.heappush(self._events, (job.at, 1, "submit", i))
        for number, node in enumerate(work.nodes, 1):
            heapq.heappush(self._events, (node.since, 2, "join", number))
            if node.until < inf:
                heapq.heappush(self._events, (node.until, 3, "leave", number))

    def run(self) -> float:
        """Let it be done; returns how long it took."""
        balanced = last = 0.0
        events = self._events
        while events:
            self.now = events[0][0]
            while events and events[0][0] == self.now:
                _, _, what, which = heapq.heappop(events)
                if what == "end":
                    last = self.now
                self._happens(what, which)
            if self.now >= balanced + BALANCE_S:
                balanced = self.now
                self._take_back()
            for i, numbers in self.policy.decide(self.now):
                self._members[i] = numbers
                if all(self._places[number].fits(self.work.jobs[i].request) for number in numbers):
                    self._begin(i)
                else:
                    self._places[numbers[0]].ahead.append(i)
        assert len(self.started) == len(self.work.jobs), f"{self.work.name}: some tasks never ran"
        return last

    def _happens(self, what: str, which: int) -> None:
        if what == "submit":
            self.policy.submit(which)
        elif what == "join":
            self.policy.join(self._places[which], self.now)
        elif what == "leave":
            assert not self._places[which].running, "a task outlives its node"
            self.policy.leave(self._places[which], self.now)
        else:
            self._end(which)

    def _end(self, job: int) -> None:
        numbers = self._members[job]
        for number in numbers:
            self._places[number].end(job, self.work.jobs[job].request)
        self.policy.end(job)
        for i in self._followers[job]:
            self._waits_for[i] -= 1
            if not self._waits_for[i]:
                self.policy.submit(i)
        for number in numbers:
            place = self._places[number]
            for i in list(place.ahead):
                if place.fits(self.work.jobs[i].request):
                    place.ahead.remove(i)
                    self._begin(i)

    def _begin(self, i: int) -> None:
        job = self.work.jobs[i]
        self.started[i] = self.now
        for number in self._members[i]:
            self._places[number].start(i, job.request)
            assert self.now + job.seconds <= self._places[number].node.until, "a task outlives its node"
        heapq.heappush(self._events, (self.now + job.seconds, 0, "end", i))

    def _take_back(self) -> None:
        for i, number in self.policy.take_back(self.now):
            if i in self._places[number].ahead:
                self._places[number].ahead.remove(i)
                self.policy.returned(i)
