"""A run as it goes, in a terminal: a bar for each stage, rate, time left, blocks. Elsewhere, nothing until the end."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from pilotflow.core.job_states import JobState
from pilotflow.errors import PilotflowError
from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.control import ask_status
from pilotflow.units import format_duration
from pilotflow.workflow.history import Counts, History, Summary, open_history

if TYPE_CHECKING:
    from typing_extensions import Self

PERIOD_S: Final = 0.25
BLOCKS_PERIOD_S: Final = 2.0
STAGES_MAX: Final = 12
"""Bars at once; of more stages those are shown that have begun and not ended."""
RATE_WINDOW_S: Final = 30.0
_BAD: Final = (JobState.FAILED, JobState.TERMINATED, JobState.CANCELLED, JobState.PENDING_FAILED)


class Live:
    """Shows a run while the `with` block lasts, if there is a terminal.

    Args:
        directory: the run directory.
        quiet: show nothing.
    """

    def __init__(self, directory: Path, *, quiet: bool = False) -> None:
        self._directory = directory
        self._shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._past: deque[tuple[float, int]] = deque()
        self._blocks = ""
        self._blocks_at = 0.0

    def __enter__(self) -> Self:
        if self._shown:
            self._thread = threading.Thread(target=self._run, name="pilotflow-live", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        from rich.console import Console
        from rich.live import Live as Screen

        with suppress(PilotflowError), open_history(self._directory) as history:
            console = Console(stderr=True, highlight=False)
            with Screen(console=console, auto_refresh=False, transient=True) as screen:
                while not self._stop.wait(PERIOD_S):
                    screen.update(self._picture(history), refresh=True)

    def _picture(self, history: History) -> Any:
        from rich.console import Group
        from rich.text import Text

        summary = history.summary()
        now = time.monotonic()
        return Group(
            _bars(summary), Text(self._line(summary, now), style="dim"), Text(self._of_blocks(now), style="dim")
        )

    def _line(self, summary: Summary, now: float) -> str:
        """Counts, rate and time left."""
        done = summary.counts.ended
        self._past.append((now, done))
        while now - self._past[0][0] > RATE_WINDOW_S:
            self._past.popleft()
        since, before = self._past[0]
        rate = (done - before) / (now - since) if now - since >= 1.0 else 0.0
        parts = [f"{done:,} of {summary.counts.total:,} jobs have ended"]
        if rate and done < summary.counts.total:
            left = max(1.0, (summary.counts.total - done) / rate)
            parts += [
                f"{rate:,.1f}/s" if rate >= 1 else f"{60 * rate:,.1f}/min",
                f"about {format_duration(round(left))} left",
            ]
        if bad := sum(summary.counts.of.get(state, 0) for state in _BAD):
            parts.append(f"{bad:,} did not end well")
        return ", ".join(parts)

    def _of_blocks(self, now: float) -> str:
        """What runs the jobs, asked of the interchange now and then."""
        if now - self._blocks_at < BLOCKS_PERIOD_S:
            return self._blocks
        self._blocks_at = now if self._blocks.startswith("blocks") else now - BLOCKS_PERIOD_S + PERIOD_S
        with suppress(PilotflowError):
            report = ask_status(read_connection(self._directory / "connection.json"), 0.5)
            blocks = [f"{b.block}: {min(b.leased, b.slots):,} of {b.slots:,} slots busy" for b in report.blocks]
            some = "; ".join(blocks[:4]) + (f" and {len(blocks) - 4} more" if len(blocks) > 4 else "")
            self._blocks = f"blocks: {some}" if blocks else "no block is there yet"
        return self._blocks


def _bars(summary: Summary) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    stages = summary.stages
    if len(stages) > STAGES_MAX:
        begun = [stage for stage in stages if _begun(stage) > 0 and stage.ended < stage.total]
        stages = tuple(begun[:STAGES_MAX])
    table = Table.grid(padding=(0, 2))
    for stage in stages:
        running = stage.of.get(JobState.RUNNING, 0)
        notes = [f"{stage.ended:,}/{stage.total:,}"]
        if running:
            notes.append(f"{running:,} running")
        bar = ProgressBar(total=stage.total, completed=stage.ended, width=30)
        table.add_row(stage.name, bar, ", ".join(notes))
    return table


def _begun(stage: Counts) -> int:
    return stage.total - stage.of.get(JobState.BLOCKED, 0) - stage.of.get(JobState.UNINITIALIZED, 0)
