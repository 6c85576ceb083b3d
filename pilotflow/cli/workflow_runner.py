"""`pilotflow runner`: a manager added by hand, from any terminal or node that sees the run directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pilotflow.cli.runs import find_directory
from pilotflow.cli.workflow_runs import GIB, parse_amounts
from pilotflow.errors import ConfigError, PilotflowError
from pilotflow.ids import RUN_VARIABLE
from pilotflow.runtime import leftovers, rundir
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.control import ask_status
from pilotflow.runtime.manager_options import Offer, manager_argv
from pilotflow.units import format_duration
from pilotflow.workflow.history import open_history
from pilotflow.workflow.options import LOCAL

LABEL: Final = "runner"
"""Executor of runners that name no other. Jobs that are bound to nothing run anywhere."""
POLL_S: Final = 0.5
LOOK_S: Final = 2.0
LEAVE_S: Final = 10.0
END_S: Final = 10.0
"""A manager leaves so long, or less, before its time is over."""


class Offered(NamedTuple):
    """What the command line says that the runner offers, and when it leaves."""

    num_cpus: int | None
    memory_gb: float | None
    num_gpus: int | None
    resources: Sequence[str]
    max_parallel_jobs: int | None
    scheduler: str | None
    label: str | None
    time_limit_s: float | None
    idle_limit_s: float | None
    output_dir: Path | None


def run_runner(run: str, base: Path, offered: Offered) -> int:
    """Serve a run until it ends, or the runner's time or patience is over; returns the exit code.

    Raises:
        ConfigError: there is no such run, or it is not running.
    """
    directory = find_directory(run, base)
    started = time.monotonic()
    name = f"{offered.label or offered.scheduler or LABEL}-{socket.gethostname()}-{os.getpid()}"
    served = False
    while True:
        connection = _connection(directory)
        if connection is None or not _goes_on(directory):
            if served or _has_ended(directory):
                print(f"Run {directory.name} has ended.")
                return 0
            raise ConfigError(f"Run {directory.name} is not running. Start it: pilotflow resume {directory.name}.")
        if not served:
            print(f"{name} serves run {directory.name}; Ctrl-C ends it.", flush=True)
        served = True
        left_s = None if offered.time_limit_s is None else offered.time_limit_s - (time.monotonic() - started)
        if left_s is not None and left_s <= 0:
            print(f"Its time limit of {format_duration(offered.time_limit_s or 0)} is over.")
            return 0
        if _serve(directory, connection, name, offered, left_s):
            return 0


def _connection(directory: Path) -> Connection | None:
    with suppress(ConfigError):
        return read_connection(directory / "connection.json")
    return None


def _goes_on(directory: Path) -> bool:
    """Whether there is something to serve: the run's program is there, or has died and may come back."""
    with open_history(directory) as history:
        return history.summary(stages=False).state in ("running", "died")


def _has_ended(directory: Path) -> bool:
    with open_history(directory) as history:
        return history.summary(stages=False).state in ("succeeded", "failed")


def _serve(directory: Path, connection: Connection, name: str, offered: Offered, left_s: float | None) -> bool:
    """Run one manager to its end; True if the runner is to leave, too."""
    process = subprocess.Popen(
        _argv(directory, name, offered, left_s),
        env={**os.environ, **rundir.import_path(), RUN_VARIABLE: leftovers.durable_mark(connection.run_id)},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    begun = looked = time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
            now = time.monotonic()
            if offered.idle_limit_s is not None and now - looked >= LOOK_S:
                looked = now
                if _idle_s(connection, name) >= offered.idle_limit_s:
                    print(f"Nothing to do for {format_duration(offered.idle_limit_s)}: it leaves.")
                    return True
        if process.returncode == 0:
            over = left_s is not None and time.monotonic() - begun >= left_s - END_S
            print("Its time is over." if over else f"Run {directory.name} has ended.")
            return True
        time.sleep(1.0)  # the interchange is gone: its successor writes another connection file
        return False
    except KeyboardInterrupt:
        sys.stderr.write("Leaving; what runs here is handed back.\n")
        return True
    finally:
        _end(process)


def _argv(directory: Path, name: str, offered: Offered, left_s: float | None) -> list[str]:
    output = (offered.output_dir or directory / "blocks" / name).absolute()
    output.mkdir(parents=True, exist_ok=True)
    memory = None if offered.memory_gb is None else int(offered.memory_gb * GIB)
    offer = Offer(
        max_parallel_jobs=offered.max_parallel_jobs,
        num_cpus=offered.num_cpus,
        memory_bytes=memory,
        num_gpus=offered.num_gpus,
        resources=tuple(parse_amounts(offered.resources).items()),
        pin=False,  # others may be on this machine
    )
    executor = offered.label or offered.scheduler or LABEL
    if executor == LOCAL:
        raise ConfigError(f"'{LOCAL}' is the run's own executor; give the runner another label.")
    return manager_argv(directory / "connection.json", executor, name, output, offer, 1, left_s)


def _idle_s(connection: Connection, name: str) -> float:
    with suppress(PilotflowError):
        for block in ask_status(connection, 1.0).blocks:
            if block.block == name:
                return 0.0 if block.leased else block.idle_s
    return 0.0


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
