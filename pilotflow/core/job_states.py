"""The states of a workflow's jobs, and what may follow what."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final


class JobState(IntEnum):
    """Where a job is in its life. The numbers are those of the run store."""

    UNINITIALIZED = 0
    BLOCKED = 1
    READY = 2
    PENDING = 3
    RUNNING = 4
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7
    TERMINATED = 8
    DISABLED = 9
    PENDING_FAILED = 10

    @property
    def word(self) -> str:
        """Its name for people and machines."""
        return self.name.lower()


S = JobState
COMPLETE: Final = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.TERMINATED})
"""What counts as ended for those that depend on it."""
ENDED: Final = COMPLETE | {S.DISABLED, S.PENDING_FAILED}
"""Nothing happens any more by itself."""
ACTIVE: Final = frozenset({S.READY, S.PENDING, S.RUNNING})

_RUN_ENDS: Final = frozenset({S.COMPLETED, S.FAILED, S.TERMINATED, S.PENDING_FAILED, S.CANCELLED})
TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = {
    S.UNINITIALIZED: frozenset({S.BLOCKED, S.READY, S.CANCELLED, S.DISABLED}),
    S.BLOCKED: frozenset({S.READY, S.CANCELLED, S.DISABLED}),
    S.READY: frozenset({S.PENDING, S.CANCELLED, S.DISABLED}),
    S.PENDING: frozenset({S.RUNNING, S.READY}) | _RUN_ENDS,  # a short job is never seen running
    S.RUNNING: frozenset({S.READY, S.PENDING}) | _RUN_ENDS,  # ready: another try; pending: its worker was lost
    S.COMPLETED: frozenset({S.UNINITIALIZED}),  # what is uninitialized again will run again
    S.FAILED: frozenset({S.UNINITIALIZED}),
    S.CANCELLED: frozenset({S.UNINITIALIZED}),
    S.TERMINATED: frozenset({S.UNINITIALIZED}),
    S.DISABLED: frozenset({S.UNINITIALIZED}),
    S.PENDING_FAILED: frozenset({S.UNINITIALIZED, S.FAILED}),
}
"""What may follow what. Nothing else is ever written."""
