"""The interchange process: sockets, clock and the deaths of others, around `core.exchange`.

    python -m pilotflow.runtime.interchange CONNECTION_FILE [ENDPOINT=DESCRIPTOR ...]

Each turn of its loop drains every socket, lets the exchange decide once, and sends one letter to
each peer that has something to hear. It never looks into a payload.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from pilotflow.core.addresses import endpoint_of, parse_ports, split_endpoint
from pilotflow.core.exchange import Exchange
from pilotflow.core.post import Post
from pilotflow.core.succession import Succession
from pilotflow.errors import ConfigError
from pilotflow.ids import RUN_VARIABLE, VERSION
from pilotflow.messages.client import HelloAgain, from_client
from pilotflow.messages.codec import BadMessage, Decoder, WrongProtocol
from pilotflow.messages.control import from_control
from pilotflow.messages.manager import ManagerRefused, Reregister, from_manager
from pilotflow.messages.records import Refused
from pilotflow.runtime import leftovers, limits
from pilotflow.runtime.channels import Server, UnixServer
from pilotflow.runtime.connection import Connection, read_connection, write_connection
from pilotflow.runtime.listening import UnixListeners, listen
from pilotflow.runtime.log_files import log_to, write_in_background
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.process_end import ProcessEnd
from pilotflow.runtime.process_name import name_process

CLOSE_GRACE_S = 3.0
"""Managers have this long to leave after the run has ended."""
CANCEL_TIMEOUT_S = 10.0
"""Commands that cancel the blocks of a lost client are waited for this long."""
GARBAGE_LOG_PERIOD_S = 10.0
"""Messages that are not ours are counted, and logged at most this often."""

UNREAD_MAX = {"manager": 100_000, "control": 100}
"""Messages that a peer of this kind may leave unread. What the client is sent is bounded by what it acknowledges."""

Key: TypeAlias = tuple[int, Hashable]
"""A peer: the number of the server it came through, and the server's name for it."""
Arrived: TypeAlias = "list[tuple[list[Any], Sequence[Any]]] | None"
"""Letters of a peer, in order; None if it believes that we know it."""


