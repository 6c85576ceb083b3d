"""Which way to ask for nodes suits a workflow: all that are worth it are tried in simulated time, and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from statistics import fmean
from typing import Final

from pilotflow.core.job_states import JobState
from pilotflow.core.planning import END_MARGIN_S, forecast
from pilotflow.core.planning_records import Forecast, World
from pilotflow.errors import ConfigError
from pilotflow.units import counted
from pilotflow.workflow.history import History
from pilotflow.workflow.records import DEFAULT_RUNTIME_S, Mode, Workflow
from pilotflow.workflow.schemes import Ask, Place, Scheme, schemes

NEAR: Final = 1.1
"""What is cheaper and takes at most so many times as long as the fastest is recommended instead of it."""
WALLTIME_MARGIN: Final = 1.2
BLOCK_START_S: Final = 1.0
"""From the start of a batch job to its first job: managers start and register. Measured on nodes with local disks."""
JOB_START_S: Final = 0.05
STEP_START_S: Final = 0.3
"""What each job takes beside its own time where it is a step that srun places."""
MANY_JOBS: Final = 20_000
"""With so many jobs fewer ways are compared."""

Wait = Callable[[Ask], float]
"""Says how long a batch job waits in the queue."""


@dataclass(frozen=True)
class Durations:
    """How long jobs take.

    Attributes:
        seconds: of each.
        source: in words, where that comes from.
    """

    seconds: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Choice:
    """One way, and what would come of it.

    Attributes:
        scheme: how nodes are asked for, with walltimes that are enough.
        forecast: what comes of it.
        waits_s: of each kind of batch job, in the queue.
    """

    scheme: Scheme
    forecast: Forecast
    waits_s: tuple[float, ...]

    @property
    def node_hours(self) -> float:
        """Hours of all nodes."""
        return self.forecast.node_s / 3600

    @property
    def cost(self) -> float:
        """The same in the site's unit."""
        spans = self.forecast.spans
        asks = self.scheme.asks
        return sum(
            (span.end_s - span.start_s) * asks[span.kind].nodes * asks[span.kind].place.charge
            for span in spans
            if span.end_s < inf
        ) / 3600  # fmt: skip

    @property
    def is_complete(self) -> bool:
        """Whether all jobs get done."""
        return not self.forecast.unfinished


@dataclass(frozen=True)
class Plan:
    """What was compared.

    Attributes:
        choices: those that get everything done, the best first, then the others.
        best: the one to take; None if none gets everything done.
        why: in words, why that one.
    """

    choices: tuple[Choice, ...]
    best: Choice | None
    why: str


def written_durations(workflow: Workflow) -> Durations:
    """How long jobs take by what their requirements say: the whole `runtime`."""
    runtimes = [job.request.runtime_s for job in workflow.jobs]
    silent = sum(runtime is None for runtime in runtimes)
    seconds = tuple(DEFAULT_RUNTIME_S if runtime is None else runtime for runtime in runtimes)
    source = "each job takes the whole `runtime` of its requirements"
    return Durations(seconds, source + (f"; {counted(silent, 'job')} without one: 1h each" if silent else ""))


def measured_durations(workflow: Workflow, history: History) -> Durations:
    """How long jobs took in a run; those it does not know take as long as others of their entry did.

    Raises:
        ConfigError: no job of the workflow has ended well there.
    """
    found = [line for line in history.jobs(history.select(None)) if line.state is JobState.COMPLETED]
    by_name = {line.name: line.duration_us / 1e6 for line in found if line.duration_us}
    by_stage: dict[str, list[float]] = {}
    for line in found:
        if line.duration_us:
            by_stage.setdefault(line.stage, []).append(line.duration_us / 1e6)
    usual = {stage: fmean(times) for stage, times in by_stage.items()}
    written = written_durations(workflow).seconds
    seconds: list[float] = []
    measured = guessed = 0
    for job in workflow.jobs:
        stage = usual.get(workflow.stages[job.stage])
        measured += job.name in by_name
        guessed += job.name not in by_name and stage is not None
        seconds.append(by_name.get(job.name, written[job.index] if stage is None else stage))
    if not measured and not guessed:
        raise ConfigError(
            f"Run {history.directory.name} has no jobs of workflow '{workflow.name}' that ended well, so it tells "
            "nothing about how long they take. Name another run, or leave out --from."
        )
    source = (
        f"{counted(measured, 'job')} {'takes' if measured == 1 else 'take'} as long as in run {history.directory.name}"
    )
    source += f", {guessed:,} as long as others of their entry did" if guessed else ""
    rest = len(workflow.jobs) - measured - guessed
    return Durations(tuple(seconds), source + (f", {rest:,} their whole `runtime`" if rest else ""))


