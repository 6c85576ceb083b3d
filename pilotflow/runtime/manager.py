"""The manager process: its signals, its clock and its zygote around `NodeManager`.

    python -m pilotflow.runtime.manager CONNECTION_FILE --executor LABEL --block BLOCK ...

One runs on each node of a block. It forks its zygote first, then connects to the interchange,
and ends when it is told to, when its block is ended (SIGTERM), when its walltime is over, or when
the interchange stays away.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pilotflow.core.pool import Pool
from pilotflow.errors import ConfigError
from pilotflow.ids import RUN_DIRECTORY_VARIABLE
from pilotflow.runtime import limits, zygote
from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.log_files import log_to, write_in_background
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import Options, measured, read_arguments
from pilotflow.runtime.node_manager import NodeManager
from pilotflow.runtime.process_name import name_process
from pilotflow.runtime.versions import check_versions
from pilotflow.runtime.worker_files import remove_left, shorten_left
from pilotflow.runtime.workers import Workers
from pilotflow.units import counted

if TYPE_CHECKING:
    from pilotflow.runtime.followers import Followers


def drive(loop: Loop, managers: Sequence[NodeManager], log: logging.Logger, head: NodeManager | None = None) -> int:
    """Turn these managers' loop until all of them have ended; returns the exit code of the process.

    Args:
        loop: theirs.
        managers: of the nodes that this process has.
        log: of the process.
        head: the one that the others follow; they end with it.
    """
    terminated = _watch_signals(loop, managers)
    working, code = list(managers), 0
    write_in_background({log, *(manager.log for manager in managers)})
    while True:
        now = time.monotonic()
        for manager in working[:]:
            if terminated:
                manager.leave("its block was ended (SIGTERM)")
            ended = manager.turn(now)
            if ended is not None:
                manager.close()
                working.remove(manager)
                code = code or ended
                for follower in working if manager is head else ():
                    follower.leave("the manager at the head of its allocation has ended")
        if not working:
            return code
        loop.turn(min(manager.due_at(now) for manager in working) - now)


def _watch_signals(loop: Loop, managers: Sequence[NodeManager]) -> list[bool]:
    """What SIGTERM leaves word in; it is acted on between two turns.

    Whoever sends it sends it to the tasks' processes too, as a rule, and their end may be heard of first.
    """
    terminated: list[bool] = []

    def terminate(*_: object) -> None:
        terminated.append(True)
        for manager in managers:
            manager.expect_end()

    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add(read, lambda: (os.read(read, 4096), None)[1])
    return terminated


def _within_limits(options: Options, others: int = 0) -> Options:
    """The options with as many slots as the limit of open files lets be, of which others need so many.

    Raises:
        ConfigError: it does not even let the node's cores be used.
    """
    least = options.capacity.slots_of_one_core
    base = limits.MANAGER_FILES + others
    need = base + limits.FILES_PER_WORKER * least
    files = limits.raise_open_files(need, f"a manager with {counted(least, 'worker')}")
    slots = min(options.capacity.slots, (files - base) // limits.FILES_PER_WORKER)
    return dataclasses.replace(options, capacity=msgspec.structs.replace(options.capacity, slots=slots))


def _tidy(directory: str) -> zygote.Tidy:
    return zygote.Tidy(partial(remove_left, directory), partial(shorten_left, directory))


def _followers(found: argparse.Namespace, head: Options, log: logging.Logger) -> Followers | None:
    if not found.one_head:
        return None
    from pilotflow.runtime.followers import Followers  # most managers have one node, and all must start fast

    return Followers(found, head, log)


def _cannot_start(error: ConfigError, log: logging.Logger) -> int:
    log.error("cannot start: %s", error)
    sys.stderr.write(f"pilotflow manager: {error}\n")
    return 1


def main() -> int:
    """Run a manager as its command line says."""
    name_process("pf-manager")
    started = time.monotonic()
    found = read_arguments(sys.argv[1:])
    options, report = measured(found)
    connection = read_connection(options.connection)
    of_workers = connection.path.around(sys.path)
    sys.path[:] = connection.path.after(sys.path)
    log = log_to(options.directory / f"manager-{options.node}.log", f"manager {options.node}")
    try:
        followers = _followers(found, options, log)
        options = _within_limits(options, 0 if followers is None else followers.files)
        check_versions(connection, options.node, bool(options.python.prefix))
    except ConfigError as error:
        return _cannot_start(error, log)
    log.info("the node: %s", report.summary())
    for note in report.notes:
        log.info("%s", note)
    os.environ[RUN_DIRECTORY_VARIABLE] = connection.directory
    try:
        zygote_ = zygote.start(connection.max_message_bytes, _tidy(connection.directory), of_workers)
    except ConfigError as error:
        return _cannot_start(error, log)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        loop = Loop()
        pool = Pool(options.capacity, report.layout(), options.watch)
        workers = Workers(loop, pool, zygote_, report, options, connection, started, log)
        head = NodeManager(options, connection, pool, loop, workers, started, log)
        if followers is None:
            return drive(loop, [head], log)
        code = drive(loop, [head, *followers.managers(connection, loop, started)], log, head)
        followers.close()
        return code
    except ConfigError as error:
        return _cannot_start(error, log)
    except Exception as error:
        log.exception("the manager ends because of a bug")
        sys.stderr.write(f"pilotflow manager: a bug: {error!r}; see its log in {options.directory}\n")
        return 1
    finally:
        from pilotflow.runtime import node_files  # not at the start, which is waited for

        node_files.remove(Path(connection.directory) / node_files.SHARED)


if __name__ == "__main__":
    raise SystemExit(main())
