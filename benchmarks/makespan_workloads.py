"""Workloads for makespan.py: what users bring, each with its own difficulty."""

from __future__ import annotations

import random
from collections.abc import Callable

from makespan_world import Job, Node, Workload

from pilotflow.resources import Capacity, Request

GIB = 1 << 30


def nodes(count: int, cores: int = 64, memory_gib: int = 256, gpus: int = 0, block: str = "") -> list[Node]:
    """Equal nodes that are always there, one a block or all of one."""
    capacity = Capacity(1000 * cores, memory_gib * GIB, tuple(map(str, range(gpus))), slots=cores)
    return [Node(block or f"b{i}", capacity) for i in range(count)]


def request(
    cores: float = 1,
    memory_gib: float = 0,
    gpus: float = 0,
    limit: float | None = None,
    num_nodes: int = 1,
    priority: int = 0,
) -> Request:
    """A request in people's units."""
    limit = None if limit is None else 60.0 * -(-limit // 60)  # as people say it
    amounts = int(1000 * cores), int(memory_gib * GIB), int(1000 * gpus)
    return Request(*amounts, num_nodes=num_nodes, runtime_s=limit, priority=priority)


def limited(what: Request, limit: float) -> Request:
    """The same request with a runtime, in whole minutes as people say it."""
    return request(what.cpus_milli / 1000, what.memory_bytes / GIB, what.gpus_milli / 1000, limit)


def homogeneous(dice: random.Random) -> Workload:
    """Short tasks of one kind: tasks are sent ahead."""
    jobs = [Job(request(), dice.uniform(0.02, 0.08)) for _ in range(40_000)]
    return Workload("one kind, short", nodes(8, 16), jobs)


def heterogeneous(dice: random.Random) -> Workload:
    """Many sizes; cores and memory are about equally scarce."""
    work = heterogeneous_unknown(dice)
    jobs = [job._replace(request=limited(job.request, 1.3 * job.seconds)) for job in work.jobs]
    return Workload("cores and memory, runtimes given", work.nodes, jobs)


def heterogeneous_unknown(dice: random.Random) -> Workload:
    """The same, and nobody has said how long anything takes."""
    cores, memory = (1, 2, 4, 8), (1, 2, 4, 8, 16, 32)
    jobs = [Job(request(dice.choice(cores), dice.choice(memory)), dice.lognormvariate(4.0, 0.8)) for _ in range(6_000)]
    gap = "long tasks that nobody knows of start late and run on alone"
    return Workload("cores and memory, runtimes not given", nodes(8), jobs, gap)


def two_kinds(dice: random.Random) -> Workload:
    """Long tasks that want memory are first in the order, shorter ones that want cores come after them."""
    memory, cores = request(1, 32, limit=3600), request(4, 2, limit=1800)
    jobs = [Job(memory, dice.uniform(200, 600)) for _ in range(900)]
    jobs += [Job(cores, dice.uniform(100, 300)) for _ in range(2_100)]
    return Workload("two kinds, one for memory, one for cores", nodes(8), jobs)


def gpu_mix(dice: random.Random) -> Workload:
    """Parts of GPUs, whole ones, several, none."""
    kinds = (request(2, 8), request(1, 4, 0.25), request(2, 8, 0.5), request(4, 16, 1), request(8, 32, 2))
    jobs = [Job(kind, dice.uniform(30, 300)) for kind in dice.choices(kinds, (6, 4, 3, 4, 1), k=4_000)]
    return Workload("GPUs: parts, whole ones, several, none", nodes(8, gpus=4), jobs)


def long_tail(dice: random.Random) -> Workload:
    """Few tasks last a hundred times as long as most."""
    work = long_tail_unknown(dice)
    jobs = [job._replace(request=limited(job.request, 1.2 * job.seconds)) for job in work.jobs]
    return Workload("long tail, runtimes given", work.nodes, jobs)


def long_tail_unknown(dice: random.Random) -> Workload:
    """The same, and nobody has said how long anything takes."""
    jobs = [Job(request(), min(3_000.0, 20.0 * dice.paretovariate(1.1))) for _ in range(6_000)]
    gap = "a task as long as the bound starts late, since nobody knows that it is long"
    return Workload("long tail, runtimes not given", nodes(4), jobs, gap)


def tight_walltimes(dice: random.Random) -> Workload:
    """Blocks of an hour that come and go; tasks of up to two thirds of it."""
    capacity = Capacity(32_000, 128 * GIB, (), slots=32)
    supply = [Node(f"b{b}", capacity, 300.0 * b, 300.0 * b + 3_600.0) for b in range(60) for _ in range(2)]
    jobs = []
    for _ in range(4_000):
        seconds = dice.uniform(60, 2_400)
        jobs.append(Job(request(dice.choice((1, 2)), 2, limit=1.1 * seconds), seconds))
    return Workload("tight walltimes", supply, jobs)


def deep_dag(dice: random.Random) -> Workload:
    """Two hundred layers; a task needs up to three of the layer before."""
    jobs: list[Job] = []
    before: list[int] = []
    for _ in range(200):
        layer = []
        for _ in range(dice.randint(5, 60)):
            needs = tuple(sorted(dice.sample(before, min(len(before), dice.randint(1, 3))))) if before else ()
            layer.append(len(jobs))
            jobs.append(Job(request(dice.choice((1, 2, 4))), dice.uniform(5, 60), needs))
        before = layer
    return Workload("deep graph", nodes(2, 32), jobs)


def inversion(dice: random.Random) -> Workload:
    """Urgent wide tasks come while a queue of small ones that are not urgent is worked off."""
    jobs = [Job(request(1), dice.uniform(20, 120)) for _ in range(8_000)]
    jobs += [Job(request(24, priority=10), dice.uniform(60, 120), at=60.0 * i) for i in range(1, 25)]
    return Workload("urgent wide tasks in a flood of small ones", nodes(8, 32), jobs)


def bound_and_free(dice: random.Random) -> Workload:
    """Two executors; some tasks may run on both, some on one."""
    cpu = nodes(4, 32)
    gpu = [node._replace(executor="gpu", block=f"g{i}") for i, node in enumerate(nodes(4, 32, gpus=4))]
    jobs = []
    for _ in range(4_000):
        kind = dice.random()
        if kind < 0.2:
            jobs.append(Job(request(4, gpus=1), dice.uniform(30, 120), executors=("gpu",)))
        elif kind < 0.3:
            jobs.append(Job(request(2), dice.uniform(30, 120), executors=("cpu",)))
        else:
            jobs.append(Job(request(dice.choice((1, 2, 4))), dice.uniform(30, 120)))
    return Workload("bound to executors and not", cpu + gpu, jobs)


def large(dice: random.Random) -> Workload:
    """Tasks of more than half a node, which leave room that only small ones can use."""
    jobs = []
    for _ in range(2_500):
        seconds = dice.uniform(60, 300)
        cores = dice.choice((20, 24)) if dice.random() < 0.2 else dice.choice((1, 2, 3))
        jobs.append(Job(request(cores), seconds))
    gap = "one such task fits on a node at a time: no schedule takes less than {whole:.2f}"
    return Workload("tasks of more than half a node", nodes(8, 32), jobs, gap)


def multi_node(dice: random.Random) -> Workload:
    """Tasks on 2 to 8 of 16 nodes among small ones; more than half of the work is theirs."""
    jobs = []
    for _ in range(3_000):
        seconds = dice.lognormvariate(5.0, 0.7)
        if dice.random() < 0.02:
            jobs.append(Job(request(32, limit=1.3 * seconds, num_nodes=dice.choice((2, 4, 8))), seconds))
        else:
            jobs.append(Job(request(dice.choice((1, 2, 4)), limit=1.3 * seconds), seconds))
    return Workload("multi-node among single-node", nodes(16, 32, block="b"), jobs)


WORKLOADS: list[Callable[[random.Random], Workload]] = [
    homogeneous,
    heterogeneous,
    heterogeneous_unknown,
    two_kinds,
    gpu_mix,
    long_tail,
    long_tail_unknown,
    tight_walltimes,
    deep_dag,
    inversion,
    bound_and_free,
    large,
    multi_node,
]
