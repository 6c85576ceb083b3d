"""The run that apps submit to."""

from __future__ import annotations

import os
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pilotflow.errors import RunClosed

if TYPE_CHECKING:
    from pilotflow.run import Run

_runs: list[weakref.ref[Run]] = []
"""Open runs, the current one last. The only state of this kind: apps must find their run."""

BODY_OF: ContextVar[Run | None] = ContextVar("pilotflow_body_of", default=None)
"""In the body of a task that runs in this program, the task's run: its apps submit there, whatever was loaded since."""


def make_current(run: Run) -> None:
    """Have apps submit to this run, until it is closed or another one is made current."""
    _runs.append(weakref.ref(run))


def no_longer_current(run: Run) -> None:
    """The run is closed."""
    _runs[:] = [ref for ref in _runs if ref() not in (None, run)]


def current_run() -> Run:
    """The run that apps submit to: the last one loaded and not closed.

    Raises:
        RunClosed: there is none.
    """
    if len(_runs) > 1 and (own := BODY_OF.get()) is not None and own.is_open:
        return own
    for ref in reversed(_runs):
        run = ref()
        if run is not None and run.is_open:
            return run
    if any(run is not None and run.pid != os.getpid() for run in (ref() for ref in _runs)):
        raise RunClosed("This process was forked from the one that loaded the run; load a run of its own here.")
    raise RunClosed("There is no run to submit to. Call apps inside `with pilotflow.load(): ...`.")
