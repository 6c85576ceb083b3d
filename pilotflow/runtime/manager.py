"""The manager process: sockets, workers and clock around `core.pool`.

    python -m pilotflow.runtime.manager CONNECTION_FILE --executor LABEL --block BLOCK ...

One runs on each node of a block. It forks its zygote first, then connects to the interchange,
and ends when it is told to, when its block is ended (SIGTERM), when its walltime is over, or when
the interchange stays away.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pilotflow.core.pool import Pool
from pilotflow.core.post import Letter, Post
from pilotflow.core.whereabouts import place_of
from pilotflow.errors import ConfigError
from pilotflow.ids import VERSION
from pilotflow.messages import (
    AliveReply,
    BadMessage,
    Cancel,
    Class,
    Drain,
    Function,
    ManagerAlive,
    ManagerRefused,
    Place,
    Recorded,
    Register,
    Registered,
    Reregister,
    ReserveNode,
    Retract,
    Run,
    Stop,
    to_manager,
)
from pilotflow.questions import IsAt, WhereIs
from pilotflow.runtime import limits, zygote
from pilotflow.runtime.channels import Channel, connect
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import Options, parse_options
from pilotflow.runtime.workers import Workers

CONNECT_TIMEOUT_S = 60.0
"""A manager that cannot register for so long ends."""
RECONNECT_TIMEOUT_S = 10.0
"""A manager whose interchange hung up and does not come back for so long ends."""
LEAVE_GRACE_S = 1.0
"""Workers have this long to die before the manager does."""
END_MARGIN_S = 5.0
"""A manager leaves this long before its block's walltime is over (or a tenth of it)."""

WARN_S = 60.0
"""Running tasks are warned this long before their manager leaves (or a twentieth of the walltime)."""

_INTERCHANGE = "interchange"


