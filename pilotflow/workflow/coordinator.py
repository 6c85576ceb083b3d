"""The program that has a run: it makes one, goes on with one, or does so in the background.

    python -m pilotflow.workflow.coordinator RUN_DIRECTORY

At any time one program has a run, by a lock on `coordinator.lock`. When it dies, the run is as the store
says, and `go_on` takes it over: with its interchange and managers, if they live, or without them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from pilotflow.config.here import effective_here, within_policy
from pilotflow.config.model import Config
from pilotflow.errors import ConfigError, InfrastructureError, PilotflowError, RunClosed
from pilotflow.runtime import leftovers, rundir
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.control import ask_status
from pilotflow.runtime.pythons import this_python
from pilotflow.runtime.store import cannot_make
from pilotflow.runtime.tails import tail
from pilotflow.workflow.deeds import Deeds
from pilotflow.workflow.engine import Engine
from pilotflow.workflow.holding import holder, is_held, lock
from pilotflow.workflow.inbox import Stop
from pilotflow.workflow.options import RunOptions
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.rows import FILE
from pilotflow.workflow.setting import Setting
from pilotflow.workflow.store import JobStore, read_definition, restore
from pilotflow.workflow.supplies import Supplies

SUCCEEDED: Final = 0
JOBS_FAILED: Final = 1
INFRASTRUCTURE: Final = 3
INTERRUPTED: Final = 130
LOG: Final = "coordinator.log"
INTERCHANGE_TIMEOUT_S: Final = 10.0
"""An interchange that does not answer within this time is ended, and what it held runs again."""
START_TIMEOUT_S: Final = 60.0


def create(workflow: Workflow, options: RunOptions, base: Path) -> Path:
    """Make the run directory of a workflow, of which nothing has run; returns it.

    Raises:
        ConfigError: it cannot be made.
    """
    directory, run_id = rundir.make(base)
    (directory / "jobs").mkdir(exist_ok=True)
    log, handler = rundir.open_log(directory)
    facts = [
        ("kind", "workflow"),
        ("run_id", run_id),
        ("name", workflow.name),
        ("home", os.getcwd()),
        ("file", os.path.abspath(workflow.path)),
        ("options", msgspec.json.encode(options).decode()),
        ("created", str(time.time())),
    ]
    try:
        store = JobStore(directory, log)
        store.create(workflow, facts)
        store.close(10.0)
    except (sqlite3.Error, OSError) as error:
        shutil.rmtree(directory, ignore_errors=True)  # nothing has run in it
        raise ConfigError(f"{cannot_make(directory / FILE, error)}.") from None
    finally:
        log.removeHandler(handler)
        handler.close()
    return directory


def go_on(directory: Path, beside: Callable[[Engine], contextlib.AbstractContextManager[object]] | None = None) -> int:
    """Run what is left of a run; returns the exit code.

    Args:
        directory: the run directory.
        beside: entered with the engine while it works: what shows it to somebody.

    Raises:
        ConfigError: another program has it, or it is no workflow's.
        InfrastructureError: its store cannot be written.
    """
    with lock(directory):
        log, handler = rundir.open_log(directory)
        try:
            store = JobStore(directory, log)
            try:
                return _live(directory, store, log, beside)
            finally:
                store.close(10.0)
        except sqlite3.Error as error:
            words = f"Run {directory.name} has ended early: {directory / FILE} cannot be written: {error}."
            log.error("%s", words)
            raise InfrastructureError(
                f"{words} Free space there, then go on: pilotflow resume {directory.name}. What is recorded as "
                "finished is not repeated."
            ) from None
        finally:
            log.removeHandler(handler)
            handler.close()


def _live(
    directory: Path,
    store: JobStore,
    log: logging.Logger,
    beside: Callable[[Engine], contextlib.AbstractContextManager[object]] | None,
) -> int:
    with closing(sqlite3.connect(directory / FILE)) as database:
        workflow = read_definition(database)
        facts = dict(database.execute("SELECT key, value FROM run"))
        restored = restore(database)
        last = database.execute("SELECT epoch, host, ended FROM lives ORDER BY life DESC LIMIT 1").fetchone()
    if last is not None and last[2] is None and last[1] != socket.gethostname():
        raise ConfigError(
            f"Run {directory.name} was last seen on host {last[1]}, and it did not end there. Resume it on that host: "
            "its processes may be running."
        )
    setting = _setting(directory, workflow, facts, last, log)
    life = store.begin_life(setting.epoch, os.getpid(), socket.gethostname())
    log.info("program %d has run %s, life %d, epoch %d", os.getpid(), directory.name, life, setting.epoch)
    os.chdir(setting.home)
    with Deeds(setting, log) as deeds:
        engine = Engine(setting, store, restored, log, deeds.perform)
        deeds.tell = engine.inbox.put
        with _signals(engine), beside(engine) if beside is not None else contextlib.nullcontext():
            engine.live()
    code, how = _judge(engine)
    store.end_life(life, how)
    log.info("program %d is done with run %s: %s", os.getpid(), directory.name, how)
    return code


def _setting(
    directory: Path,
    workflow: Workflow,
    facts: Mapping[str, str],
    last: tuple[int, str, float | None] | None,
    log: logging.Logger,
) -> Setting:
    """Where and how the workflow runs in this life: with an interchange that is still there, or with one to start.

    Args:
        facts: what the store says of the run.
        last: epoch, host and end of its last life, if it had any.
    """
    options = msgspec.json.decode(facts["options"], type=RunOptions)
    before = _connection_of(directory, facts["run_id"])
    died = last is not None and last[2] is None
    found = _living_interchange(before, facts["run_id"], options.keep_s, log) if died else 0
    epoch = max(last[0] if last is not None else 0, before.epoch if before is not None else 0) + (not found)
    supplies = Supplies(workflow, options, _site_config(options))
    return Setting(
        workflow=workflow,
        directory=directory,
        run_id=facts["run_id"],
        number=directory.name,
        home=Path(facts["home"]),
        supplies=supplies,
        config=within_policy(
            supplies.config(), supplies.most_blocks(), supplies.origins(), is_own=options.settings is None
        ),
        keep_s=options.keep_s,
        open=options.open or not (options.local or options.slurm),
        auto_recover=options.auto_recover,
        epoch=epoch,
        interchange=before if found else None,
        interchange_pid=found,
        reunites=died and (found > 0 or options.keep_s > 0),
    )


def _site_config(options: RunOptions) -> Config | None:
    """The configuration of the site, if it is to be used."""
    if options.settings is None:
        return None
    found = effective_here(options.settings, "{option}")
    return None if found is None or found.site is None else found.config


def _judge(engine: Engine) -> tuple[int, str]:
    if engine.trouble is not None:
        return INFRASTRUCTURE, f"infrastructure: {engine.trouble}"
    if engine.stopped is not None:
        return INTERRUPTED, engine.stopped
    return (SUCCEEDED, "succeeded") if engine.graph.has_succeeded else (JOBS_FAILED, "failed")


def _connection_of(directory: Path, run_id: str) -> Connection | None:
    """How the run's last interchange is or was reached."""
    with contextlib.suppress(ConfigError):
        connection = read_connection(directory / "connection.json")
        return connection if connection.run_id == run_id else None
    return None


