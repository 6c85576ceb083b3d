"""What each job depends on, in the end: named, matched, and through the files and user data between them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import force_setattr

from pilotflow.workflow.findings import Findings
from pilotflow.workflow.jobs import Awaited
from pilotflow.workflow.names import Names
from pilotflow.workflow.order import cycle, levels
from pilotflow.workflow.records import Job

_MAX_CYCLE_SHOWN = 8


def producers(jobs: Sequence[Job], count: int, key: str) -> list[tuple[int, ...]]:
    """For each of `count` files or user data, the jobs that write it.

    Args:
        jobs: all jobs.
        count: how many there are.
        key: `output_files` or `output_user_data`.
    """
    made: list[list[int]] = [[] for _ in range(count)]
    for job in jobs:
        for index in getattr(job, key):
            made[index].append(job.index)
    return [tuple(each) for each in made]


class Dependencies:
    """Gives jobs their `depends_on`; jobs that depend on the same jobs get the same tuple."""

    def __init__(
        self,
        jobs: Sequence[Job],
        awaited: Sequence[Awaited | None],
        names: Names,
        writers: tuple[Sequence[tuple[int, ...]], Sequence[tuple[int, ...]]],
        findings: Findings,
    ) -> None:
        self._jobs = jobs
        self._awaited = awaited
        self._names = names
        self._writers = writers
        self._findings = findings
        self._made: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._same: dict[tuple[int, ...], tuple[int, ...]] = {}

    def settle(self) -> None:
        """Give every job its dependencies. The jobs are still ours alone, so that frozen records may change."""
        for job, awaited in zip(self._jobs, self._awaited, strict=True):
            if awaited is None and not job.input_files and not job.input_user_data:
                continue
            # Copies share these objects, and all of them are alive: their ids tell them apart, for little.
            key = (id(awaited), id(job.input_files), id(job.input_user_data))
            group = self._made.get(key)
            if group is None:
                group = self._made[key] = self._all_of(job, awaited)
            if job.index in group:
                group = self._without(job, awaited, group)
            if group:
                force_setattr(job, "depends_on", group)

    def _all_of(self, job: Job, awaited: Awaited | None) -> tuple[int, ...]:
        found = set[int]()
        if awaited is not None:
            for place, name in enumerate(awaited.names):
                index = self._names.find(name, (*awaited.path, "depends_on", place))
                found.update(() if index is None else (index,))
            for place, pattern in enumerate(awaited.regexes):
                found.update(self._names.matching(pattern, (*awaited.path, "depends_on_regexes", place)))
        for inputs, writers in zip((job.input_files, job.input_user_data), self._writers, strict=True):
            for index in inputs:
                found.update(writers[index])
        return self._shared(tuple(sorted(found)))

    def _without(self, job: Job, awaited: Awaited | None, group: tuple[int, ...]) -> tuple[int, ...]:
        """The group without the job itself, which a regular expression or a file of its own brought in."""
        if awaited is not None and job.name in awaited.names:
            place = awaited.names.index(job.name)
            self._findings.error(
                (*awaited.path, "depends_on", place), f"job '{job.name}' depends on itself.", about="self"
            )
        return self._shared(tuple(index for index in group if index != job.index))

    def _shared(self, group: tuple[int, ...]) -> tuple[int, ...]:
        return self._same.setdefault(group, group)


def check_for_cycles(jobs: Sequence[Job], paths: Sequence[tuple[str | int, ...]], findings: Findings) -> list[int]:
    """An error that shows the first cycle as a path, if there is one; the level of each job otherwise.

    Args:
        jobs: all jobs.
        paths: where the entry of each stage is.
        findings: where the error goes.
    """
    level = levels(jobs)
    way = cycle(jobs, level)
    if way:
        shown = [jobs[index].name for index in way]
        if len(shown) > _MAX_CYCLE_SHOWN:
            shown = [*shown[: _MAX_CYCLE_SHOWN - 1], f"({len(shown) - _MAX_CYCLE_SHOWN + 1} more)"]
        path = " needs ".join([*shown, jobs[way[0]].name])
        findings.error(paths[jobs[way[0]].stage], f"these jobs wait for each other: {path}.")
    return level
