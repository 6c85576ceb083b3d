"""Sockets of a run: where they are, how they are protected, and a loop that waits for them.

Links on one host are Unix sockets in a 0700 directory. Links over TCP use CURVE with a list of
allowed client keys for each kind of peer. Everything a peer needs is in the run's connection
file (0600).
"""

from __future__ import annotations

import json
import os
import select
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import zmq

from pilotflow.errors import ConfigError

class Keys(msgspec.Struct, frozen=True):
    """CURVE key pairs of a run, as Z85 text; all empty if `encrypted=False`."""

    server_public: str = ""
    server_secret: str = ""
    client_public: str = ""
    client_secret: str = ""
    manager_public: str = ""
    manager_secret: str = ""
    control_public: str = ""
    control_secret: str = ""


class Connection(msgspec.Struct, frozen=True):
    """The connection file: how to reach a run's interchange.

    `client`, `managers` and `control` are the endpoints of each kind of peer, best first.
    `path` is the submitting program's `sys.path`, so that workers import what it imports.
    """

    run_id: str
    epoch: int
    directory: str
    client: tuple[str, ...]
    managers: tuple[str, ...]
    control: tuple[str, ...]
    keys: Keys
    max_message_bytes: int
    heartbeat_limit_s: float
    client_pid: int
    host: str
    path: tuple[str, ...] = ()


def make_keys() -> Keys:
    """New key pairs for a run."""
    pairs = [tuple(key.decode() for key in zmq.curve_keypair()) for _ in range(4)]
    return Keys(*(key for pair in pairs for key in pair))


def write_connection(path: Path, connection: Connection) -> None:
    """Write the connection file, whole and readable by nobody else.

    Raises:
        OSError: it cannot be written.
    """
    aside = path.with_name(path.name + ".new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(connection)))
    aside.replace(path)


def read_connection(path: Path) -> Connection:
    """Read a connection file.

    Raises:
        ConfigError: it is missing, or not a connection file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Connection)
    except OSError as error:
        raise ConfigError(f"Cannot read the connection file {path}: {error.strerror}.") from None
    except (msgspec.MsgspecError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} is not a connection file of this pilotflow: {error}.") from None


def make_socket_directory() -> Path:
    """A new 0700 directory for Unix sockets, under XDG_RUNTIME_DIR or the temporary directory.

    Run directories will not do: their paths are too long for sockets, and their file systems may
    not hold any.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base or not os.access(base, os.W_OK) or len(base) > 60:
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) <= 60 else "/tmp"
    return Path(tempfile.mkdtemp(prefix="pilotflow-", dir=base))


def prepare(socket: zmq.Socket[bytes], max_message_bytes: int) -> None:
    """Options that every socket of a run has: nothing is dropped, nothing huge is accepted."""
    socket.set(zmq.SNDHWM, 0)  # credit bounds what is on its way; a full ROUTER would drop
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.MAXMSGSIZE, max_message_bytes)
    socket.set(zmq.IPV6, 1)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, 60)
    socket.set(zmq.RECONNECT_IVL, 10)
    socket.set(zmq.RECONNECT_IVL_MAX, 1000)


def connect(
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    identity: bytes,
    keys: tuple[str, str, str],
    max_message_bytes: int,
) -> zmq.Socket[bytes]:
    """A DEALER to the interchange; `keys` are (server public, our public, our secret)."""
    socket = context.socket(zmq.DEALER)
    prepare(socket, max_message_bytes)
    socket.set(zmq.ROUTING_ID, identity)
    if endpoint.startswith("tcp:") and keys[0]:
        socket.set(zmq.CURVE_SERVERKEY, keys[0].encode())
        socket.set(zmq.CURVE_PUBLICKEY, keys[1].encode())
        socket.set(zmq.CURVE_SECRETKEY, keys[2].encode())
    socket.connect(endpoint)
    return socket


def receive(socket: zmq.Socket[bytes], routed: bool) -> tuple[bytes, Any, Sequence[Any]] | None:
    """One message as (peer, header, payload frames), without copying frames; None if there is none."""
    try:
        parts = socket.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    if routed:
        header = parts[1].buffer if len(parts) > 1 else b""
        return parts[0].bytes, header, parts[2:]
    return b"", parts[0].buffer, parts[1:]


def send(socket: zmq.Socket[bytes], parts: Sequence[Any]) -> bool:
    """Send one message without copying long parts; False if the peer is not reachable."""
    try:
        socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return False
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return False
        raise
    return True


class Loop:
    """Waits for ZeroMQ sockets and plain descriptors together, and calls their handlers."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._sockets: list[tuple[zmq.Socket[bytes], Callable[[], None]]] = []

    def add_socket(self, socket: zmq.Socket[bytes], handler: Callable[[], None]) -> None:
        """Call the handler whenever the socket can be read. It must read until there is nothing."""
        self._sockets.append((socket, handler))
        self._epoll.register(socket.get(zmq.FD), select.EPOLLIN)

    def add(self, fd: int, handler: Callable[[], None]) -> None:
        """Call the handler whenever the descriptor can be read or was closed by its peer."""
        self._handlers[fd] = handler
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def turn(self, timeout_s: float) -> None:
        """Wait until something can be read, or the timeout, and call the handlers."""
        # ZeroMQ's descriptors signal changes only, so what is already there must be looked for.
        ready = [handler for socket, handler in self._sockets if socket.get(zmq.EVENTS) & zmq.POLLIN]
        for fd, _ in self._epoll.poll(0 if ready else max(0.0, timeout_s)):
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()
        if not ready:
            ready = [handler for socket, handler in self._sockets if socket.get(zmq.EVENTS) & zmq.POLLIN]
        for handler in ready:
            handler()

    def close(self) -> None:
        """Release the loop's own descriptor."""
        self._epoll.close()
