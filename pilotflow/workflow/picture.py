"""The graph of a workflow as something to draw: its jobs, or its stages where jobs are too many to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pilotflow.workflow.order import levels
from pilotflow.workflow.records import Job, Workflow

MOST_JOBS: Final = 150
"""With more jobs than this each stage is one node."""
MOST_EDGES: Final = 2_000


@dataclass(frozen=True)
class Node:
    """A job or a stage.

    Attributes:
        name: what it is called.
        count: how many jobs it stands for.
        level: how many steps come before it.
        note: what else to say, such as what it needs.
    """

    name: str
    count: int
    level: int
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """Nodes in the order of the file, and the edges between them, as pairs of their indices."""

    title: str
    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]


def picture_of(workflow: Workflow, by: str = "auto") -> Picture:
    """What to draw.

    Args:
        workflow: the workflow.
        by: `job`, `stage`, or `auto`: jobs if they can be seen, else stages.
    """
    if by == "auto":
        edges = sum(len(job.depends_on) for job in workflow.jobs) if len(workflow.jobs) <= MOST_JOBS else 0
        by = "job" if len(workflow.jobs) <= MOST_JOBS and edges <= MOST_EDGES else "stage"
    return _of_jobs(workflow) if by == "job" else _of_stages(workflow)


def _of_jobs(workflow: Workflow) -> Picture:
    level = levels(workflow.jobs)
    nodes = tuple(Node(job.name, 1, level[job.index], job.requirements or "") for job in workflow.jobs)
    edges = tuple((other, job.index) for job in workflow.jobs for other in job.depends_on)
    return Picture(workflow.name, nodes, edges)


def _of_stages(workflow: Workflow) -> Picture:
    level = levels(workflow.jobs)
    counts, first = [0] * len(workflow.stages), [-1] * len(workflow.stages)
    needs = [""] * len(workflow.stages)
    for job in workflow.jobs:
        counts[job.stage] += 1
        needs[job.stage] = needs[job.stage] or job.requirements or ""
        if first[job.stage] < 0 or level[job.index] < first[job.stage]:
            first[job.stage] = level[job.index]
    nodes = tuple(Node(name, counts[index], first[index], needs[index]) for index, name in enumerate(workflow.stages))
    return Picture(workflow.name, nodes, tuple(stage_edges(workflow.jobs)))


def stage_edges(jobs: Sequence[Job]) -> list[tuple[int, int]]:
    """Which stages have jobs that depend on jobs of which others; a stage of chained jobs depends on itself."""
    before: dict[int, frozenset[int]] = {}
    edges = set[tuple[int, int]]()
    for job in jobs:
        if job.depends_on:
            group = before.get(id(job.depends_on))
            if group is None:
                group = before[id(job.depends_on)] = frozenset(jobs[index].stage for index in job.depends_on)
            edges.update((stage, job.stage) for stage in group)
    return sorted(edges)
