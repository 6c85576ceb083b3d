"""Ways to ask a batch system for a workflow's nodes: one large allocation, many small ones, some for each step.

A `Scheme` is such a way. Which ones are worth comparing follows from the graph, from what jobs ask for and from
what the site has; which one is best is not decided here, see `pilotflow.workflow.plans`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, inf
from typing import Final

from pilotflow.config.policy import LocatedPolicy
from pilotflow.config.site import Partition, Site
from pilotflow.core.planning_records import Allocations
from pilotflow.core.shapes import fits
from pilotflow.core.triggers import Moment
from pilotflow.resources import Capacity, NodeShape, Request
from pilotflow.workflow.heads import one_head
from pilotflow.workflow.order import levels
from pilotflow.workflow.records import Action, Deed, SlurmScheduler, Trigger, Workflow

MOST_PLACES: Final = 4
"""Partitions that are compared, the cheapest first."""
MOST_STEPS: Final = 6
"""Steps of a graph that may each have allocations of their own."""
MOST_BATCH_JOBS: Final = 64
FEW_SIZES: Final = 3


@dataclass(frozen=True)
class Place:
    """Where nodes come from: a partition, or this machine.

    Attributes:
        name: the partition's.
        capacity: what each node has.
        walltime_s: the longest that a batch job may run.
        nodes: how many there are, or may be had at once; infinite if nobody knows.
        fewest, most: nodes of one batch job.
        jobs: batch jobs at once.
        charge: what a node-hour costs, in the site's unit.
        allowed: nodes that policies allow a run, in all places together.
    """

    name: str
    capacity: Capacity
    walltime_s: float = inf
    nodes: float = inf
    fewest: int = 1
    most: float = inf
    jobs: float = MOST_BATCH_JOBS
    charge: float = 1.0
    allowed: float = inf

    @cached_property
    def shape(self) -> NodeShape:
        """What a node has, for what has to fit."""
        return NodeShape.of(self.capacity)

    def takes(self, request: Request) -> bool:
        """Whether such a job can run here."""
        return (
            fits(request, self.shape)
            and request.num_nodes <= min(self.most, self.nodes)
            and (request.runtime_s is None or request.runtime_s < self.walltime_s)
        )

    def at_once(self, request: Request) -> int:
        """Jobs on one node at a time."""
        has = self.capacity
        counts = [has.slots]
        counts += [has.cpus_milli // request.cpus_milli] if request.cpus_milli else []
        counts += [has.memory_bytes // request.memory_bytes] if request.memory_bytes and has.memory_bytes else []
        if request.gpus_milli:
            whole = max(1, request.gpus_milli // 1000)
            counts.append(len(has.gpus) // whole if request.gpus_milli >= 1000 else 1000 // request.gpus_milli)
        return max(1, min(counts))


@dataclass(frozen=True)
class Ask:
    """One kind of batch job, and how many of it.

    Attributes:
        name: what its scheduler is called.
        place: where.
        nodes: of each.
        count: how many.
        walltime_s: of each.
        stages: entries of the file's jobs that are bound to it; None if nothing is.
        after: jobs that must have come so far first; None for at the start.
        when: how far.
        one_head: one manager has all nodes of a batch job, see `BlockShape`.
    """

    name: str
    place: Place
    nodes: int
    count: int
    walltime_s: float
    stages: tuple[int, ...] | None = None
    after: tuple[int, ...] | None = None
    when: Moment = Moment.READY
    one_head: bool = False

    def allocations(self, wait_s: float = 0.0) -> Allocations:
        """The same for `forecast`."""
        place = self.place
        return Allocations(
            self.name,
            place.capacity,
            self.nodes,
            self.count,
            self.walltime_s,
            wait_s,
            place.name,
            self.after,
            self.when,
            self.one_head,
        )


@dataclass(frozen=True)
class Scheme:
    """A way to ask for nodes.

    Attributes:
        name: "one large", "many small", "per step", "by partition", "as written" or "this machine".
        asks: what is asked for.
    """

    name: str
    asks: tuple[Ask, ...]

    def bindings(self, workflow: Workflow) -> list[tuple[str, ...]]:
        """Of each job the schedulers that it may run on."""
        if self.name == "as written":
            return [
                () if job.scheduler is None else (workflow.slurm_schedulers[job.scheduler].name,)
                for job in workflow.jobs
            ]
        of_stage = {stage: (ask.name,) for ask in self.asks for stage in ask.stages or ()}
        return [of_stage.get(job.stage, ()) for job in workflow.jobs]


def places_of(site: Site, policies: Sequence[LocatedPolicy], wanted: Sequence[str] = ()) -> list[Place]:
    """The partitions that work may go to, the cheapest first.

    Args:
        site: whose.
        policies: limits on them.
        wanted: only these; else all that need not be named and are allowed.

    Raises:
        ConfigError: there is no such partition.
    """
    from pilotflow.config.compose import chosen_partitions

    found = chosen_partitions(site, tuple(wanted) or None, policies)
    places = [_place(partition, policies) for partition in found if partition.cpus_per_node is not None]
    return sorted(places, key=lambda place: place.charge)  # stable: the default partition stays first


def _place(partition: Partition, policies: Sequence[LocatedPolicy]) -> Place:
    limits = [located.policy for located in policies]
    times = [float(one.max_walltime) for one in limits if one.max_walltime is not None]
    times += [partition.max_walltime_s] if partition.max_walltime_s is not None else []
    nodes = [one.max_nodes for one in limits if one.max_nodes is not None]
    jobs = [most for one in limits for most in (one.max_blocks, one.max_queued_jobs) if most is not None]
    has: list[float] = [*nodes, *([partition.nodes] if partition.nodes is not None else [])]
    most: list[float] = [*nodes, *([partition.max_nodes] if partition.max_nodes is not None else [])]
    cpus = partition.cpus_per_node or 1
    gpus = tuple(map(str, range(partition.gpus_per_node)))
    return Place(
        partition.name,
        Capacity(1000 * cpus, partition.memory_bytes or 0, gpus, slots=cpus),
        min(times, default=inf),
        min(has, default=inf),
        partition.min_nodes,
        min(most, default=inf),
        min([*jobs, MOST_BATCH_JOBS]),
        partition.charge_factor,
        min(nodes, default=inf),
    )


class Shape:
    """What of a workflow decides how many nodes are of use.

    Attributes:
        steps: for each step of the graph its entries of the file's jobs; None if entries are in several steps.
        widest: the most nodes that any job asks for.
    """

    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self._level = levels(workflow.jobs)
        self._demand: dict[int, Counter[tuple[int, Request]]] = {}
        for job, level in zip(workflow.jobs, self._level, strict=True):
            self._demand.setdefault(level, Counter())[job.stage, job.request] += 1
        self.requests = {request for demand in self._demand.values() for _, request in demand}
        self.widest = max((request.num_nodes for request in self.requests), default=1)

    @cached_property
    def steps(self) -> list[tuple[int, ...]] | None:
        """See the class."""
        by_stage: dict[int, int] = {}
        for level, demand in sorted(self._demand.items()):
            for stage, _ in demand:
                if by_stage.setdefault(stage, level) != level:
                    return None
        steps: list[list[int]] = [[] for _ in self._demand]
        for stage, level in sorted(by_stage.items()):
            steps[level].append(stage)
        return [tuple(step) for step in steps]

    def requests_of(self, stages: Iterable[int]) -> set[Request]:
        """What the jobs of these entries ask for."""
        wanted = set(stages)
        return {request for demand in self._demand.values() for stage, request in demand if stage in wanted}

    def useful_nodes(self, place: Place, stages: Iterable[int] | None = None) -> int:
        """Nodes beyond which nothing is gained: so many are full when all jobs of the widest step run at once."""
        wanted = None if stages is None else set(stages)
        return max(
            (
                ceil(
                    sum(
                        count * request.num_nodes if request.num_nodes > 1 else count / place.at_once(request)
                        for (stage, request), count in demand.items()
                        if (wanted is None or stage in wanted) and place.takes(request)
                    )
                )
                for demand in self._demand.values()
            ),
            default=1,
        )

    def jobs_of(self, stages: Iterable[int]) -> tuple[int, ...]:
        """The jobs of these entries."""
        wanted = set(stages)
        return tuple(job.index for job in self.workflow.jobs if job.stage in wanted)


def schemes(workflow: Workflow, places: Sequence[Place], *, few: bool = False) -> list[Scheme]:
    """The ways that are worth comparing.

    Args:
        workflow: for which.
        places: where nodes can be had, the cheapest first.
        few: only the larger ones, in the cheapest place that takes all jobs.
    """
    shape = Shape(workflow)
    all_fit = [place for place in places if all(map(place.takes, shape.requests))][: 1 if few else MOST_PLACES]
    found: list[Scheme] = []
    for place in all_fit:
        found += _of_one_place(shape, place, FEW_SIZES if few else None)
    if not all_fit:
        found += _by_partition(shape, places)
    if shape.steps is not None and 1 < len(shape.steps) <= MOST_STEPS:
        found += _per_step(shape, all_fit or places)
    out = [*_as_written(workflow, places), *filter(_is_allowed, found)]
    by_asks = {scheme.asks: scheme for scheme in reversed(out)}  # where all of a step fits on one node, say
    return [scheme for scheme in out if by_asks[scheme.asks] is scheme]


def _is_allowed(scheme: Scheme) -> bool:
    """Whether all that is asked for, together, is within what a run may have; steps may overlap."""
    asks = scheme.asks
    return (
        sum(ask.count for ask in asks) <= min(ask.place.jobs for ask in asks)
        and sum(ask.count * ask.nodes for ask in asks) <= min(ask.place.allowed for ask in asks)
        and all(ask.place.fewest <= ask.nodes for ask in asks)
    )


def _counts(useful: int, fewest: int, most: float) -> list[int]:
    """Numbers of nodes to try, the largest first: what is of use, and halves of it."""
    useful = int(min(max(useful, fewest), most))
    found = {useful}
    while useful > fewest:
        useful = max(fewest, useful // 2)
        found.add(useful)
    return sorted(found, reverse=True)


def _of_one_place(shape: Shape, place: Place, sizes: int | None) -> Iterator[Scheme]:
    useful = shape.useful_nodes(place)
    small = max(place.fewest, shape.widest)
    for nodes in _counts(useful, small, min(place.most, place.nodes))[:sizes]:
        yield Scheme("one large", (Ask(f"{place.name}_large", place, nodes, 1, place.walltime_s),))
    if useful > small:
        for nodes in _counts(useful, 2 * small, min(place.nodes, place.jobs * small))[:sizes]:
            count = max(1, nodes // small)
            if count > 1:
                yield Scheme("many small", (Ask(f"{place.name}_small", place, small, count, place.walltime_s),))


def _by_partition(shape: Shape, places: Sequence[Place]) -> Iterator[Scheme]:
    """Each entry goes to the first place that takes it."""
    served: dict[Place, list[int]] = {}
    for stage in range(len(shape.workflow.stages)):
        place = next((place for place in places if all(map(place.takes, shape.requests_of([stage])))), None)
        if place is not None:
            served.setdefault(place, []).append(stage)
    for share in (1, 2, 4) if served else ():
        yield Scheme("by partition", tuple(_share(shape, place, tuple(s), share) for place, s in served.items()))


def _share(shape: Shape, place: Place, stages: tuple[int, ...], share: int, name: str = "") -> Ask:
    fewest = max(place.fewest, *(request.num_nodes for request in shape.requests_of(stages)))
    nodes = int(min(max(fewest, shape.useful_nodes(place, stages) // share), place.most, place.nodes))
    return Ask(name or place.name, place, nodes, 1, place.walltime_s, stages)


def _per_step(shape: Shape, places: Sequence[Place]) -> Iterator[Scheme]:
    """Each step of the graph has an allocation of its own, asked for when its jobs are ready."""
    for share in (1, 2, 4):
        asks: list[Ask] = []
        for step, stages in enumerate(shape.steps or ()):
            place = next((place for place in places if all(map(place.takes, shape.requests_of(stages)))), None)
            if place is None:
                return
            ask = _share(shape, place, stages, share, f"step_{step + 1}")
            asks.append(ask if not step else replace(ask, after=shape.jobs_of(stages)))
        yield Scheme("per step", tuple(asks))


def _as_written(workflow: Workflow, places: Sequence[Place]) -> Iterator[Scheme]:
    """What the workflow's own actions ask for."""
    by_name = {place.name: place for place in places}
    asks: list[Ask] = []
    for action in workflow.actions:
        if action.deed is not Deed.SCHEDULE_NODES or action.scheduler is None:
            continue
        scheduler = workflow.slurm_schedulers[action.scheduler]
        place = by_name.get(scheduler.partition or "", places[0] if places else None)
        timing = _timing(action)
        if place is not None and timing is not None:
            asks.append(replace(_ask_of(scheduler, action, place, timing), one_head=one_head(workflow, action)))
    if asks:
        yield Scheme("as written", tuple(asks))


def _timing(action: Action) -> tuple[tuple[int, ...] | None, Moment] | None:
    if action.trigger is Trigger.ON_WORKFLOW_START:
        return None, Moment.READY
    moments = {Trigger.ON_JOBS_READY: Moment.READY, Trigger.ON_JOBS_COMPLETE: Moment.COMPLETE}
    moment = moments.get(action.trigger)
    return None if moment is None else (action.jobs, moment)


def _ask_of(
    scheduler: SlurmScheduler, action: Action, place: Place, timing: tuple[tuple[int, ...] | None, Moment]
) -> Ask:
    if action.max_parallel_jobs is not None:
        capacity = place.capacity
        deep = Capacity(capacity.cpus_milli, 0, (), slots=action.max_parallel_jobs, depth_limited=True)
        place = replace(place, capacity=deep)
    count, walltime_s = action.num_allocations, scheduler.walltime_s
    return Ask(scheduler.name, place, scheduler.nodes, count, walltime_s, None, *timing)
