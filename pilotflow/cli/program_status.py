"""`pilotflow status` of a Python program's run: what it is doing, asked of its interchange."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from pilotflow.cli.blocks import ask_blocks, awaited
from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.core.pace import Counts, parts_of
from pilotflow.errors import PilotflowError, RunClosed
from pilotflow.messages.control import StatusReport
from pilotflow.messages.records import BlockLoad, ExecutorLoad
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.control import ask_status
from pilotflow.runtime.past_run import counts_so_far, past_run
from pilotflow.units import counted, format_duration

TIMEOUT_S: Final = 5.0
_KEY_WIDTH: Final = 14
_EXECUTORS: Final = ("executor", "tasks waiting", "handed out", "slots")
_BLOCKS: Final = ("block", "managers", "handed out", "slots", "state")
_NUMBERS: Final = (1, 2, 3)
"""Columns of both tables that are numbers."""


def show_status(connection_file: Path, as_json: bool) -> None:
    """Ask the interchange of a run how it is, and print the answer; if it is over, what its record says.

    Raises:
        RunClosed: the run is over, and keeps no record.
        InfrastructureError: it does not answer.
    """
    connection = read_connection(connection_file)
    try:
        report = ask_status(connection, TIMEOUT_S)
    except RunClosed:
        from pilotflow.cli.program_summary import FAILURES_SHOWN, print_past_run

        directory = connection_file.parent
        past = past_run(directory / "run.db", FAILURES_SHOWN)
        if past is None:
            raise
        print_past_run(directory, connection.run_id, past, as_json=as_json)
        return
    ended = counts_so_far(connection_file.parent / "run.db")
    if as_json:
        data = {
            "run_id": report.run_id,
            "directory": connection.directory,
            "state": "running",
            "interchange_pid": report.pid,
            "tasks": ended and {"done": ended.done, "failed": ended.failed, "cancelled": ended.cancelled},
            "executors": [msgspec.structs.asdict(load) for load in report.executors],
            "blocks": [msgspec.structs.asdict(block) for block in report.blocks],
            "dropped_messages": report.dropped,
        }
        print(json.dumps(data, indent=2))
    else:
        _print(connection, report, ended)


def _print(connection: Connection, report: StatusReport, ended: Counts | None) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    pairs = [("run", report.run_id), ("run directory", connection.directory)]
    pairs.append(("processes", f"program {connection.client_pid}, interchange {report.pid}"))
    if ended is not None and ended.ended:
        pairs.append(("tasks so far", ", ".join(parts_of(ended, 0.0))))
    if report.dropped:
        pairs.append(("dropped", f"{counted(report.dropped, 'message')} that could not be understood"))
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
