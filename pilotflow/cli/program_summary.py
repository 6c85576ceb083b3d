"""`pilotflow status` of a Python program's run that is over: how it went, by its record."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.core.pace import parts_of
from pilotflow.runtime.past_run import Failure, PastRun
from pilotflow.units import counted, format_duration

FAILURES_SHOWN: Final = 5
LINES_SHOWN: Final = 6
_FUNCTIONS_SHOWN: Final = 20
_KEY_WIDTH: Final = 16


def print_past_run(directory: Path, run_id: str, run: PastRun, *, as_json: bool) -> None:
    """Print how it went, what failed first, and where its logs are."""
    if as_json:
        print(json.dumps(_as_data(directory, run_id, run), indent=2))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for line in _head(directory.name, run):
        console.print(line, markup=False, soft_wrap=not console.is_terminal)
    if run.functions:
        print()
        _print_functions(console, run)
    for failure in run.failures:
        print(f"\n{failure.name or 'Some task'} (task {failure.task}):")
        print("\n".join(f"    {line}" for line in _first_and_last(failure)))
    if more := run.counts.failed - len(run.failures):
        print(f"\n... and {counted(more, 'more failure')}.")
    if run.failures:
        print(f"\nHow one task ended: pilotflow explain {directory.name} {run.failures[0].task}")
    print()
    print_pairs(console, _places(directory), _KEY_WIDTH)


def _head(name: str, run: PastRun) -> list[str]:
    counts = ", ".join(parts_of(run.counts, 0.0)) if run.counts.ended else "no tasks"
    match run.state:
        case "died":
            first = f"Run {name} has died, its program (pid {run.pid}) is gone. On record as ended: {counts}."
        case "ending":
            first = f"Run {name} is ending, its program (pid {run.pid}) is there, and nobody answers: {counts} so far."
        case _:
            first = f"Run {name} has ended: {counts}."
    if run.began is None:
        return [first]
    second = f"It began on {datetime.fromtimestamp(run.began).astimezone():%Y-%m-%d %H:%M:%S}"
    if run.ended is not None:
        took = _duration(max(0.0, run.ended - run.began))
        second += f", and the last of it is from {took} later" if run.state == "died" else f" and took {took}"
    return [first, f"{second}; its tasks worked {_duration(run.work_s)} together."]


def _duration(seconds: float) -> str:
    return format_duration(round(seconds, 1) if seconds >= 1 else seconds)


def _print_functions(console: Any, run: PastRun) -> None:
    keys = ["done", *(key for key in ("failed", "cancelled") if any(getattr(each, key) for each in run.functions))]
    rows = [
        (each.name, *(f"{getattr(each, key):,}" for key in keys), _duration(each.work_s))
        for each in run.functions[:_FUNCTIONS_SHOWN]
    ]
    print_table(console, ("function", *keys, "work"), rows, range(1, len(keys) + 2))
    if more := len(run.functions) - len(rows):
        print(f"... and {counted(more, 'more function')}.")


def _first_and_last(failure: Failure) -> list[str]:
    lines = [line for line in failure.words.splitlines() if line.strip()] or ["(nothing is recorded of why)"]
    return lines if len(lines) <= LINES_SHOWN else [lines[0], "...", *lines[2 - LINES_SHOWN :]]


def _places(directory: Path) -> list[tuple[str, str]]:
    where = [("log", "pilotflow.log"), ("logs of blocks", "blocks"), ("output of tasks", "tasks"), ("record", "run.db")]
    return [(key, str(directory / name)) for key, name in where if _has_something(directory / name)]


def _has_something(path: Path) -> bool:
    try:
        return bool(os.listdir(path)) if path.is_dir() else path.exists()
    except OSError:
        return False


def _as_data(directory: Path, run_id: str, run: PastRun) -> dict[str, Any]:
    """The same for programs; only more may come into it."""
    return {
        "run_id": run_id,
        "directory": str(directory),
        "state": run.state,
        "pid": run.pid,
        "began": run.began,
        "ended": run.ended,
        "tasks": {"done": run.counts.done, "failed": run.counts.failed, "cancelled": run.counts.cancelled},
        "work_s": run.work_s,
        "functions": [each._asdict() for each in run.functions],
        "failures": [each._asdict() for each in run.failures],
        "log": str(directory / "pilotflow.log"),
    }
