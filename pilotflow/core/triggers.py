"""What fires when a workflow's jobs have come so far: the moments that its actions wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from pilotflow.core.job_states import COMPLETE, JobState

_NOT_READY = (JobState.UNINITIALIZED, JobState.BLOCKED, JobState.CANCELLED, JobState.DISABLED)


class Moment(Enum):
    """What a trigger waits for, of all its jobs."""

    READY = auto()
    COMPLETE = auto()


@dataclass
class Trigger:
    """Something to fire once all of these jobs have come so far.

    A job that is cancelled will never be ready and is not waited for; but somebody must become ready.

    Attributes:
        number: the caller's name for it.
        moment: how far.
        jobs: which.
    """

    number: int
    moment: Moment
    jobs: tuple[int, ...]
    missing: set[int] = field(default_factory=set)
    any_reached: bool = False
    fired: bool = False


class Triggers:
    """Which triggers wait for which jobs, and which have fired.

    Args:
        triggers: them; those that have fired are left alone.
        states: where each job is now.
    """

    def __init__(self, triggers: Iterable[Trigger], states: Sequence[JobState]) -> None:
        self._of_job: dict[int, list[Trigger]] = {}
        self._fired: list[int] = []
        for trigger in triggers:
            if trigger.fired:
                continue
            trigger.missing = set(trigger.jobs)
            for job in trigger.jobs:
                self._of_job.setdefault(job, []).append(trigger)
            for job in trigger.jobs:
                self._count(trigger, job, states[job])

    def take_fired(self) -> list[int]:
        """Numbers of triggers that have fired since the last call."""
        fired, self._fired = self._fired, []
        return fired

    def see(self, job: int, state: JobState) -> None:
        """A job has come to this state."""
        for trigger in self._of_job.get(job, ()):
            self._count(trigger, job, state)

    def _count(self, trigger: Trigger, job: int, state: JobState) -> None:
        if trigger.fired:
            return
        if trigger.moment is Moment.COMPLETE:
            reached = passed = state in COMPLETE
        else:
            reached = state not in _NOT_READY
            passed = reached or state is JobState.CANCELLED
        if passed:
            trigger.missing.discard(job)
            trigger.any_reached = trigger.any_reached or reached
        if not trigger.missing and trigger.any_reached:
            trigger.fired = True
            self._fired.append(trigger.number)