class Interchange:
    """The process's loop. `run` returns when the run has ended.

    Args:
        path: the connection file.
        connection: what is in it.
        listeners: descriptors of Unix sockets that the client has bound already, by endpoint.
        log: the run's log.
    """

    def __init__(self, path: Path, connection: Connection, listeners: dict[str, int], log: logging.Logger) -> None:
        self._connection = connection
        self._listeners = listeners
        self._log = log
        self._exchange = Exchange(
            connection.run_id,
            connection.epoch,
            VERSION,
            platform.python_version(),
            connection.heartbeat_limit_s,
            connection.heartbeat_limit_s,
            os.getpid(),
            connection.job_sort_method,
        )
        self._post = Post(time.time_ns())
        self._loop = Loop()
        self._servers: list[Server] = []
        self._unix = UnixListeners(log)
        self._context: Any = None
        self._close_at: float | None = None
        self._client_gone = False
        self._programs = Succession(connection.client_pid, connection.keep_s)
        self._garbage_logged = -GARBAGE_LOG_PERIOD_S
        self._client_end: ProcessEnd | None = None
        opened = {
            "client": self._open("client", connection.client, from_client(), self._from_client),
            "managers": self._open("manager", connection.managers, from_manager(), self._from_manager),
            "control": self._open("control", connection.control, from_control(), self._from_control),
        }
        self._path = path
        if any(getattr(connection, kind) != endpoints for kind, endpoints in opened.items()):
            self._publish(**opened)
        self._watch_client()

    # ---- opening ----------------------------------------------------------------------------

    def _open(
        self, domain: str, endpoints: tuple[str, ...], decode: Decoder[Any], take: Callable[..., None]
    ) -> tuple[str, ...]:
        """Listen on these endpoints; returns them with the ports that were chosen."""
        opened = []
        for endpoint in endpoints:
            index = len(self._servers)

            def hear(peer: Hashable, header: Any, frames: Sequence[Any], index: int = index) -> None:
                self._hear((index, peer), header, frames, domain, decode, take)

            def hang_up(peer: Hashable, index: int = index) -> None:
                self._hung_up((index, peer))

            if endpoint.startswith("unix:"):
                listener = listen(endpoint[5:], self._listeners.get(endpoint))
                limit = self._connection.max_message_bytes
                unread_max = UNREAD_MAX.get(domain)
                server = UnixServer(self._loop, listener, limit, hear, hang_up, self._count_garbage, unread_max)
                self._servers.append(server)
                self._unix.add(server)
                opened.append(endpoint)
            else:
                opened.append(self._open_tcp(domain, endpoint, hear))
        return tuple(opened)

    def _open_tcp(self, domain: str, endpoint: str, hear: Any) -> str:
        import zmq

        from pilotflow.runtime.zmq_channels import ZmqServer, answer_key_questions

        keys = self._connection.keys
        if self._context is None:
            self._context = zmq.Context()
            if keys.server_secret:
                allowed = {"client": keys.client_public, "manager": keys.manager_public, "control": keys.control_public}
                answer_key_questions(self._loop, self._context, allowed)
        limit = self._connection.max_message_bytes
        unread_max = UNREAD_MAX["control"] if domain == "control" else None  # ZeroMQ drops what is above
        problem = ""
        for candidate in _candidates(endpoint):
            try:
                server = ZmqServer(
                    self._loop,
                    self._context,
                    candidate,
                    domain,
                    keys.server_secret,
                    limit,
                    hear,
                    self._count_garbage,
                    unread_max,
                )
            except zmq.ZMQError as error:
                problem = error.strerror
                if error.errno == zmq.EADDRINUSE:
                    continue
                break
            self._servers.append(server)
            host, _ = split_endpoint(candidate)
            return endpoint_of(host, split_endpoint(server.endpoint)[1])
        raise ConfigError(
            f"Cannot listen on {endpoint.removeprefix('tcp://')}: {problem}. Free a port, or set other `ports`, "
            "or another `address` of the executor."
        )

    def _publish(self, **opened: tuple[str, ...]) -> None:
        """Write the endpoints into the connection file."""
        self._connection = msgspec.structs.replace(self._connection, **opened)
        write_connection(self._path, self._connection)

    def _look_after_sockets(self, now: float) -> None:
        moved = self._unix.look(now)
        if not moved:
            return
        before = self._connection
        kinds = {"client": before.client, "managers": before.managers, "control": before.control}
        try:
            if read_connection(self._path).epoch == before.epoch:  # else it is a later interchange's
                self._publish(**{kind: tuple(moved.get(each, each) for each in ends) for kind, ends in kinds.items()})
        except (OSError, ConfigError) as error:
            self._log.error("nobody else will find this run: %s cannot be written: %s", self._path, error)

    def _look_at_managers(self, now: float) -> None:
        """Managers of this host that hold nothing send no signs of life: their processes are looked at instead."""
        for key in self._exchange.to_look_at(now):
            if self._servers[key[0]].goes_on(key[1]):  # type: ignore[index]
                self._exchange.on_sight(key, now)

    def _watch_client(self) -> None:
        if self._programs.program > 0:
            try:
                self._client_end = ProcessEnd(self._programs.program)
            except ProcessLookupError:
                self._client_lost()
            else:
                self._loop.add(self._client_end.fileno(), self._client_lost)

    # ---- receiving --------------------------------------------------------------------------

    def _hear(self, key: Key, header: Any, frames: Sequence[Any], domain: str, decode: Decoder[Any], take: Any) -> None:
        try:
            envelope = decode(header)
            take(key, self._post.receive(key, envelope, frames))
        except WrongProtocol as error:
            self._count_garbage(str(error))
            if error.theirs < 128:  # a version; anything else is no peer of ours
                text = f"{error}; this run has pilotflow {VERSION}. Install the same version on both sides."
                self._note(key, ManagerRefused(text) if domain == "manager" else Refused(text))
        except BadMessage as error:
            self._count_garbage(str(error))

    def _from_client(self, key: Key, arrived: Arrived) -> None:
        if arrived is None:
            self._note(key, HelloAgain())
        else:
            self._take(self._exchange.on_client, key, arrived)

    def _from_manager(self, key: Key, arrived: Arrived) -> None:
        if arrived is None:
            self._note(key, Reregister())
        else:
            self._take(self._exchange.on_manager, key, arrived)

    def _from_control(self, key: Key, arrived: Arrived) -> None:
        self._take(lambda key, messages, _, now: self._exchange.on_control(key, messages, now), key, arrived or ())

    def _take(self, take: Callable[..., None], key: Key, arrived: Iterable[tuple[list[Any], Sequence[Any]]]) -> None:
        """Hand letters on; what is wrong with one is no reason to lose the next."""
        now = time.monotonic()
        for messages, frames in arrived:
            try:
                take(key, messages, frames, now)
            except BadMessage as error:
                self._count_garbage(str(error), error.count)

    def _note(self, key: Key, message: Any) -> None:
        self._servers[key[0]].send(key[1], self._post.stranger_note(message), ())

    def _count_garbage(self, why: str, count: int = 1) -> None:
        self._exchange.dropped += count
        now = time.monotonic()
        if now - self._garbage_logged > GARBAGE_LOG_PERIOD_S:  # the log must not swell under a flood
            self._garbage_logged = now
            self._log.warning("dropped a message that is not ours (%d so far): %s", self._exchange.dropped, why[:200])

    # ---- the end of things ------------------------------------------------------------------

    def _hung_up(self, key: Key) -> None:
        self._exchange.on_hang_up(key, time.monotonic())
        self._post.forget(key)

    def _client_lost(self) -> None:
        if self._client_end is not None:
            self._loop.remove(self._client_end.fileno())
            self._client_end.close()
            self._client_end = None
        if self._connection.keep_s > 0 and not self._exchange.closing:
            self._log.error(
                "the program of this run (pid %d) is gone: what was handed out goes on, and its results are kept",
                self._programs.program,
            )
            self._programs.end(time.monotonic())
            return
        if not self._exchange.closing:
            self._log.error("the program of this run (pid %d) is gone: ending it", self._programs.program)
            self._exchange.close("the program of this run is gone")
        self._client_gone = True

    def _watch_orphan(self, now: float) -> float:
        """Wait for another program to take the run over, but not for ever; returns when to look again."""
        if self._programs.follow(self._exchange.program):
            self._log.info("the program with pid %d goes on with this run", self._programs.program)
            self._watch_client()
        due = self._programs.due(now, runs_something=self._exchange.runs_something)
        if now >= due:
            self._log.error("nobody goes on with this run: ending it")
            self._client_gone = True
            self._exchange.close("nobody goes on with this run")
        return due

    def _cancel_blocks(self) -> None:
        """What the client would have done: end its blocks, pending ones and those we were not told of included."""
        environment = {name: value for name, value in os.environ.items() if name != RUN_VARIABLE}  # no leftovers
        commands = []
        for argv in {block.cancel_argv for block in self._exchange.live_blocks if block.cancel_argv}:
            self._log.info("cancelling blocks: %s", " ".join(argv))
            try:
                commands.append(
                    subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
                )
            except OSError as error:
                self._log.error("cannot cancel blocks with %s: %s", argv, error)
        deadline = time.monotonic() + CANCEL_TIMEOUT_S
        for command in commands:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.wait(max(0.0, deadline - time.monotonic()))
        leftovers.end_those_of(self._connection.run_id, self._log)
        from pilotflow.runtime import node_files  # not at the start, which is waited for

        node_files.end(Path(self._connection.directory) / node_files.SHARED)

    # ---- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Serve the run until it ends."""
        exchange = self._exchange
        while True:
            now = time.monotonic()
            self._look_at_managers(now)
            self._dispatch(exchange.turn(now))
            exchange.tidy()
            deadline = exchange.next_deadline()
            if self._programs.waits and not exchange.closing:
                deadline = min(deadline, self._watch_orphan(now))
            if exchange.closing:
                if self._close_at is None:
                    self._close_at = now + CLOSE_GRACE_S
                if not exchange.peers or now >= self._close_at:
                    break
                deadline = min(deadline, self._close_at)
            else:
                self._look_after_sockets(now)
                deadline = min(deadline, self._unix.due_at)
            self._loop.turn(deadline - now)
        for server in self._servers:
            server.close()
        self._unix.close()
        if self._context is not None:
            self._context.destroy(linger=500)
        if self._client_gone:  # last: managers that come only now must find nobody, and go
            self._cancel_blocks()

    def _dispatch(self, letters: dict[Hashable, Any]) -> None:
        for key, header, frames in self._post.send(letters):
            self._servers[key[0]].send(key[1], header, frames)  # type: ignore[index]
        for gone in self._exchange.take_lost():
            self._post.forget(gone)