class Manager:
    """The process's loop. `run` returns the exit code."""

    def __init__(self, options: Options, connection: Connection, zygote_: zygote.Zygote, log: logging.Logger) -> None:
        self._options = options
        self._connection = connection
        self._zygote = zygote_
        self._log = log
        self._pool = Pool(options.capacity, options.report.layout(), options.watch)
        self._post = Post(time.time_ns())
        self._decode = to_manager()
        self._loop = Loop()
        self._manager_id = 0
        self._started = self._heard = time.monotonic()
        self._hung_up_at: float | None = None
        self._beat_at = self._started
        self._announce_at = 0.0
        self._exit: int | None = None
        self._terminated: list[bool] = []
        self._leave_at: float | None = None
        self._warned = False
        self._warn_s = min(WARN_S, (options.walltime_s or 0.0) / 20)
        self._heartbeat_s = max(0.05, connection.heartbeat_limit_s / 4)
        self._where = f"on {options.node} (block {options.block})"
        self._session = f"{options.node}-{os.getpid()}-{time.time_ns()}"
        self._channel = self._connect()
        left = self._time_left()
        ends_at = None if left is None else time.time() + left
        self._workers = Workers(
            self._loop, self._pool, zygote_, options, connection, ends_at, lambda why: self._end(why, 1), log
        )
        self._watch_signals()

    def _connect(self) -> Channel:
        endpoint = _choose(self._connection)
        keys = self._connection.keys
        self._log.info("connecting to %s", endpoint)
        return connect(
            self._loop,
            endpoint,
            self._session.encode(),
            (keys.server_public, keys.manager_public, keys.manager_secret),
            self._connection.max_message_bytes,
            self._hear_interchange,
            self._hung_up,
        )

    def _watch_signals(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: self._terminated.append(True))  # acted on between two turns
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._loop.add(read, lambda: (os.read(read, 4096), None)[1])

    # ---- interchange ------------------------------------------------------------------------

    def _hung_up(self, _: Hashable) -> None:
        """The connection has closed. A Unix one does so when the interchange is dead."""
        if _choose(self._connection).startswith("unix:"):
            self._end("the interchange is gone", 1)
        elif self._hung_up_at is None:
            self._hung_up_at = time.monotonic()

    def _hear_interchange(self, _: Hashable, header: Any, frames: Sequence[Any]) -> None:
        try:
            envelope = self._decode(header)
        except BadMessage as error:
            self._log.warning("dropped a message that is not ours: %s", error)
            return
        self._heard = time.monotonic()
        self._hung_up_at = None
        for messages, parts in self._post.receive(_INTERCHANGE, envelope, frames) or ():
            self._obey(messages, parts)

    def _obey(self, messages: list[Any], frames: Any) -> None:
        at = 0
        for message in messages:
            if isinstance(message, Run):
                at = self._pool.on_run(message, frames, at)
            elif isinstance(message, Recorded):
                self._pool.on_recorded(message.seqs)
            elif isinstance(message, Function):
                self._pool.on_function(message)
            elif isinstance(message, Class):
                self._pool.on_class(message.cls, message.request)
            elif isinstance(message, Cancel):
                self._pool.on_cancel(message)
            elif isinstance(message, Retract):
                self._pool.on_retract(message.tasks)
            elif isinstance(message, ReserveNode):
                self._pool.on_reserve(message)
            elif isinstance(message, Place):
                self._pool.on_place(message)
            elif isinstance(message, Registered):
                self._registered(message)
            elif isinstance(message, Reregister):
                if self._leave_at is None:
                    self._post.forget(_INTERCHANGE)
                    self._register()
            elif isinstance(message, ManagerRefused):
                self._end(message.reason, 1)
            elif isinstance(message, Drain):
                self._log.info("draining")
                self._pool.drain()
            elif isinstance(message, Stop):
                self._leave(message.reason)
            elif isinstance(message, WhereIs):
                place = place_of(self._pool, message.task, message.attempt, time.monotonic())
                self._say_if_heard(IsAt(message.token, place))
            else:
                assert isinstance(message, AliveReply)

    def _register(self) -> None:
        self._pool.register(
            Register(
                VERSION,
                platform.python_version(),
                self._options.executor,
                self._options.block,
                self._options.node,
                self._session,
                os.getpid(),
                self._options.capacity,
                self._time_left(),
                [],
                [],
            )
        )

    def _registered(self, message: Registered) -> None:
        if not self._manager_id:
            self._log.info("registered as manager %d", message.manager)
            self._workers.set_up(message.setup)
        self._manager_id = message.manager

    def _time_left(self) -> float | None:
        walltime = self._options.walltime_s
        if walltime is None:
            return None
        margin = min(END_MARGIN_S, walltime / 10)
        return max(0.0, self._started + walltime - margin - time.monotonic())

    # ---- leaving ----------------------------------------------------------------------------

    def _leave(self, reason: str, walltime_over_at: float | None = None) -> None:
        """Hand everything back and go, soon."""
        if self._leave_at is None:
            self._log.info("leaving: %s", reason)
            self._pool.leave(reason, walltime_over_at)
            self._leave_at = time.monotonic() + LEAVE_GRACE_S
            self._exit = 0

    def _end(self, reason: str, code: int) -> None:
        """Go at once: nobody waits for what is here."""
        if self._leave_at is None:
            (self._log.info if code == 0 else self._log.error)("ending: %s", reason)
            if code:
                sys.stderr.write(f"pilotflow manager: {reason}\n")
            self._workers.kill_all()
            self._leave_at = time.monotonic() + LEAVE_GRACE_S
            self._exit = code

    # ---- the loop ---------------------------------------------------------------------------

    def run(self) -> int:
        """Work until the end; returns the exit code."""
        self._register()
        while True:
            now = time.monotonic()
            self._watch_time(now)
            if self._leave_at is None or self._exit == 0:  # to leave is to have workers killed
                self._workers.carry_out(self._pool.take_orders(now))
            self._dispatch()
            if self._leave_at is not None and (now >= self._leave_at or not self._workers.any):
                break
            self._loop.turn(self._next_deadline(now) - now)
        self._close()
        return self._exit or 0

    def _watch_time(self, now: float) -> None:
        if now >= self._beat_at:
            late = now - self._beat_at > self._heartbeat_s  # this process was stopped: hear first, then judge
            self._beat_at = now + self._heartbeat_s
            self._beat(now, late)
        if self._pool.busy and now >= self._announce_at:
            self._announce_at = now + 1.0
            self._pool.announce_long_runs(now)
        self._workers.look(now)
        if self._leave_at is not None:
            return
        if self._terminated:
            self._leave("its block was ended (SIGTERM)")
        elif self._pool.broken:
            self._end(self._pool.broken, 1)
        elif self._pool.drained:
            self._leave("drained")
        elif (left := self._time_left()) is not None:
            self._watch_walltime(left)
        if self._hung_up_at is not None and now - self._hung_up_at > RECONNECT_TIMEOUT_S:
            self._end("the interchange is gone", 1)

    def _watch_walltime(self, left: float) -> None:
        if left == 0.0:
            self._leave("its block's walltime is over", time.monotonic())
        elif left <= self._warn_s and not self._warned:
            self._warned = True
            self._pool.warn_of_end()

    def _beat(self, now: float, late: bool) -> None:
        if (deaf_s := self._zygote.silent_for(now)) > self._connection.heartbeat_limit_s and not late:
            self._end(f"its zygote (pid {self._zygote.pid}) has answered nothing for {deaf_s:.0f} s", 1)
            zygote.kill_tree(self._zygote.pid)  # its channel then says that all workers are dead
        silent = now - self._heard
        limit = self._connection.heartbeat_limit_s if self._manager_id else CONNECT_TIMEOUT_S
        if silent > max(limit, 2 * self._heartbeat_s) and not late:
            what = "answered no heartbeat" if self._manager_id else "could not be reached"
            self._end(f"the interchange ({_choose(self._connection)}) {what} for {silent:.0f} s", 1)
            return
        if self._manager_id:
            self._say_if_heard(ManagerAlive(self._time_left()))

    def _say_if_heard(self, message: ManagerAlive | IsAt) -> None:
        """Something that may be lost."""
        self._channel.send(self._post.sign_of_life(_INTERCHANGE, [message]), ())

    def _dispatch(self) -> None:
        letter = self._pool.take_letter()
        letters: dict[Hashable, Letter] = {_INTERCHANGE: letter} if letter.messages else {}
        for _, header, frames in self._post.send(letters):
            self._channel.send(header, frames)

    def _next_deadline(self, now: float) -> float:
        deadline = self._beat_at
        if self._pool.busy:
            deadline = min(deadline, self._announce_at)
        if self._leave_at is not None:
            deadline = min(deadline, self._leave_at)
        if self._hung_up_at is not None:
            deadline = min(deadline, self._hung_up_at + RECONNECT_TIMEOUT_S + 0.01)
        deadline = min(deadline, self._workers.due_at)
        left = self._time_left()
        if left is None:
            return deadline
        return min(deadline, now + left if self._warned else now + max(0.0, left - self._warn_s))

    def _close(self) -> None:
        self._channel.close()
        self._zygote.channel.close()