def job_start_s(workflow: Workflow) -> float:
    """What each job takes beside its own time."""
    return JOB_START_S if workflow.execution.mode is Mode.DIRECT else STEP_START_S


def plan_here(workflow: Workflow, durations: Durations, here: Place) -> Plan:
    """What comes of a run on this machine alone."""
    world = World(inf, 0.0, JOB_START_S, sort_method=workflow.sort_method)
    scheme = Scheme("this machine", (Ask("local", here, 1, 1, inf),))
    choice = _choice(workflow, durations, scheme, world, lambda _: 0.0)
    return Plan((choice,), choice if choice.is_complete else None, "there is no other place")


def plan(workflow: Workflow, durations: Durations, places: Sequence[Place], wait: Wait, idle_s: float) -> Plan:
    """Compare the ways to ask for nodes.

    Args:
        workflow: what is to be run.
        durations: how long its jobs take.
        places: where nodes can be had, the cheapest first.
        wait: how long batch jobs wait in the queue.
        idle_s: batch jobs without work for so long end.
    """
    nodes = tuple((place.name, int(place.nodes)) for place in places if place.nodes < inf)
    world = World(idle_s, BLOCK_START_S, job_start_s(workflow), nodes, workflow.sort_method)
    candidates = schemes(workflow, places, few=len(workflow.jobs) > MANY_JOBS)
    choices = [_choice(workflow, durations, scheme, world, wait) for scheme in candidates]
    return _compared(choices)


def _choice(workflow: Workflow, durations: Durations, scheme: Scheme, world: World, wait: Wait) -> Choice:
    bindings = scheme.bindings(workflow)

    def tried(scheme: Scheme, waits: Sequence[float]) -> Forecast:
        kinds = [ask.allocations(wait_s) for ask, wait_s in zip(scheme.asks, waits, strict=True)]
        return forecast(workflow.jobs, durations.seconds, bindings, kinds, world)

    if scheme.name not in ("as written", "this machine"):
        first = tried(scheme, [0.0] * len(scheme.asks))
        scheme = replace(scheme, asks=tuple(_enough(ask, number, first) for number, ask in enumerate(scheme.asks)))
    waits = tuple(wait(ask) for ask in scheme.asks)
    return Choice(scheme, tried(scheme, waits), waits)


def _enough(ask: Ask, number: int, first: Forecast) -> Ask:
    """The same with the walltime that it needs."""
    spans = [span for span in first.spans if span.kind == number and span.start_s < inf]
    used = max((span.last_s - span.start_s for span in spans), default=0.0)
    needed = max([WALLTIME_MARGIN * used, *(span.needs_s for span in spans)]) + END_MARGIN_S + BLOCK_START_S
    return replace(ask, walltime_s=min(rounded_walltime(needed), ask.place.walltime_s))


def rounded_walltime(seconds: float) -> float:
    """A walltime as people ask for it: at least that long, in whole minutes, five minutes, quarters or hours."""
    unit = next(unit for most, unit in ((600, 60), (7200, 300), (8 * 3600, 900), (inf, 3600)) if seconds <= most)
    return float(ceil(seconds / unit) * unit)


def _compared(choices: Sequence[Choice]) -> Plan:
    complete = [choice for choice in choices if choice.is_complete]
    if not complete:
        return Plan(tuple(sorted(choices, key=lambda choice: len(choice.forecast.unfinished))), None, "")
    fastest = min(choice.forecast.makespan_s for choice in complete)
    near = [choice for choice in complete if choice.forecast.makespan_s <= NEAR * fastest]
    best = min(near, key=lambda one: (round(one.cost, 6), one.forecast.batch_jobs, one.forecast.makespan_s))
    rest = sorted(
        (choice for choice in complete if choice is not best), key=lambda one: (one.forecast.makespan_s, one.cost)
    )
    left = [choice for choice in choices if not choice.is_complete]
    why = "it is the fastest"
    if best.forecast.makespan_s > fastest:
        why = f"it is the cheapest of those that take at most {NEAR:g} times as long as the fastest"
    elif len(near) > 1:
        why = "it is the fastest, and none that is nearly as fast is cheaper"
    return Plan((best, *rest, *left), best, why)
