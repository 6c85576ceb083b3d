"""`pilotflow resources`: what jobs asked for and what they used, as a table, as JSON, as an HTML page."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.cli.runs import find_directory
from pilotflow.errors import ConfigError
from pilotflow.units import counted, format_duration, format_memory
from pilotflow.workflow.history import open_history
from pilotflow.workflow.usage import StageUse, Usage, Use, read_usage
from pilotflow.workflow.usage_page import core_time, page, percent

SHOWN: Final = 40


def show_resources(run: str, base: Path, *, output: Path | None, as_json: bool) -> None:
    """Print what a run's jobs asked for and have used; write the page, if a file is named.

    Raises:
        ConfigError: there is no such run, nothing has ended there, or the file cannot be written.
    """
    directory = find_directory(run, base)
    with open_history(directory) as history:
        usage = read_usage(history)
    if not usage.uses:
        raise ConfigError(f"No job of run {directory.name} has ended yet, so nothing is known of what it uses.")
    if output is not None:
        try:
            output.write_text(page(usage), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{output}: cannot be written: {error.strerror}.") from None
    if as_json:
        print(json.dumps(_as_data(usage), indent=2))
    else:
        _print(usage)
    if output is not None:
        sys.stderr.write(f"written: {output}\n")


def _print(usage: Usage) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    print(f"Run {usage.run} of '{usage.name}', {counted(len(usage.uses), 'attempt')}\n")
    stages = usage.stages()
    header = ("entry", "attempts", "cores", "busy", "memory", "peak", "of it", "runtime", "longest", "")
    print_table(console, header, [_row(one) for one in stages[:SHOWN]], range(1, 9))
    if len(stages) > SHOWN:
        print(f"and {len(stages) - SHOWN:,} more; `--json` has all of them.")
    print()
    held, busy = (part / usage.core_s if usage.core_s else None for part in (usage.asked_core_s, usage.used_core_s))
    rows = [
        ("cores there", core_time(usage.core_s)),
        ("held by jobs", percent(held)),
        ("kept busy", percent(busy)),
    ]
    print_pairs(console, rows, 14)
    if any(one.verdicts for one in stages):
        print("\nover: more than was asked for; under: less than half of it.")
        print(f"`pilotflow correct WORKFLOW --from {usage.run}` says what would be right.")


def _row(one: StageUse) -> tuple[str, ...]:
    request = one.request
    return (
        one.name,
        f"{one.attempts:,}",
        f"{request.cpus_milli / 1000:g}",
        f"{one.cores_mean:.2f}" if one.cores_mean is not None else "-",
        format_memory(request.memory_bytes) if request.memory_bytes else "-",
        format_memory(one.memory_peak) if one.memory_peak else "-",
        percent(one.memory_share),
        format_duration(request.runtime_s) if request.runtime_s is not None else "-",
        format_duration(round(one.longest_s, 1) or round(one.longest_s, 3)),
        ", ".join(one.verdicts),
    )


def _as_data(usage: Usage) -> dict[str, Any]:
    return {
        "run": usage.run,
        "workflow": usage.name,
        "seconds": usage.seconds,
        "core_s": {"there": usage.core_s, "asked": usage.asked_core_s, "busy": usage.used_core_s},
        "nodes": [
            {"node": span.node, "cores": span.cores, "start_s": span.start_s, "end_s": span.end_s}
            for span in usage.nodes
        ],
        "entries": [{"entry": one.name, "attempts": one.attempts, **_shares(one)} for one in usage.stages()],
        "jobs": [_job(use) for use in usage.uses],
    }


def _shares(one: StageUse) -> dict[str, Any]:
    return {
        "num_cpus": one.request.cpus_milli / 1000,
        "cores_mean": one.cores_mean,
        "memory_bytes": one.request.memory_bytes or None,
        "peak_bytes": one.memory_peak,
        "runtime_s": one.request.runtime_s,
        "longest_s": one.longest_s,
        "memory_share": one.memory_share,
        "cpu_share": one.cpu_share,
        "runtime_share": one.runtime_share,
        "verdicts": _verdicts(one.verdicts),
    }


def _job(use: Use) -> dict[str, Any]:
    return {
        "job": use.job + 1,
        "name": use.name,
        "attempt": use.attempt,
        "how": use.how,
        "node": use.node,
        "waited_s": use.waited_s,
        "start_s": use.start_s,
        "seconds": use.seconds,
        "num_cpus": use.request.cpus_milli / 1000,
        "cores": use.cores,
        "memory_bytes": use.request.memory_bytes or None,
        "peak_bytes": use.peak_bytes or None,
        "runtime_s": use.request.runtime_s,
        "memory_share": use.memory_share,
        "cpu_share": use.cpu_share,
        "runtime_share": use.runtime_share,
        "verdicts": _verdicts(use.verdicts),
    }


def _verdicts(words: Sequence[str]) -> dict[str, str]:
    pairs = (word.partition(" ") for word in words)
    return {what: verdict for what, _, verdict in pairs}
