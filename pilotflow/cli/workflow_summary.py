"""How a run went: a table, what failed with the last lines of its stderr, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from shlex import quote
from typing import Any, Final

from pilotflow.cli.layout import print_table
from pilotflow.core.job_states import JobState
from pilotflow.units import format_duration
from pilotflow.workflow.history import Counts, History, Summary

FAILURES_SHOWN: Final = 5
TAIL_LINES: Final = 5
_SHOWN: Final = (
    JobState.COMPLETED,
    JobState.FAILED,
    JobState.TERMINATED,
    JobState.CANCELLED,
    JobState.PENDING_FAILED,
    JobState.RUNNING,
    JobState.PENDING,
    JobState.READY,
    JobState.BLOCKED,
    JobState.UNINITIALIZED,
    JobState.DISABLED,
)
_WORDS: Final = {JobState.UNINITIALIZED: "not begun", JobState.PENDING: "queued", JobState.PENDING_FAILED: "to repair"}
STAGES_SHOWN: Final = 30


def word_of(state: JobState) -> str:
    """A state for people."""
    return _WORDS.get(state, state.word)


def in_words(counts: Counts) -> str:
    """How many are in which state, most important first."""
    return ", ".join(f"{counts.of[state]:,} {word_of(state)}" for state in _SHOWN if counts.of.get(state))


def as_data(history: History, summary: Summary) -> dict[str, Any]:
    """The same for programs; only more may come into it."""
    return {
        "run": summary.number,
        "name": summary.name,
        "directory": str(history.directory),
        "state": summary.state,
        "reason": summary.words or None,
        "jobs": {state.word: summary.counts.of.get(state, 0) for state in JobState},
        "total": summary.counts.total,
        "stages": [
            {"name": stage.name, "total": stage.total, "jobs": {state.word: count for state, count in stage.of.items()}}
            for stage in summary.stages
        ],
        "began": summary.began,
        "ended": summary.ended,
        "work_s": summary.worked_s,
        "programs": summary.lives,
        "pid": summary.pid if summary.state == "running" else None,
        "host": summary.host,
        "warnings": history.warnings(),
    }


def print_summary(history: History, summary: Summary) -> None:
    """Print it."""
    from rich.console import Console

    console = Console(highlight=False)
    for line in _head(summary):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)
    if 1 < len(summary.stages) <= STAGES_SHOWN and summary.counts.total > len(summary.stages):
        print()
        print_stages(console, summary)
    for text in history.warnings():
        console.print(f"Warning: {text}", markup=False, soft_wrap=not console.is_terminal)
    if summary.state in ("failed", "interrupted", "infrastructure", "died"):
        _print_failures(history, summary)


def _head(summary: Summary) -> Iterator[str]:
    how = {"died": "has died, its program is gone", "new": "has not been started"}.get(summary.state, summary.state)
    if summary.state in ("succeeded", "failed", "running"):
        how = f"is {summary.state}" if summary.state == "running" else f"has {summary.state}"
    elif summary.state == "interrupted":
        how = f"was {summary.words}"
    elif summary.words:
        how += f" ({summary.words})" if summary.state != "died" else ""
    yield (f"Run {summary.number} of '{summary.name}' {how}: {in_words(summary.counts)}.")
    if summary.began is not None:
        began = f"{datetime.fromtimestamp(summary.began).astimezone():%Y-%m-%d %H:%M:%S}"
        took = "" if summary.ended is None else f" and took {format_duration(round(summary.ended - summary.began, 1))}"
        yield (f"It began on {began}{took}; its jobs worked {format_duration(round(summary.worked_s, 1))} together.")


def print_stages(console: Any, summary: Summary) -> None:
    """Print how each stage stands."""
    used = [state for state in _SHOWN if summary.counts.of.get(state)]
    header = ("stage", "jobs", *(word_of(state) for state in used))
    rows = [
        (stage.name, f"{stage.total:,}", *(f"{stage.of.get(state, 0):,}" for state in used)) for stage in summary.stages
    ]
    print_table(console, header, rows, range(1, len(header)))


def _print_failures(history: History, summary: Summary) -> None:
    failed = [
        job
        for state in (JobState.FAILED, JobState.TERMINATED, JobState.PENDING_FAILED)
        if summary.counts.of.get(state)
        for job in history.select(state.word)[: FAILURES_SHOWN + 1]
        if state is not JobState.FAILED
        or history.database.execute("SELECT state FROM jobs WHERE job = ?", (job,)).fetchone()[0] == state
    ]
    numbers = sorted(set(failed))[:FAILURES_SHOWN]
    count = sum(summary.counts.of.get(s, 0) for s in (JobState.FAILED, JobState.TERMINATED, JobState.PENDING_FAILED))
    if numbers:
        print()
    for line in history.jobs(numbers):
        code = "" if line.exit_code is None else f", exit code {line.exit_code}"
        print(f"{line.name} {word_of(line.state)} (attempt {line.attempt}{code}):")
        tail = line.words.splitlines()[-TAIL_LINES:] or ["(it wrote nothing to stderr)"]
        for text in tail:
            print(f"    {text}")
        print(f"    see: pilotflow logs {summary.number} {quote(line.name)}")
    if count > len(numbers):
        print(f"... and {count - len(numbers):,} more: pilotflow jobs {summary.number} --jobs failed")
    print()
    if summary.state == "failed":
        print(f"To run what failed again: pilotflow rerun {summary.number} --failed")
    else:
        print(f"To go on with it: pilotflow resume {summary.number}")
