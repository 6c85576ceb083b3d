"""Commands that show runs of workflows: list, status, jobs, results, events."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pilotflow.cli.layout import print_table
from pilotflow.cli.runs import CONNECTION, find_directory, run_directories
from pilotflow.cli.workflow_summary import as_data, in_words, print_stages, word_of
from pilotflow.core.job_states import JobState
from pilotflow.errors import PilotflowError
from pilotflow.units import counted, format_duration, format_memory
from pilotflow.workflow.history import EventLine, History, Summary, is_workflow, open_history, why_damaged

if TYPE_CHECKING:
    from rich.console import Console

FOLLOW_S: Final = 0.5


def show_list(base: Path, *, as_json: bool) -> None:
    """Print the runs of workflows in a directory."""
    found: list[Summary] = []
    programs: list[str] = []
    for directory in run_directories(base):
        if is_workflow(directory):
            with open_history(directory) as history:
                found.append(history.summary(stages=False))
        elif why := why_damaged(directory):
            sys.stderr.write(f"Run {directory.name} is left out. {why}\n")
        else:
            programs.append(directory.name)
    if as_json:
        keys = ("run", "name", "state", "jobs", "began", "ended")
        data = [
            dict(zip(keys, (s.number, s.name, s.state, s.counts.total, s.began, s.ended), strict=True)) for s in found
        ]
        print(json.dumps(data, indent=2))
        return
    if not found:
        print(f"No workflow has been run in {base.absolute()}.{_of_programs(programs)}")
        return
    rows = [(s.number, s.name, s.state, f"{s.counts.total:,}", in_words(s.counts), _day(s.began)) for s in found]
    print_table(_console(), ("run", "workflow", "state", "jobs", "", "began"), rows, (3,))


def _of_programs(names: Sequence[str]) -> str:
    """That there are runs of another kind, as a sentence; empty if there are none."""
    if not names:
        return ""
    if len(names) == 1:
        return f" There is the run of a Python program: `pilotflow status {names[-1]}` tells of it."
    return f" There are {len(names):,} runs of Python programs: `pilotflow status {names[-1]}` tells of the last."


def show_status(directory: Path, *, as_json: bool) -> None:
    """Print how a run stands."""
    with open_history(directory) as history:
        summary = history.summary()
        if as_json:
            print(json.dumps(as_data(history, summary), indent=2))
            return
        words = f"{summary.state} ({summary.words})" if summary.words else summary.state
        if summary.state == "interrupted":
            words = summary.words
        print(f"Run {summary.number} of '{summary.name}': {words}")
        print(f"{counted(summary.counts.total, 'job')}: {in_words(summary.counts)}")
        if summary.began is not None:
            until = summary.ended or time.time()
            print(
                f"began {_day(summary.began)}, {format_duration(round(until - summary.began, 1))} ago"
                if summary.ended is None
                else f"began {_day(summary.began)}, took {format_duration(round(until - summary.began, 1))}"
            )
        at = summary.counts.of
        if summary.state == "running" and at.get(JobState.PENDING) and not at.get(JobState.RUNNING):
            for line in _awaited(directory):
                print(f"awaited: {line}")
        if summary.counts.total > len(summary.stages) > 1:
            print()
            print_stages(_console(), summary)


def _awaited(directory: Path) -> list[str]:
    """Blocks that a run's jobs wait for, and why; none if its program does not say."""
    from pilotflow.cli.blocks import ask_blocks, awaited  # these load what talks to runs
    from pilotflow.runtime.connection import read_connection

    try:
        return awaited(ask_blocks(read_connection(directory / CONNECTION)))
    except PilotflowError:  # it is busy, or has just ended
        return []


def show_jobs(run: str, selector: str | None, base: Path, *, as_json: bool) -> None:
    """Print jobs, each with its last attempt."""
    with open_history(find_directory(run, base)) as history:
        numbers = history.select(selector)
        if as_json:
            data = [
                {
                    "job": line.job + 1,
                    "name": line.name,
                    "stage": line.stage,
                    "state": line.state.word,
                    "attempt": line.attempt,
                    "exit_code": line.exit_code,
                    "started": line.started_us / 1e6 or None,
                    "duration_s": line.duration_us / 1e6,
                    "peak_bytes": line.peak_bytes,
                    "words": line.words,
                }
                for line in history.jobs(numbers)
            ]
            print(json.dumps(data, indent=2))
            return
        rows = [
            (
                str(line.job + 1),
                line.name,
                word_of(line.state),
                str(line.attempt or ""),
                "" if line.exit_code is None else str(line.exit_code),
                format_duration(line.duration_us / 1e6) if line.duration_us else "",
                format_memory(line.peak_bytes) if line.peak_bytes else "",
            )
            for line in history.jobs(numbers)
        ]
    if not rows:
        print("There is no such job now.")
        return
    print_table(_console(), ("job", "name", "state", "attempt", "exit code", "time", "memory"), rows, (0, 3, 4, 5, 6))


def show_results(run: str, selector: str | None, base: Path, *, as_json: bool) -> None:
    """Print all ended attempts."""
    with open_history(find_directory(run, base)) as history:
        numbers = history.select(selector)
        names = history.names(numbers)
        found = list(history.results(numbers))
        nodes = dict(history.database.execute("SELECT manager, node FROM managers"))
    if as_json:
        data: list[dict[str, Any]] = []
        for row in found:
            fields = {**row._asdict(), "job": row.job + 1, "name": names[row.job], "node": nodes.get(row.manager)}
            fields["cores"], fields["gpus"] = json.loads(row.cores), json.loads(row.gpus)
            data.append(fields)
        print(json.dumps(data, indent=2))
        return
    rows = [
        (
            str(row.job + 1),
            names[row.job],
            str(row.attempt),
            row.how,
            "" if row.exit_code is None else str(row.exit_code),
            format_duration(row.duration_us / 1e6) if row.duration_us else "",
            format_duration(row.cpu_us / 1e6) if row.cpu_us else "",
            format_memory(row.peak_bytes) if row.peak_bytes else "",
            nodes.get(row.manager, ""),
        )
        for row in found
    ]
    if not rows:
        print("No attempt at these jobs has ended.")
        return
    header = ("job", "name", "attempt", "how", "exit code", "time", "cpu time", "memory", "node")
    print_table(_console(), header, rows, (0, 2, 4, 5, 6, 7))


def show_events(run: str, base: Path, *, follow: bool, as_json: bool) -> None:
    """Print what happened to a run."""
    with open_history(find_directory(run, base)) as history:
        after = _print_events(history, 0, as_json=as_json)
        while follow and history.summary(stages=False).state == "running":
            time.sleep(FOLLOW_S)
            after = _print_events(history, after, as_json=as_json)


def _print_events(history: History, after: int, *, as_json: bool) -> int:
    for place, event in history.events(after):
        after = place
        print(json.dumps(event._asdict()) if as_json else _line(event), flush=True)
    return after


def _line(event: EventLine) -> str:
    return "  ".join(filter(None, (_day(event.time), event.kind, event.subject, event.detail)))


def _day(when: float | None) -> str:
    return "" if when is None else f"{datetime.fromtimestamp(when).astimezone():%Y-%m-%d %H:%M:%S}"


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
