"""`pilotflow status`: what a running run is doing, asked from another terminal."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from pilotflow.cli.blocks import ask_blocks, awaited
from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.cli.runs import LAST, find_directory
from pilotflow.errors import ConfigError, PilotflowError
from pilotflow.messages import BlockLoad, ExecutorLoad, StatusReport
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.control import ask_status
from pilotflow.units import format_duration
from pilotflow.workflow.history import is_workflow

DEFAULT: Final = "runs"
TIMEOUT_S: Final = 5.0
_FILE: Final = "connection.json"
_KEY_WIDTH: Final = 14
_EXECUTORS: Final = ("executor", "tasks waiting", "handed out", "slots")
_BLOCKS: Final = ("block", "managers", "handed out", "slots", "state")
_NUMBERS: Final = (1, 2, 3)
"""Columns of both tables that are numbers."""


def show_status(run: str, base: Path, as_json: bool) -> None:
    """Ask a run how it is, and print the answer. That of a workflow is told by its store, while it runs and afterwards.

    Args:
        run: `last` or a number; a run directory, a directory of run directories (then its newest is
            meant), or a connection file.
        base: where run directories are.
        as_json: print it for programs.

    Raises:
        ConfigError: there is no run.
        RunClosed: the run is over.
        InfrastructureError: it does not answer.
    """
    where = find_directory(run, base) if run in LAST or run.isdecimal() else Path(run)
    if run == DEFAULT and base != Path(DEFAULT):
        where = base
    for directory in (where, where / "latest"):
        if is_workflow(directory):
            from pilotflow.cli.workflow_shows import show_status as show_workflow

            show_workflow(directory.resolve(), as_json=as_json)
            return
    connection = read_connection(find_run(where, "status runs/0001"))
    report = ask_status(connection, TIMEOUT_S)
    if as_json:
        data = {
            "run_id": report.run_id,
            "directory": connection.directory,
            "interchange_pid": report.pid,
            "executors": [msgspec.structs.asdict(load) for load in report.executors],
            "blocks": [msgspec.structs.asdict(block) for block in report.blocks],
            "dropped_messages": report.dropped,
        }
        print(json.dumps(data, indent=2))
    else:
        _print(connection, report)


def find_run(where: Path, example: str) -> Path:
    """The connection file that is meant.

    Args:
        where: a run directory, a directory of run directories, or a connection file.
        example: the command that is shown with a run directory if there is none.

    Raises:
        ConfigError: there is none.
    """
    candidates = (where / _FILE, where / "latest" / _FILE, where) if where.name != _FILE else (where,)
    for path in candidates:
        if path.is_file():
            return path
    if where.is_dir():
        problem = f"{where} is not the directory of a run: it has no {_FILE}."
    else:
        problem = f"There is no run directory {where}."
    raise ConfigError(f"{problem} Name one, such as `pilotflow {example}`, or call it where `runs/` is.")


def _print(connection: Connection, report: StatusReport) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    pairs = [("run", report.run_id), ("run directory", connection.directory)]
    pairs.append(("processes", f"program {connection.client_pid}, interchange {report.pid}"))
    if report.dropped:
        pairs.append(("dropped", f"{report.dropped} messages that could not be understood"))
    print_pairs(console, pairs, _KEY_WIDTH)
    print()
    if report.executors:
        print_table(console, _EXECUTORS, [_row(load) for load in report.executors], _NUMBERS)
    else:
        print("No manager has joined yet, and nothing waits.")
    if report.blocks:
        print()
        print_table(console, _BLOCKS, [_block_row(block) for block in report.blocks], _NUMBERS)
    lines: list[str] = []
    with suppress(PilotflowError):  # the program is busy or gone; the rest is known without it
        lines = awaited(ask_blocks(connection))
    if lines:
        print()
        print_pairs(console, [("awaited" if not number else "", text) for number, text in enumerate(lines)], _KEY_WIDTH)


def _row(load: ExecutorLoad) -> tuple[str, ...]:
    name = "(any)" if load.executor == "*" else load.executor
    return (name, f"{load.queued:,}", f"{load.leased:,}", f"{load.slots:,}")


def _block_row(block: BlockLoad) -> tuple[str, ...]:
    if block.leased:
        state = "finishing its tasks, then ends" if block.draining else "working"
    else:
        state = "ending" if block.draining else f"idle for {format_duration(round(block.idle_s, 1))}"
    return (block.block, f"{block.managers:,}", f"{block.leased:,}", f"{block.slots:,}", state)
