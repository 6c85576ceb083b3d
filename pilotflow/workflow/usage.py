"""What a run's jobs asked for, and what they have used; when they waited, and how busy the nodes were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import msgspec

from pilotflow.resources import Request
from pilotflow.workflow.history import History
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.store import read_requests

LOW: Final = 0.5
"""Who uses less than this share of what was asked for has asked for too much."""
HIGH_CPU: Final = 1.1
"""Who uses more than so many times the cores that were asked for takes them from others."""
MEASURED_S: Final = 1.0
"""Shorter attempts say little about cores."""


@dataclass(frozen=True)
class Use:
    """An attempt: what it asked for, and what it used.

    Attributes:
        job, name, stage, attempt, how: which, and how it ended.
        node: where; the first one of several.
        ready_s, start_s, end_s: seconds from the run's begin; it waited from ready to start.
        request: what it asked for.
        cores: that it kept busy on average; None if that was not measured.
        peak_bytes: the most memory that it was seen to use; 0 if nothing was measured.
    """

    job: int
    name: str
    stage: str
    attempt: int
    how: str
    node: str
    ready_s: float
    start_s: float
    end_s: float
    request: Request
    cores: float | None
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end_s - self.start_s

    @property
    def waited_s(self) -> float:
        """How long it was ready and did not run."""
        return max(0.0, self.start_s - self.ready_s)

    @property
    def memory_share(self) -> float | None:
        """Its peak, of the memory that it asked for."""
        asked = self.request.memory_bytes
        return self.peak_bytes / asked if asked and self.peak_bytes else None

    @property
    def cpu_share(self) -> float | None:
        """The cores that it kept busy, of those that it asked for; None if it was too short to tell."""
        if self.cores is None or not self.request.cpus_milli or self.seconds < MEASURED_S:
            return None
        return self.cores / (self.request.cpus_milli / 1000)

    @property
    def runtime_share(self) -> float | None:
        """Its time, of the `runtime` that it asked for."""
        asked = self.request.runtime_s
        return self.seconds / asked if asked and self.how == "completed" else None

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What it used too much or too little of, such as "memory over"."""
        out = []
        for what, share, high in (
            ("memory", self.memory_share, 1.0),
            ("cpu", self.cpu_share, HIGH_CPU),
            ("runtime", self.runtime_share, 1.0),
        ):
            if share is not None and (share > high or share < LOW):
                out.append(f"{what} {'over' if share > high else 'under'}")
        return tuple(out)


@dataclass(frozen=True)
class NodeSpan:
    """A manager's time: from when to when a node was there, and with how many cores."""

    node: str
    cores: float
    start_s: float
    end_s: float


@dataclass(frozen=True)
class StageUse:
    """The attempts at jobs of one entry, together; None where nothing was measured."""

    name: str
    attempts: int
    request: Request
    memory_peak: int | None
    memory_share: float | None
    cores_mean: float | None
    cpu_share: float | None
    longest_s: float
    runtime_share: float | None
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class Usage:
    """What a run has used.

    Attributes:
        run, name: its number, and the workflow's name.
        uses: all attempts that ended on a node, in the order of their starts.
        nodes: when which node was there.
        seconds: from the begin of the run to its last end.
    """

    run: str
    name: str
    uses: tuple[Use, ...]
    nodes: tuple[NodeSpan, ...]
    seconds: float

    @property
    def core_s(self) -> float:
        """Core-seconds that nodes offered."""
        return sum(span.cores * (span.end_s - span.start_s) for span in self.nodes)

    @property
    def asked_core_s(self) -> float:
        """Core-seconds that jobs held."""
        return sum(use.request.cpus_milli / 1000 * use.request.num_nodes * use.seconds for use in self.uses)

    @property
    def used_core_s(self) -> float:
        """Core-seconds that jobs kept busy, as far as it was measured."""
        return sum((use.cores or 0.0) * use.seconds for use in self.uses)

    def stages(self) -> list[StageUse]:
        """The same by entry of the file's jobs and by what was asked for, in the order of their first starts."""
        groups: dict[tuple[str, Request], list[Use]] = {}
        for use in self.uses:
            groups.setdefault((use.stage, use.request), []).append(use)
        return [_together(stage, uses) for (stage, _), uses in groups.items()]


