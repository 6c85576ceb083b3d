"""`pilotflow blocks`: the blocks of a running run, asked of its program from another terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import msgspec

from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.cli.runs import find_connection
from pilotflow.errors import InfrastructureError
from pilotflow.runtime.block_report import VERB, BlockLine, BlockReport, read_report
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.control import instruct
from pilotflow.units import counted, format_duration

TIMEOUT_S: Final = 5.0
_HEADER: Final = ("block", "batch id", "state", "for", "nodes", "managers", "tasks", "time left", "what is said of it")
_NUMBERS: Final = (5, 6)


def show_blocks(run: str, base: Path, as_json: bool, every: bool) -> None:
    """Ask a run for its blocks, and print them.

    Args:
        run, base: which run, and where run directories are; see `find_directory`.
        as_json: print them for programs.
        every: those that have ended, too.

    Raises:
        ConfigError: there is no run.
        RunClosed, InfrastructureError: it is over, or does not answer.
    """
    report = ask_blocks(read_connection(find_connection(run, base)))
    if as_json:
        print(json.dumps(msgspec.to_builtins(report), indent=2))
        return
    _print(report, every)


def ask_blocks(connection: Connection) -> BlockReport:
    """What a run's program says of its blocks.

    Raises:
        RunClosed, InfrastructureError: it is over, or does not answer.
    """
    text = instruct(connection, VERB, [], TIMEOUT_S)
    try:
        return read_report(text)
    except ValueError as error:
        raise InfrastructureError(f"The answer of run {connection.run_id} cannot be read: {error}.") from None


def awaited(report: BlockReport) -> list[str]:
    """A line for each block that its provider has not started, and why, and for what is in an executor's way."""
    lines = [f"{one.executor}: {one.trouble}" for one in report.executors if one.trouble]
    for one in report.blocks:
        if one.state == "suspended" or (one.state == "pending" and one.said):
            said = f": {_said(one)}" if _said(one) else ""
            lines.append(f"{one.block} ({one.batch_id}) is {one.state} for {_time(one.for_s)}{said}")
    return lines


def _print(report: BlockReport, every: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    shown = [line for line in report.blocks if every or line.state != "ended"]
    ended = len(report.blocks) - sum(line.state != "ended" for line in report.blocks)
    if shown:
        print_table(console, _HEADER, [_row(line) for line in shown], _NUMBERS)
    else:
        print("There is no block now.")
    pairs = [(one.executor, f"{one.blocks} of at most {counted(one.max_blocks, 'block')}") for one in report.executors]
    pairs += [(one.executor, one.trouble) for one in report.executors if one.trouble]
    if ended and not every:
        pairs.append(("ended", f"{ended}; see them with --all"))
    print()
    print_pairs(console, pairs, max((len(key) for key, _ in pairs), default=0) + 2)


def _row(line: BlockLine) -> tuple[str, ...]:
    return (
        line.block,
        line.batch_id or "-",
        line.state,
        _time(line.for_s),
        _nodes(line.nodes),
        str(line.managers),
        str(line.tasks),
        "-" if line.left_s is None else _time(line.left_s),
        _said(line) or "-",
    )


def _said(line: BlockLine) -> str:
    parts = [line.reason] if line.state in {"ended", "ending", "draining"} else [line.said]
    if line.state == "pending" and line.start_unix_s is not None and line.start_unix_s > time.time():
        parts.append(f"expected to start in {_time(line.start_unix_s - time.time())}")
    if line.requeues:
        parts.append("requeued once" if line.requeues == 1 else f"requeued {line.requeues} times")
    return ", ".join(filter(None, parts))


def _nodes(nodes: tuple[str, ...]) -> str:
    return ",".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if len(nodes) > 3 else "") or "-"


def _time(seconds: float) -> str:
    return format_duration(round(seconds))
