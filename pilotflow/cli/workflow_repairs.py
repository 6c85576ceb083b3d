"""Commands that repair runs: rerun, recover, correct."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from pilotflow.cli.layout import print_table
from pilotflow.cli.runs import find_directory
from pilotflow.cli.workflow_runs import begin
from pilotflow.core.advice import Fact, fitting
from pilotflow.errors import ConfigError
from pilotflow.resources import Request
from pilotflow.units import counted, format_duration, format_memory
from pilotflow.workflow.history import History, open_history
from pilotflow.workflow.holding import is_held
from pilotflow.workflow.options import RunOptions
from pilotflow.workflow.recovering import Recovery, plan_recovery, write_requests
from pilotflow.workflow.repair import Rerun, apply, plan_changed, plan_failed, plan_jobs
from pilotflow.workflow.rows import FILE
from pilotflow.workflow.spec import read_workflow
from pilotflow.workflow.store import JobStore
from pilotflow.workflow.usage import MEASURED_S

SHOWN: Final = 20


def rerun_run(
    run: str,
    base: Path,
    *,
    failed: bool,
    selector: str | None,
    file: Path | None,
    dry_run: bool,
    detached: bool,
    as_json: bool,
) -> int:
    """Run a part of a run again; returns the exit code.

    Raises:
        ConfigError: the run is running, or nothing is to run again.
    """
    directory = _at_rest(run, base)
    with open_history(directory) as history:
        if failed:
            plan = plan_failed(history)
        elif selector is not None:
            plan = plan_jobs(history, history.select(selector))
        else:
            facts = history.facts()
            path = file or Path(facts["file"])
            new = read_workflow(path) if path.exists() else None
            plan = plan_changed(history, new, Path(facts["home"]))
    if not plan.jobs:
        raise ConfigError(f"Nothing of run {directory.name} has changed or failed; nothing is to run again.")
    if dry_run or not as_json:
        _show_plan(plan, as_json=as_json and dry_run)
    if dry_run:
        return 0
    with closing(_store(directory)) as store:
        apply(store, plan, directory)
    return begin(directory, detached=detached, as_json=as_json)


def _show_plan(plan: Rerun, *, as_json: bool) -> None:
    names = {job: plan.workflow.jobs[job].name for job in plan.jobs}
    if as_json:
        data = [{"job": job + 1, "name": name, "why": plan.why.get(job)} for job, name in names.items()]
        print(json.dumps(data, indent=2))
        return
    rows = [(name, plan.why.get(job, "it depends on one of these")) for job, name in names.items()][:SHOWN]
    print(f"{len(plan.jobs):,} of {len(plan.workflow.jobs):,} jobs run again:")
    print_table(_console(), ("job", "because"), rows)
    if len(names) > SHOWN:
        print(f"... and {len(names) - SHOWN:,} more")
    print(flush=True)


def recover_run(
    run: str, base: Path, *, dry_run: bool, retry_unknown: bool, auto: bool, detached: bool, as_json: bool
) -> int:
    """Repair what failed for lack of memory or time, or with its node, and run it again; returns the exit code.

    Raises:
        ConfigError: the run is running, or nothing of it can be helped.
    """
    directory = _at_rest(run, base)
    with open_history(directory) as history:
        recovery = plan_recovery(history, retry_unknown=retry_unknown)
        plan = plan_jobs(history, [one.job for one in recovery.helped])
    if dry_run or not as_json:
        _show_recovery(recovery, as_json=as_json and dry_run)
    if not recovery.helped:
        why = "nothing of it has failed" if not recovery.left else "no failure of it is one of memory, time or nodes"
        raise ConfigError(
            f"Run {directory.name} cannot be recovered: {why}."
            + (" Use --retry-unknown to run those again as they are." if recovery.left else "")
        )
    if dry_run:
        return 0
    with closing(_store(directory)) as store:
        write_requests(store, recovery)
        if auto:
            _set_auto(store, directory)
        apply(store, plan, directory)
    return begin(directory, detached=detached, as_json=as_json)


def _set_auto(store: JobStore, directory: Path) -> None:
    with open_history(directory) as history:
        options = msgspec.json.decode(history.facts()["options"], type=RunOptions)
    text = msgspec.json.encode(msgspec.structs.replace(options, auto_recover=True)).decode()

    def write(database: sqlite3.Connection) -> None:
        database.execute("UPDATE run SET value = ? WHERE key = 'options'", (text,))

    store.commit(write)


def _show_recovery(recovery: Recovery, *, as_json: bool) -> None:
    if as_json:
        data = {
            "again": [
                {"job": one.job + 1, "name": one.name, "kind": one.advice.kind, "why": one.advice.why}
                | _asked(one.advice.request)
                for one in recovery.helped
            ],
            "left": [{"job": one.job + 1, "name": one.name, "why": one.advice.why} for one in recovery.left],
            "alike": len(recovery.alike),
        }
        print(json.dumps(data, indent=2))
        return
    rows = [(one.name, one.advice.kind, one.advice.why) for one in recovery.helped][:SHOWN]
    rows += [(one.name, "left as it is", one.advice.why) for one in recovery.left][: SHOWN - len(rows)]
    if rows:
        print_table(_console(), ("job", "failed for", "what changes"), rows)
    if (more := len(recovery.helped) + len(recovery.left) - len(rows)) > 0:
        print(f"... and {more:,} more")
    if recovery.alike:
        print(f"{counted(len(recovery.alike), 'job')} with the same requirements, not run yet, will ask for the same.")
    if rows:
        print(flush=True)


def _asked(request: Request | None) -> dict[str, Any]:
    if request is None:
        return {}
    amounts = {"memory_bytes": request.memory_bytes, "runtime_s": request.runtime_s}
    return {"num_cpus": request.cpus_milli / 1000, **amounts}


def correct(file: Path, run: str, base: Path, *, output: Path | None, as_json: bool) -> None:
    """Say, or write, what each resource requirement of a workflow should be by what its jobs have used.

    Raises:
        ConfigError: no job of the run that ended well has one of these requirements.

    If all of them are right already, that is said.
    """
    from pilotflow.workflow.reading import read_file

    with open_history(find_directory(run, base)) as history:
        fits = _fitting(history)
    if not fits:
        raise ConfigError(
            "No job of that run that has ended well names one of the workflow's `resource_requirements`, so there is "
            f"nothing to correct. `pilotflow resources {run}` shows what its jobs have used."
        )
    changes = {name: pair for name, pair in fits.items() if pair[0] != pair[1]}
    if not changes and not as_json:
        print("What the workflow says of its resource requirements is right, by what that run has used.")
    elif as_json:
        data = {name: {"was": _asked(was), "is": _asked(now)} for name, (was, now) in changes.items()}
        print(json.dumps(data, indent=2))
    else:
        rows = [(name, *_words(was), *_words(now)) for name, (was, now) in changes.items()]
        kinds = ("cores", "memory", "runtime")
        header = ("requirement", *kinds, *(f"right {kind}" for kind in kinds))
        print_table(_console(), header, rows, range(1, len(header)))
    if output is None:
        return
    import yaml

    value = read_file(os.fspath(file)).value
    for entry in value.get("resource_requirements", ()):
        _, now = changes.get(entry.get("name"), (None, None))
        if now is not None:
            entry["memory"] = f"{-(-now.memory_bytes // (1 << 20))}m" if now.memory_bytes else entry.get("memory")
            if now.runtime_s is not None:
                entry["runtime"] = f"PT{-(-int(now.runtime_s) // 60)}M"
            if now.cpus_milli % 1000 == 0:
                entry["num_cpus"] = now.cpus_milli // 1000
    with output.open("w", encoding="utf-8") as target:
        yaml.safe_dump(value, target, sort_keys=False, allow_unicode=True, width=120)
    sys.stderr.write(f"written: {output}\n")


def _fitting(history: History) -> dict[str, tuple[Request, Request]]:
    """Of each requirement that was measured what it says, and what would be right."""
    workflow = history.workflow()
    facts: dict[str, list[Fact]] = {}
    asked: dict[str, Request] = {}
    for row in history.results(history.select("completed")):
        name = workflow.jobs[row.job].requirements
        if name is not None and row.how == "completed":
            asked[name] = workflow.jobs[row.job].request
            cores = row.cpu_us / row.duration_us if row.duration_us >= MEASURED_S * 1e6 else 0.0
            facts.setdefault(name, []).append(Fact("", 0, row.peak_bytes, row.duration_us / 1e6, cores))
    return {name: (asked[name], fitting(asked[name], found)) for name, found in facts.items()}


def _words(request: Request) -> Sequence[str]:
    memory = format_memory(request.memory_bytes) if request.memory_bytes else "-"
    runtime = format_duration(request.runtime_s) if request.runtime_s is not None else "-"
    return f"{request.cpus_milli / 1000:g}", memory, runtime


def _at_rest(run: str, base: Path) -> Path:
    directory = find_directory(run, base)
    if is_held(directory):
        raise ConfigError(
            f"Run {directory.name} is running. Wait for it, or end it: pilotflow cancel {directory.name}."
        )
    return directory


def _store(directory: Path) -> _Closing:
    if not (directory / FILE).exists():
        raise ConfigError(f"{directory} is not a run directory: it has no {FILE}.")
    return _Closing(directory, logging.getLogger("pilotflow.repair"))


class _Closing(JobStore):
    """A store that is closed without a limit."""

    def close(self, timeout_s: float = 30.0) -> bool:
        return super().close(timeout_s)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)