def read_usage(history: History) -> Usage:
    """What the store knows of a run."""
    workflow = history.workflow()
    began = history.summary(stages=False).began or 0.0
    managers = dict(history.database.execute("SELECT manager, node FROM managers"))
    asked = dict(read_requests(history.database))  # the last of each job
    rows = [row for row in history.results(history.select(None)) if row.started_us]
    ends = {row.job: row.started_us / 1e6 + row.duration_us / 1e6 - began for row in rows}
    ready = _ready_times(workflow, ends)
    earlier: dict[int, float] = {}
    uses: list[Use] = []
    for row in rows:
        job = workflow.jobs[row.job]
        start = row.started_us / 1e6 - began
        end = start + row.duration_us / 1e6
        uses.append(
            Use(
                row.job,
                job.name,
                workflow.stages[job.stage],
                row.attempt,
                row.how,
                str(managers.get(row.manager, "?")),
                max(0.0, min(start, earlier.get(row.job, ready[row.job]))),
                start,
                end,
                msgspec.structs.replace(asked.get(row.job, job.request), priority=0),
                row.cpu_us / row.duration_us if row.cpu_us and row.duration_us else None,
                row.peak_bytes,
            )
        )
        earlier[row.job] = end  # another attempt waits from there
    uses.sort(key=lambda use: use.start_s)
    seconds = max((use.end_s for use in uses), default=0.0)
    nodes = tuple(_node_spans(history, began, seconds, uses))
    return Usage(history.directory.name, workflow.name, tuple(uses), nodes, max([seconds, *(n.end_s for n in nodes)]))


def _ready_times(workflow: Workflow, ends: dict[int, float]) -> list[float]:
    """When each job could have begun; jobs that wait for the same ones share a tuple, which is looked at once."""
    known: dict[int, float] = {}
    out: list[float] = []
    for job in workflow.jobs:
        key = id(job.depends_on)
        if key not in known:
            known[key] = max((ends.get(need, 0.0) for need in job.depends_on), default=0.0)
        out.append(known[key])
    return out


def _node_spans(history: History, began: float, seconds: float, uses: Sequence[Use]) -> Iterator[NodeSpan]:
    """From when to when managers were there, by the record of events; one that has left no word stays to the end."""
    cores: dict[str, float] = {}
    for node, milli in history.database.execute("SELECT node, cpus_milli FROM managers"):
        cores[node] = max(cores.get(node, 0.0), milli / 1000)
    there: dict[str, list[float]] = {}
    for _, event in history.events():
        at = max(0.0, event.time - began)
        if event.kind == "manager up":
            there.setdefault(event.subject, []).append(at)
        elif event.kind.startswith("manager ") and there.get(event.subject):
            yield NodeSpan(event.subject, cores.get(event.subject, 1.0), there[event.subject].pop(0), at)
    for node, starts in there.items():
        last = max((use.end_s for use in uses if use.node == node), default=seconds)
        for start in starts:
            yield NodeSpan(node, cores.get(node, 1.0), start, max(start, last))


def _together(name: str, uses: Sequence[Use]) -> StageUse:
    def mean(shares: Iterable[float | None]) -> float | None:
        found = [share for share in shares if share is not None]
        return fmean(found) if found else None

    peak = max(use.peak_bytes for use in uses)
    memory = max((use.memory_share or 0.0 for use in uses), default=0.0) or None
    cpu = mean(use.cpu_share for use in uses)
    runtime = max((use.runtime_share or 0.0 for use in uses), default=0.0) or None
    verdicts = []
    for what, share, high in (("memory", memory, 1.0), ("cpu", cpu, HIGH_CPU), ("runtime", runtime, 1.0)):
        if share is not None and (share > high or share < LOW):
            verdicts.append(f"{what} {'over' if share > high else 'under'}")
    return StageUse(
        name,
        len(uses),
        uses[0].request,
        peak or None,
        memory,
        mean(use.cores for use in uses if use.seconds >= MEASURED_S),
        cpu,
        max(use.seconds for use in uses),
        runtime,
        tuple(verdicts),
    )


# ---- over time ------------------------------------------------------------------------------


def over_time(intervals: Iterable[tuple[float, float, float]], until_s: float, bins: int) -> list[float]:
    """The mean in each of so many equal parts of the time of what holds from one time to another.

    Args:
        intervals: (from, to, how much).
        until_s: where the last part ends.
        bins: how many parts.
    """
    width = until_s / bins
    step, edge = [0.0] * (bins + 1), [0.0] * (bins + 1)  # what holds through whole parts, and in parts of them
    if width <= 0:
        return [0.0] * bins
    for start, end, amount in intervals:
        start, end = max(0.0, start), min(end, until_s)
        if end <= start:
            continue
        first, last = min(bins - 1, int(start / width)), min(bins - 1, int(end / width))
        if first == last:
            edge[first] += amount * (end - start) / width
            continue
        edge[first] += amount * ((first + 1) - start / width)
        edge[last] += amount * (end / width - last)
        step[first + 1] += amount
        step[last] -= amount
    out, level = [], 0.0
    for number in range(bins):
        level += step[number]
        out.append(max(0.0, level + edge[number]))
    return out


def lanes(uses: Iterable[Use]) -> tuple[list[tuple[int, Use]], int]:
    """Attempts on rows without overlap, each on the first row that is free; and how many rows that takes."""
    free: list[float] = []
    out: list[tuple[int, Use]] = []
    for use in sorted(uses, key=lambda use: use.start_s):
        row = next((row for row, end in enumerate(free) if end <= use.start_s + 1e-6), len(free))
        if row == len(free):
            free.append(0.0)
        free[row] = use.end_s
        out.append((row, use))
    return out, len(free)
