"""What a program is told on stderr when its run ends and something went unnoticed."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pilotflow.run import Run

SETTLED_S: Final = 0.2
"""What has ended just now is counted by then."""


def say_given_up(run: Run) -> None:
    """Say that the program ends without having waited for its tasks."""
    if not run.client.wait_idle(SETTLED_S):
        _say(
            run, "the program ends, and tasks that have not ended are given up. Leave `with pilotflow.load():` to wait."
        )


def say_unseen(run: Run, error: BaseException | None = None) -> None:
    """Say that tasks have failed, if the program has asked for the error of none.

    Args:
        run: it has ended.
        error: what has ended it, which says enough.
    """
    first = run.client.unseen_failure
    if first and error is None and run.display is None:
        failed = run.counts().failed
        tasks = "1 task has" if failed == 1 else f"{failed:,} tasks have"
        _say(run, f"{tasks} failed, and nothing has asked for a result of theirs. The first: {first}")


def _say(run: Run, text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr is closed, or there is none
        sys.stderr.write(f"pilotflow: run {run.directory.parent.name}/{run.directory.name}: {text}\n")
