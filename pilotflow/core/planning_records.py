"""The words of planning: what is known of jobs, what is asked of a batch system, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from pilotflow.core.triggers import Moment
from pilotflow.core.workflow import JobLike
from pilotflow.resources import Capacity, Request, SortMethod


class PlannedJob(JobLike, Protocol):
    """What must be known of a job."""

    @property
    def request(self) -> Request:
        """What it asks for, per node."""


@dataclass(frozen=True)
class Allocations:
    """Batch jobs of one kind.

    Attributes:
        executor: the label that jobs are bound to.
        capacity: what each node has.
        nodes: of each batch job.
        count: how many batch jobs.
        walltime_s: how long each may live; infinite for no limit.
        wait_s: how long each waits in the queue if there are nodes.
        partition: batch jobs of one partition share its nodes.
        after: they are asked for when all of these jobs are ready (or complete); None for at the start.
        when: ready or complete.
        one_head: one manager has all nodes of a batch job, see `BlockShape`.
    """

    executor: str
    capacity: Capacity
    nodes: int = 1
    count: int = 1
    walltime_s: float = inf
    wait_s: float = 0.0
    partition: str = ""
    after: tuple[int, ...] | None = None
    when: Moment = Moment.READY
    one_head: bool = False


@dataclass(frozen=True)
class World:
    """What holds for all allocations.

    Attributes:
        idle_s: a batch job without work for so long ends.
        block_start_s: from the start of a batch job to its first task.
        job_start_s: what each job takes beside its own time.
        partition_nodes: how many nodes a partition has; no limit where it is not named.
        sort_method: which jobs come first.
    """

    idle_s: float = 120.0
    block_start_s: float = 0.0
    job_start_s: float = 0.0
    partition_nodes: tuple[tuple[str, int], ...] = ()
    sort_method: SortMethod = SortMethod.GPUS_RUNTIME_MEMORY


@dataclass
class Span:
    """The life of one batch job.

    Attributes:
        kind: its place in the list of allocations.
        asked_s, start_s, end_s: when; the start is infinite if it never came.
        last_s: when its last job ended.
        needs_s: the walltime that would have been enough to start everything it started.
    """

    kind: int
    asked_s: float
    start_s: float = inf
    end_s: float = inf
    last_s: float = 0.0
    needs_s: float = 0.0


@dataclass
class Forecast:
    """What came of it.

    Attributes:
        makespan_s: from the start to the end of the last job.
        node_s: the time of all nodes, from the start to the end of their batch jobs.
        busy_s: of that, the share that jobs held: of a node that of its scarcest resource.
        spans: the batch jobs.
        unfinished: jobs that never ended well: nothing there takes them, or their allocation ended too soon.
        starts, ends: of each job.
    """

    makespan_s: float = 0.0
    node_s: float = 0.0
    busy_s: float = 0.0
    spans: list[Span] = field(default_factory=list)
    unfinished: list[int] = field(default_factory=list)
    starts: dict[int, float] = field(default_factory=dict)
    ends: dict[int, float] = field(default_factory=dict)

    @property
    def idle_share(self) -> float:
        """Share of the nodes' time that no job held."""
        return 1.0 - self.busy_s / self.node_s if self.node_s else 0.0

    @property
    def batch_jobs(self) -> int:
        """Batch jobs that started."""
        return sum(span.start_s < inf for span in self.spans)