def _living_interchange(connection: Connection | None, run_id: str, keep_s: float, log: logging.Logger) -> int:
    """The pid of a dead program's interchange, if it can be taken over, or 0; what cannot is ended.

    Managers look for its successor. They and their blocks are left alone, unless they were told to end with it.
    """
    try:
        if connection is not None:
            return ask_status(connection, INTERCHANGE_TIMEOUT_S).pid
    except RunClosed:
        pass
    except InfrastructureError as error:
        log.warning("%s", error)
    if keep_s > 0:
        leftovers.end_interchange_of(run_id, log)
    else:
        leftovers.end_those_of(run_id, log)
    return 0


@contextmanager
def _signals(engine: Engine) -> Iterator[None]:
    """Signals end the program in order; the run can be resumed."""

    def stop(number: int, _: object) -> None:
        engine.inbox.put(Stop(f"interrupted by {signal.Signals(number).name}"))

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# ---- in the background ----------------------------------------------------------------------


def detach(directory: Path) -> int:
    """Have another process go on with the run, one that survives logout; returns its pid once it has it.

    Raises:
        InfrastructureError: it does not come up, with what it has printed.
        ConfigError: another program has the run.
    """
    if is_held(directory):
        with lock(directory):  # says who has it
            pass
    output = directory / LOG
    with output.open("ab") as file:
        process = subprocess.Popen(
            this_python().argv("pilotflow.workflow.coordinator", str(directory)),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, **rundir.import_path()},
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        held = holder(directory)
        if held is not None and held.pid == process.pid and _has_begun(directory, process.pid):
            return process.pid
        if process.poll() is not None:
            if _has_begun(directory, process.pid):
                return process.pid  # it was a short one
            break
        time.sleep(0.05)
    lines = tail(output) or "(it printed nothing)"
    raise InfrastructureError(f"The program of run {directory.name} does not come up. It said:\n{lines}")


def _has_begun(directory: Path, pid: int) -> bool:
    try:
        with closing(
            sqlite3.connect(f"{(directory / FILE).absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        ) as database:
            return database.execute("SELECT 1 FROM lives WHERE pid = ?", (pid,)).fetchone() is not None
    except sqlite3.Error:
        return False


def main() -> int:
    """Go on with a run in the background."""
    try:
        return go_on(Path(sys.argv[1]))
    except PilotflowError as error:
        sys.stderr.write(f"{error}\n")
        return INFRASTRUCTURE if isinstance(error, InfrastructureError) else 2
    except KeyboardInterrupt:  # before the run had begun, or when it was over
        return INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
