"""What follows from what has happened, and is done when that is committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pilotflow.futures import AppFuture


@dataclass
class Due:
    """What is to be done after the commit.

    Attributes:
        batches: results that managers may forget then.
        submit: jobs that are handed out.
        cancel: futures of jobs that were cancelled.
        answers: whatever else.
    """

    batches: list[tuple[int, int]] = field(default_factory=list)
    submit: list[int] = field(default_factory=list)
    cancel: list[AppFuture[Any]] = field(default_factory=list)
    answers: list[Callable[[], object]] = field(default_factory=list)