def _candidates(endpoint: str) -> list[str]:
    """The endpoints of a range of ports, or the endpoint itself."""
    host, ports = split_endpoint(endpoint)
    return [endpoint_of(host, str(port)) for port in parse_ports(ports)] if "-" in ports else [endpoint]


def main() -> int:
    """Run the interchange of the connection file named on the command line."""
    name_process("pf-interchange")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the client's to handle
    path = Path(sys.argv[1])
    listeners = {endpoint: int(fd) for endpoint, _, fd in (word.rpartition("=") for word in sys.argv[2:])}
    connection = read_connection(path)
    log = log_to(Path(connection.directory) / "pilotflow.log", "interchange")
    try:
        limits.raise_open_files(limits.INTERCHANGE_FILES, "the interchange")
        interchange = Interchange(path, connection, listeners, log)
    except Exception as error:  # noqa: BLE001  the process's top: the client shows what we say
        log.error("cannot start: %s", error)
        sys.stderr.write(f"pilotflow interchange: {error}\n")
        return 1
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)  # no cycles are made here; a million queued tasks are not garbage
    log.info("interchange pid %d serves run %s", os.getpid(), connection.run_id)
    write_in_background([log])
    try:
        interchange.run()
    except Exception:
        log.exception("the interchange ends because of a bug")
        return 1
    log.info("interchange ends")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
