"""What becomes of a task that fails: whether it is tried again, and when."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.units import kind, show

BACKOFF_MAX_S: Final = 3600.0
"""The longest pause that growing pauses come to."""
UNLIMITED: Final = 10**9
"""Retries of a task whose handler alone decides."""
_PARTS: Final = 16
"""What is left of a timeout is counted in so many parts of it, so that few request classes are made."""


@dataclass(frozen=True)
class Policy:
    """How a task's failures are dealt with.

    Attributes:
        retries: how often it is tried again after an error of its own.
        backoff_s: pause before the first retry; each further one is twice as long.
        handler: called with the error and the number of tries made; what it returns is `pause_s`'s verdict.
        timeout_s: how long it may run, all its attempts together.
        allow_failed: it runs even if tasks that it needs have failed, and gets their exceptions.
    """

    retries: int = 0
    backoff_s: float = 0.0
    handler: Callable[[BaseException, int], object] | None = None
    timeout_s: float | None = None
    allow_failed: bool = False


def pause_s(policy: Policy, tries: int, verdict: object = True) -> float | None:
    """Seconds until a task is tried again, or None if it is not.

    Args:
        policy: the task's.
        tries: how often it was tried.
        verdict: what its handler said: whether to try again, or in how many seconds.

    Raises:
        ConfigError: the handler has said something else.
    """
    if verdict is False or verdict is None:
        return None
    if verdict is True:
        return min(policy.backoff_s * 2.0 ** min(tries - 1, 60), max(policy.backoff_s, BACKOFF_MAX_S))
    if isinstance(verdict, (int, float)) and 0 <= verdict < math.inf:
        return float(verdict)
    raise ConfigError(
        f"a retry_handler returns whether the task is tried again, or in how many seconds; not {show(verdict)}, "
        f"which is {kind(verdict)}"
    )


def left_s(policy: Policy, used_s: float) -> float | None:
    """What is left of the task's timeout, rounded up; 0 if nothing is, None if it has none."""
    if policy.timeout_s is None:
        return None
    part = policy.timeout_s / _PARTS
    return max(0.0, math.ceil((policy.timeout_s - used_s) / part - 1e-9) * part)
