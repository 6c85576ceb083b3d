"""The interchange process: sockets, clock and the deaths of others, around `core.exchange`.

    python -m pilotflow.runtime.interchange CONNECTION_FILE

Each turn of its loop drains every socket, lets the exchange decide once, and sends one letter to
each peer that has something to hear. It never looks into a payload.
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import zmq
import zmq.utils.z85

from pilotflow.core.exchange import Exchange
from pilotflow.core.post import Post
from pilotflow.ids import VERSION
from pilotflow.messages import (
    BadMessage,
    Decoder,
    HelloAgain,
    ManagerRefused,
    Refused,
    Reregister,
    WrongProtocol,
    from_client,
    from_control,
    from_manager,
)
from pilotflow.runtime import limits
from pilotflow.runtime.transport import Connection, Loop, prepare, read_connection, receive, send

CLOSE_GRACE_S = 3.0
"""Managers have this long to leave after the run has ended."""

Key: TypeAlias = tuple[int, bytes]
"""A peer: the number of the socket it came through, and its routing id."""


class Interchange:
    """The process's loop. `run` returns when the run has ended."""

    def __init__(self, connection: Connection, log: logging.Logger) -> None:
        self._connection = connection
        self._log = log
        self._exchange = Exchange(
            connection.run_id,
            connection.epoch,
            VERSION,
            platform.python_version(),
            connection.heartbeat_limit_s,
            connection.heartbeat_limit_s,
            os.getpid(),
        )
        self._post = Post(time.time_ns())
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._loop = Loop()
        self._routers: list[zmq.Socket[bytes]] = []
        self._close_at: float | None = None
        self._client_gone = False
        self._garbage_logged = 0.0
        if connection.keys.server_secret:
            self._answer_key_questions()
        for name, endpoints, decode, take in (
            ("client", connection.client, from_client(), self._from_client),
            ("manager", connection.managers, from_manager(), self._from_manager),
            ("control", connection.control, from_control(), self._from_control),
        ):
            for endpoint in endpoints:
                self._open(name, endpoint, decode, take)
        self._watch_client()

    # ---- opening ----------------------------------------------------------------------------

    def _answer_key_questions(self) -> None:
        """Let only the run's own keys through CURVE: ZeroMQ asks over ZAP (ZeroMQ RFC 27)."""
        keys = self._connection.keys
        allowed = {
            domain: zmq.utils.z85.decode(key)
            for domain, key in (
                (b"client", keys.client_public),
                (b"manager", keys.manager_public),
                (b"control", keys.control_public),
            )
        }
        zap = self._context.socket(zmq.REP)
        zap.linger = 0
        zap.bind("inproc://zeromq.zap.01")
        self._zap = zap

        def answer() -> None:
            while True:
                try:
                    version, request, domain, _, _, mechanism, *credentials = zap.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    return
                ours = mechanism == b"CURVE" and credentials == [allowed.get(domain)]
                verdict = (b"200", b"OK", domain) if ours else (b"400", b"unknown key", b"")
                zap.send_multipart([version, request, *verdict, b""])

        self._loop.add_socket(zap, answer)

    def _open(self, name: str, endpoint: str, decode: Decoder[Any], take: Any) -> None:
        socket = self._context.socket(zmq.ROUTER)
        prepare(socket, self._connection.max_message_bytes)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        socket.set(zmq.ROUTER_HANDOVER, 1)
        if endpoint.startswith("tcp:") and self._connection.keys.server_secret:
            socket.set(zmq.CURVE_SERVER, 1)
            socket.set(zmq.CURVE_SECRETKEY, self._connection.keys.server_secret.encode())
            socket.set(zmq.ZAP_DOMAIN, name.encode())
            socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.bind(endpoint)
        index = len(self._routers)
        self._routers.append(socket)
        self._loop.add_socket(socket, lambda: self._drain(index, decode, take))
        events = (
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        monitor = socket.get_monitor_socket(events)
        self._loop.add_socket(monitor, lambda: self._count_failed_handshakes(monitor))

    def _watch_client(self) -> None:
        if self._connection.client_pid > 0:
            try:
                fd = os.pidfd_open(self._connection.client_pid)
            except ProcessLookupError:
                self._client_lost()
            else:
                self._loop.add(fd, lambda: self._client_lost(fd))

    # ---- receiving --------------------------------------------------------------------------

    def _drain(self, index: int, decode: Decoder[Any], take: Any) -> None:
        socket = self._routers[index]
        now = time.monotonic()
        for _ in range(limits.READ_MAX):
            message = receive(socket, routed=True)
            if message is None:
                return
            peer, header, frames = message
            key = (index, peer)
            try:
                envelope = decode(header)
                arrived = self._post.receive(key, envelope, frames)
                take(key, arrived, now)
            except WrongProtocol as error:
                self._refuse(key, error)
            except BadMessage as error:
                self._count_garbage(str(error))

    def _from_client(self, key: Key, arrived: Any, now: float) -> None:
        if arrived is None:
            self._note(key, HelloAgain())
            return
        for messages, frames in arrived:
            self._exchange.on_client(key, messages, frames, now)

    def _from_manager(self, key: Key, arrived: Any, now: float) -> None:
        if arrived is None:
            self._note(key, Reregister())
            return
        for messages, frames in arrived:
            self._exchange.on_manager(key, messages, frames, now)

    def _from_control(self, key: Key, arrived: Any, now: float) -> None:
        for _ in arrived or ():
            self._exchange.on_control(key)

    def _note(self, key: Key, message: Any) -> None:
        send(self._routers[key[0]], [key[1], self._post.stranger_note(message)])

    def _refuse(self, key: Key, error: WrongProtocol) -> None:
        """Answer a peer of another version in the one shape that every version keeps."""
        self._count_garbage(str(error))
        text = f"{error}; this run has pilotflow {VERSION}"
        is_manager = self._connection.managers and key[0] >= len(self._connection.client)
        self._note(key, ManagerRefused(text) if is_manager else Refused(text))

    def _count_garbage(self, why: str) -> None:
        self._exchange.dropped += 1
        now = time.monotonic()
        if now - self._garbage_logged > 10.0:  # the log must not swell under a flood
            self._garbage_logged = now
            self._log.warning("dropped a message that is not ours (%d so far): %s", self._exchange.dropped, why[:200])

    def _count_failed_handshakes(self, monitor: zmq.Socket[bytes]) -> None:
        while True:
            try:
                monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._count_garbage("a connection that does not speak our protocol or has no valid key")

    # ---- the end of things ------------------------------------------------------------------

    def _client_lost(self, fd: int = -1) -> None:
        if fd >= 0:
            self._loop.remove(fd)
            os.close(fd)
        if not self._exchange.closing:
            self._log.error("the program of this run (pid %d) is gone: ending it", self._connection.client_pid)
            self._exchange.close("the program of this run is gone")
        self._client_gone = True

    def _cancel_blocks(self) -> None:
        """What the client would have done: end its blocks, pending ones included."""
        for argv in {block.cancel_argv for block in self._exchange.live_blocks if block.cancel_argv}:
            self._log.info("cancelling blocks: %s", " ".join(argv))
            try:
                subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
            except OSError as error:
                self._log.error("cannot cancel blocks with %s: %s", argv, error)

    # ---- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Serve the run until it ends."""
        exchange = self._exchange
        while True:
            now = time.monotonic()
            self._dispatch(exchange.turn(now))
            if exchange.closing:
                if self._close_at is None:
                    self._close_at = now + CLOSE_GRACE_S
                if not exchange.peers or now >= self._close_at:
                    break
            deadline = exchange.next_deadline()
            if self._close_at is not None:
                deadline = min(deadline, self._close_at)
            self._loop.turn(deadline - now)
        if self._client_gone:
            self._cancel_blocks()
        self._close()

    def _dispatch(self, letters: dict[Hashable, Any]) -> None:
        for key, header, frames in self._post.send(letters):
            assert isinstance(key, tuple)
            self._send(key, header, frames)
        for gone in self._exchange.take_lost():
            self._post.forget(gone)

    def _send(self, key: Key, header: bytes, frames: Sequence[Any]) -> None:
        send(self._routers[key[0]], [key[1], header, *frames])

    def _close(self) -> None:
        for socket in self._routers:
            socket.disable_monitor()
            socket.close(linger=500)
        self._context.destroy(linger=500)
        self._loop.close()


def main() -> int:
    """Run the interchange of the connection file named on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the client's to handle
    connection = read_connection(Path(sys.argv[1]))
    log = limits.log_to(Path(connection.directory) / "pilotflow.log", "interchange")
    try:
        limits.raise_open_files(limits.INTERCHANGE_FILES, "the interchange")
        interchange = Interchange(connection, log)
    except Exception as error:
        log.error("cannot start: %s", error)
        print(f"pilotflow interchange: {error}", file=sys.stderr)
        return 1
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)  # no cycles are made here; a million queued tasks are not garbage
    log.info("interchange pid %d serves run %s", os.getpid(), connection.run_id)
    try:
        interchange.run()
    except Exception:
        log.exception("the interchange ends because of a bug")
        return 1
    log.info("interchange ends")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
