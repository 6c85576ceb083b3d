"""Which actions of a workflow have fired, and which are being carried out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from pilotflow.core.triggers import Moment
from pilotflow.core.triggers import Trigger as JobsTrigger
from pilotflow.workflow.records import Action, Trigger

_MOMENTS: Final = {Trigger.ON_JOBS_READY: Moment.READY, Trigger.ON_JOBS_COMPLETE: Moment.COMPLETE}
_OF_WORKERS: Final = (Trigger.ON_WORKER_START, Trigger.ON_WORKER_COMPLETE)


class ActionBook:
    """The actions of one run.

    Args:
        actions: the workflow's.
        fired: of each that has fired, whether it was carried out, as the store knows it.
    """

    def __init__(self, actions: Sequence[Action], fired: Mapping[int, bool]) -> None:
        self._actions = actions
        self._fired = set(fired)
        self._running = Counter(number for number, done in fired.items() if not done)

    @property
    def running(self) -> list[int]:
        """Those that have begun and not ended."""
        return sorted(self._running.elements())

    @property
    def done(self) -> list[int]:
        """Those that have fired and were carried out."""
        return sorted(self._fired - set(self._running.elements()))

    def job_triggers(self) -> list[JobsTrigger]:
        """What the graph of jobs is to watch for."""
        return [
            JobsTrigger(number, moment, action.jobs, fired=number in self._fired)
            for number, action in enumerate(self._actions)
            if (moment := _MOMENTS.get(action.trigger)) is not None
        ]

    def due(self, trigger: Trigger) -> list[int]:
        """Those whose moment has come: each once, but persistent ones for every worker."""
        return [
            number
            for number, action in enumerate(self._actions)
            if action.trigger is trigger
            and (number not in self._fired or (action.persistent and trigger in _OF_WORKERS))
        ]

    def begin(self, number: int) -> None:
        """It is being carried out."""
        self._fired.add(number)
        self._running[number] += 1

    def end(self, number: int) -> None:
        """It was carried out."""
        self._running[number] = max(0, self._running[number] - 1)
