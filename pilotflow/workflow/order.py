"""The order that dependencies leave: levels of jobs, or a cycle that leaves none.

Jobs that depend on the same jobs share one tuple (`Job.depends_on`), which counts as one step between them, so
that a barrier of 10,000 jobs before 10,000 others costs 20,000 edges.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilotflow.workflow.records import Job


def levels(jobs: Sequence[Job]) -> list[int]:
    """How many jobs must at least have run one after another before each job; jobs in a cycle have -1."""
    groups = {id(job.depends_on): job.depends_on for job in jobs if job.depends_on}
    followers: dict[int, list[int]] = {key: [] for key in groups}
    groups_of: dict[int, list[int]] = {}
    for key, group in groups.items():
        for index in group:
            groups_of.setdefault(index, []).append(key)
    for job in jobs:
        if job.depends_on:
            followers[id(job.depends_on)].append(job.index)
    missing = {key: len(group) for key, group in groups.items()}
    level = [-1] * len(jobs)
    ready = [job.index for job in jobs if not job.depends_on]
    depth = 0
    while ready:
        following = list[int]()
        for index in ready:
            level[index] = depth
            for key in groups_of.get(index, ()):
                missing[key] -= 1
                if not missing[key]:
                    following += followers[key]
        ready, depth = following, depth + 1
    return level


def cycle(jobs: Sequence[Job], level: Sequence[int]) -> list[int]:
    """Jobs that each depend on the next, and the last on the first; none if there is no cycle.

    Args:
        jobs: all jobs.
        level: their levels.
    """
    start = next((index for index, depth in enumerate(level) if depth < 0), None)
    if start is None:
        return []
    way, seen, here = list[int](), dict[int, int](), start
    while here not in seen:
        seen[here] = len(way)
        way.append(here)
        # A job without a level has a dependency without one.
        here = next(index for index in jobs[here].depends_on if level[index] < 0)
    return way[seen[here] :]
