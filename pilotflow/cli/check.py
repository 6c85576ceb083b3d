"""`pilotflow check`: what a configuration file means, as a table or as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import Any

from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.config.file import load_config
from pilotflow.config.here import origins_in, within_policy
from pilotflow.config.model import Config, ExecutorConfig, ThreadExecutorConfig
from pilotflow.config.plugins import name_of
from pilotflow.errors import ConfigError
from pilotflow.providers.base import Provider
from pilotflow.units import counted, format_duration, format_memory

_IN_TABLE = {field.name for field in dataclasses.fields(Provider)} - {"worker_init", "parallelism"}
_KEY_WIDTH = 20
_LOCATED = re.compile(r":(?P<line>[0-9]+):(?P<column>[0-9]+): (?P<message>.*)")


def check_as_text(path: str) -> None:
    """Print what a configuration file means, for people.

    Raises:
        ConfigError: it is wrong; everything that is, by line and column.
    """
    from rich.console import Console

    config = _allowed(path)
    console = Console(highlight=False)
    console.print(f"{path} is a valid configuration.\n", style="green", markup=False, soft_wrap=True)
    header = ("executor", "provider", "blocks", "nodes", "walltime", "workers", "launcher")
    print_table(console, header, [_row(executor) for executor in config.executors])
    print()
    for rows in (_more(config), _run(config)):
        print_pairs(console, rows, _KEY_WIDTH)
        print()


def check_as_json(path: str) -> bool:
    """Print what a configuration file means, or its problems, as JSON; False if it has some."""
    try:
        config = _allowed(path)
    except ConfigError as error:
        problems = [_problem(line, path) for line in str(error).splitlines()]
        print(json.dumps({"valid": False, "file": path, "problems": problems}, indent=2))
        return False
    print(json.dumps({"valid": True, "file": path, "config": _as_data(config)}, indent=2, default=str))
    return True


def _allowed(path: str) -> Config:
    """The configuration in a file, as this machine's admins allow it."""
    return within_policy(load_config(path), None, origins_in(path))


def _problem(line: str, path: str) -> dict[str, Any]:
    match = _LOCATED.fullmatch(line.removeprefix(path))
    if match is None:
        return {"line": None, "column": None, "message": line}
    return {"line": int(match["line"]), "column": int(match["column"]), "message": match["message"]}


def _row(executor: ExecutorConfig | ThreadExecutorConfig) -> tuple[str, ...]:
    if isinstance(executor, ThreadExecutorConfig):
        return (
            executor.label,
            "threads of the program",
            "none",
            "",
            "no limit",
            counted(executor.max_threads, "thread"),
            "",
        )
    provider = executor.provider
    walltime_s = provider.walltime_s
    if executor.max_parallel_jobs is not None:
        workers = f"{executor.max_parallel_jobs} at once"
    else:
        workers = str(executor.max_workers_per_node or "one per core")
    return (
        executor.label,
        name_of(type(provider)),
        f"{provider.init_blocks} ({provider.min_blocks} to {provider.max_blocks})",
        str(provider.nodes_per_block),
        "no limit" if walltime_s is None else format_duration(walltime_s),
        workers,
        name_of(type(executor.launcher)),
    )


def _more(config: Config) -> list[tuple[str, str]]:
    """What the table has no column for, of each executor."""
    rows = list[tuple[str, str]]()
    for executor in config.block_executors:
        provider = executor.provider
        blocks = f"starts with {counted(provider.init_blocks, 'block')} of {counted(provider.nodes_per_block, 'node')}"
        rows.append((executor.label, f"{blocks}, then {provider.min_blocks} to {provider.max_blocks} by load"))
        nodes = provider.max_blocks * provider.nodes_per_block
        slots = executor.max_parallel_jobs or executor.max_workers_per_node
        most = counted(nodes * slots, "task") if slots else f"all cores of {counted(nodes, 'node')}"
        how = "whatever they ask for" if executor.max_parallel_jobs else "as requests fit"
        rows.append(("", f"runs at most {most} at once, {how}"))
        rows += [("", text) for text in _on_nodes(executor)]
        extra = [(key, value) for key, value in _given(provider).items() if key not in _IN_TABLE]
        extra += [(f"launcher.{key}", value) for key, value in _given(executor.launcher).items()]
        rows += [("", f"{key}: {_one_line(value)}") for key, value in extra]
    others = "work that is bound to it" if config.block_executors else "everything, whatever it asks for"
    for threads in config.thread_executors:
        rows.append(
            (threads.label, f"runs at most {counted(threads.max_threads, 'task')} at once, in this program: {others}")
        )
    return rows


def _given(record: object) -> dict[str, Any]:
    """The public fields that are not as they would be anyway."""
    values = _fields(record)
    if values:
        assert dataclasses.is_dataclass(record)
        usual = {field.name: field.default for field in dataclasses.fields(record)}
        return {key: value for key, value in values.items() if value != usual[key]}
    return values


def _on_nodes(executor: ExecutorConfig) -> list[str]:
    """How tasks are placed, how nodes find this machine, and their Python, where that is not as usual."""
    texts = {
        "slurm": "each task is a step of its own, started by srun",
        "auto": "each task is a step of its own where blocks are jobs of Slurm, else managers run them",
    }
    found = [texts[executor.mode]] if executor.mode in texts else []
    if executor.address is not None:
        found.append(f"nodes reach this machine by {executor.address}")
    if executor.stage_env:
        where = "a directory of the nodes" if executor.stage_env is True else f"{executor.stage_env} on the nodes"
        found.append(f"this Python environment is brought to {where}")
    elif not executor.activate:
        found.append("managers are started with the python3 that worker_init finds")
    return found


def _run(config: Config) -> list[tuple[str, str]]:
    remote = any(executor.address or executor.provider.elsewhere for executor in config.block_executors)
    if not (config.tcp or remote):
        links = "Unix sockets, in a directory only you can enter"
    elif config.encrypted:
        links = "TCP, encrypted and authenticated with CURVE"
    else:
        links = "TCP WITHOUT PROTECTION: whoever reaches the port can run code as you"
    retries = "none" if config.retries == 0 else f"{config.retries} after errors of its own"
    if config.backoff_s:
        retries += f", the first after {format_duration(config.backoff_s)}"
    again = "never run again" if config.crash_limit == 1 else f"run at most {config.crash_limit} times"
    return [
        ("run directories", os.path.join(os.fspath(config.run_dir), "NNNN")),
        ("retries of a task", retries),
        ("after lost workers", f"a task is {again}"),
        ("idle blocks", f"end after {format_duration(config.max_idletime_s)}"),
        ("silent processes", f"are given up after {format_duration(config.heartbeat_limit_s)}"),
        ("links", links),
        ("largest value", format_memory(config.max_frame_bytes)),
        ("run store", "run.db" if config.store else "none"),
    ]


def _one_line(value: object) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _fields(record: object) -> dict[str, Any]:
    """The public fields of a provider or launcher; none if it is no dataclass."""
    if not dataclasses.is_dataclass(record):
        return {}
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.init}


def _as_data(config: Config) -> dict[str, Any]:
    data = _fields(config)
    data["run_dir"] = os.fspath(config.run_dir)
    data["executors"] = [
        {
            **_fields(executor),
            "provider": {"type": name_of(type(executor.provider)), **_fields(executor.provider)},
            "launcher": {"type": name_of(type(executor.launcher)), **_fields(executor.launcher)},
        }
        if isinstance(executor, ExecutorConfig)
        else _fields(executor)
        for executor in config.executors
    ]
    return data
