"""Commands that run workflows: start, resume, attach, cancel."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from pilotflow.cli.create import partitions_of
from pilotflow.cli.live import Live
from pilotflow.cli.runs import find_directory
from pilotflow.cli.workflow_summary import as_data, print_summary
from pilotflow.errors import ConfigError
from pilotflow.units import parse_duration
from pilotflow.workflow.coordinator import SUCCEEDED, create, detach, go_on
from pilotflow.workflow.engine import Engine
from pilotflow.workflow.history import open_history
from pilotflow.workflow.holding import is_held
from pilotflow.workflow.options import RunOptions
from pilotflow.workflow.orders import order_cancel
from pilotflow.workflow.spec import read_workflow

GIB: Final = 1 << 30
_CODES: Final = {"succeeded": 0, "failed": 1, "infrastructure": 3, "interrupted": 130}

Options = tuple[int | None, float | None, int | None, int | None, bool, str, bool]
"""Cores, GiB, GPUs, jobs at once, nothing here, how long to keep results, help by itself: of the command line."""


def start(path: Path, options: Options, base: Path, *, detached: bool, as_json: bool) -> int:
    """Run a workflow; returns the exit code.

    Raises:
        ConfigError: anything is wrong with the file or the options; nothing was started.
    """
    workflow = read_workflow(path, partitions=partitions_of(None))
    for warning in workflow.warnings:
        sys.stderr.write(f"{workflow.where(warning.at)}: warning: {warning.text}\n")
    directory = create(workflow, parse_options(options), base)
    return begin(directory, detached=detached, as_json=as_json)


def parse_options(options: Options) -> RunOptions:
    """What the command line says.

    Raises:
        ConfigError: a duration is none.
    """
    cpus, memory_gb, gpus, depth, no_local, keep, auto_recover = options
    return RunOptions(
        num_cpus=cpus,
        memory_bytes=None if memory_gb is None else int(memory_gb * GIB),
        num_gpus=gpus,
        max_parallel_jobs=depth,
        local=not no_local,
        auto_recover=auto_recover,
        keep_s=parse_duration(keep),
    )


def resume_run(run: str, base: Path, *, detached: bool, as_json: bool) -> int:
    """Go on with a run; returns the exit code."""
    return begin(find_directory(run, base), detached=detached, as_json=as_json)


def begin(directory: Path, *, detached: bool, as_json: bool) -> int:
    """Go on with a run, here or in the background, and say how it went; returns the exit code."""
    if detached:
        pid = detach(directory)
        name = directory.name
        if as_json:
            print(json.dumps({"run": name, "directory": str(directory), "pid": pid}))
        else:
            print(f"Run {name} goes on in the background (pid {pid}, {directory}).")
            print(f"See it with `pilotflow attach {name}` or `pilotflow status {name}`.")
        return SUCCEEDED

    def beside(_: Engine) -> AbstractContextManager[object]:
        return Live(directory, quiet=as_json)

    code = go_on(directory, beside)
    _finish(directory, as_json=as_json)
    return code


def attach_to(run: str, base: Path, *, as_json: bool) -> int:
    """Show a run until it ends; returns the exit code of its end.

    Raises:
        ConfigError: it is not running, and has not ended.
    """
    directory = find_directory(run, base)
    with Live(directory, quiet=as_json):
        while is_held(directory):
            time.sleep(0.2)
    return _finish(directory, as_json=as_json)


def _finish(directory: Path, *, as_json: bool) -> int:
    with open_history(directory) as history:
        summary = history.summary()
        if as_json:
            print(json.dumps(as_data(history, summary), indent=2))
        else:
            print_summary(history, summary)
    if summary.state in ("died", "new") and not as_json:
        sys.stderr.write(f"Go on with it: pilotflow resume {summary.number}\n")
    return _CODES.get(summary.state, 3)


def cancel_run(run: str, selector: str | None, base: Path, *, as_json: bool) -> None:
    """Cancel jobs of a run.

    Raises:
        ConfigError: the run is not running, or the selector selects nothing.
    """
    directory = find_directory(run, base)
    with open_history(directory) as history:
        numbers = history.select(selector) if selector is not None else None
        state = history.summary(stages=False).state
    if state != "running":
        raise ConfigError(f"Run {directory.name} is not running (it is {state}); there is nothing to cancel.")
    count = order_cancel(directory, numbers)
    if as_json:
        print(json.dumps({"run": directory.name, "cancelled": count}))
    else:
        print(f"{count:,} jobs of run {directory.name} cancelled.")