def _choose(connection: Connection) -> str:
    """The best endpoint for this host: a Unix socket if the interchange is here."""
    for endpoint in connection.managers:
        if endpoint.startswith("unix:"):
            if connection.host == socket.gethostname() and Path(endpoint[5:]).parent.is_dir():
                return endpoint
        else:
            return endpoint
    raise ConfigError(
        f"The run listens only on this host's Unix sockets ({connection.host}), and this manager is on "
        f"{socket.gethostname()}. Give the executor an address, so that it listens on TCP."
    )


def _within_limits(options: Options) -> Options:
    """The options with as many slots as the limit of open files lets be.

    Raises:
        ConfigError: it does not even let the node's cores be used.
    """
    least = options.capacity.slots_of_one_core
    need = limits.MANAGER_FILES + limits.FILES_PER_WORKER * least
    files = limits.raise_open_files(need, f"a manager with {least} workers")
    slots = min(options.capacity.slots, (files - limits.MANAGER_FILES) // limits.FILES_PER_WORKER)
    return dataclasses.replace(options, capacity=msgspec.structs.replace(options.capacity, slots=slots))


def main() -> int:
    """Run a manager as its command line says."""
    options = parse_options(sys.argv[1:])
    connection = read_connection(options.connection)
    sys.path += [entry for entry in connection.path if entry not in sys.path]
    log = limits.log_to(options.directory / f"manager-{options.node}.log", f"manager {options.node}")
    try:
        options = _within_limits(options)
    except ConfigError as error:
        log.error("cannot start: %s", error)
        sys.stderr.write(f"pilotflow manager: {error}\n")
        return 1
    log.info("the node: %s", options.report.summary())
    for note in options.report.notes:
        log.info("%s", note)
    zygote_ = zygote.start(connection.max_message_bytes)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        return Manager(options, connection, zygote_, log).run()
    except Exception as error:
        log.exception("the manager ends because of a bug")
        sys.stderr.write(f"pilotflow manager: a bug: {error!r}; see its log in {options.directory}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
