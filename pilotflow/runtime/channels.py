"""Channels between the interchange and its peers: Unix sockets on one host, ZeroMQ over TCP.

Both sides look the same for either kind. A `Server` hears of (peer, header, frames) and of peers
that hung up; a `Channel` is a peer's side. Nothing is dropped: what cannot be sent now waits.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from pilotflow.memfile import size_of
from pilotflow.runtime import packets, process_state
from pilotflow.runtime.loop import Loop

Hear: TypeAlias = Callable[[Hashable, Any, Sequence[Any]], None]
"""Called with (peer, header, frames); the header is good for the time of the call."""
HangUp: TypeAlias = Callable[[Hashable], None]
"""Called with a peer whose connection has closed."""
Garbage: TypeAlias = Callable[[str], None]
"""Called with words about something that could not be a message."""


SHORTAGE_PAUSE_S = 0.005
"""Pause when the system has no descriptors or memory for a packet that waits."""


class Server(Protocol):
    """The interchange's side of one endpoint."""

    def send(self, peer: Hashable, header: bytes, frames: Sequence[Any]) -> None:
        """Send to a peer; if it is gone, nothing happens."""

    def goes_on(self, peer: Hashable) -> bool:
        """Whether it is seen, without a letter, that a peer's process is neither stopped nor gone."""

    def close(self) -> None:
        """Send what waits, if it goes at once, and close."""


class Channel(Protocol):
    """A peer's side of its connection to the interchange."""

    def send(self, header: bytes, frames: Sequence[Any]) -> None:
        """Send to the interchange, now or when there is room."""

    def close(self) -> None:
        """Send what waits, briefly, and close."""


def connect(
    loop: Loop,
    endpoint: str,
    identity: bytes,
    keys: tuple[str, str, str],
    max_message_bytes: int,
    hear: Hear,
    hang_up: HangUp,
    context: Any = None,
) -> Channel:
    """A channel to the interchange's endpoint; `keys` are (server public, our public, our secret).

    A process with many channels gives all of them one ZeroMQ `context`, whose threads they share.

    Raises:
        ConnectionError: it is a Unix socket on which nobody listens.
    """
    if endpoint.startswith("unix:"):
        return UnixChannel(loop, endpoint[5:], max_message_bytes, hear, hang_up)
    from pilotflow.runtime.zmq_channels import ZmqChannel

    return ZmqChannel(loop, endpoint, identity, keys, max_message_bytes, hear, hang_up, context)


class _Connection:
    """One Unix connection: packets in, packets out, and those that wait for room."""

    def __init__(self, loop: Loop, sock: socket.socket, max_bytes: int, pid: int = 0) -> None:
        self.sock = sock
        self.pid = pid
        self._loop = loop
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[bytes, Sequence[Any]]] = deque()
        self._buffer = packets.new_buffer()
        packets.tune(sock)
        sock.setblocking(False)

    def send(self, header: bytes, frames: Sequence[Any]) -> None:
        if not self._waiting:
            try:
                packets.send(self.sock, header, frames, packets.DONTWAIT)
            except ConnectionError:
                return  # its end is noticed when it is read
            except OSError:  # no room, or memory or descriptors are short: again when others have let go of some
                pass
            else:
                return
        self._waiting.append((header, frames))
        self._loop.want_writes(self.sock.fileno(), self.flush)

    @property
    def unread(self) -> int:
        """Messages that wait for room."""
        return len(self._waiting)

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self._waiting:
            try:
                packets.send(self.sock, *self._waiting[0], packets.DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionError:
                self._waiting.clear()
                break
            except OSError:
                time.sleep(SHORTAGE_PAUSE_S)
                return
            self._waiting.popleft()
        self._loop.want_writes(self.sock.fileno(), None)

    def read(self, hear: Callable[[Any, Sequence[Any]], None], garbage: Garbage) -> bool:
        """Hear the next packet; False if the peer has closed.

        One, because a packet is a batch already; if there are more the loop comes back at once.
        """
        try:
            message = packets.receive(self.sock, self._buffer, packets.DONTWAIT)
        except BlockingIOError:
            return True
        except packets.BadPacket as error:
            garbage(str(error))
            return True
        except ConnectionResetError:
            return True  # it closed without reading all; what it had sent before is still to come
        except OSError:
            return False
        if message is None:
            return False
        header, frames = message
        if frames and any(size_of(frame) > self._max_bytes for frame in frames):
            garbage(f"a frame of more than {self._max_bytes} bytes")
        else:
            hear(header, frames)
        return True

    def drop(self) -> None:
        """Close, and forget what waits."""
        self._waiting.clear()
        self.close()

    def close(self) -> None:
        self._loop.remove(self.sock.fileno())
        with contextlib.suppress(OSError):
            self.sock.settimeout(1.0)
            while self._waiting:
                packets.send(self.sock, *self._waiting.popleft())
        self.sock.close()


class UnixChannel:
    """A peer's side of a Unix connection to the interchange."""

    def __init__(self, loop: Loop, path: str, max_bytes: int, hear: Hear, hang_up: HangUp) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        self._connection = _Connection(loop, sock, max_bytes)
        self._hear = hear
        self._hang_up = hang_up
        self._open = True
        loop.add(sock.fileno(), self._read)

    def send(self, header: bytes, frames: Sequence[Any]) -> None:
        """Send to the interchange, now or when there is room."""
        if self._open:
            self._connection.send(header, frames)

    def _read(self) -> None:
        if not self._connection.read(lambda header, frames: self._hear(None, header, frames), lambda _: None):
            self.close()
            self._hang_up(None)

    def close(self) -> None:
        """Send what waits, briefly, and close."""
        if self._open:
            self._open = False
            self._connection.close()


class UnixServer:
    """The interchange's side of a Unix endpoint in a directory that only its user can enter.

    Args:
        unread_max: a peer that leaves more messages than this unread is hung up on; None for no limit.

    Attributes:
        path: of the socket that it listens on.
    """

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        max_bytes: int,
        hear: Hear,
        hang_up: HangUp,
        garbage: Garbage,
        unread_max: int | None = None,
    ) -> None:
        self._loop = loop
        self.path = Path(listener.getsockname())
        self._max_bytes = max_bytes
        self._hear = hear
        self._hang_up = hang_up
        self._garbage = garbage
        self._unread_max = math.inf if unread_max is None else unread_max
        self._connections: dict[Hashable, _Connection] = {}
        self._next = 0
        self._listener = listener
        self._listener.setblocking(False)
        loop.add(listener.fileno(), self._accept)

    def listen_at(self, listener: socket.socket) -> None:
        """Take new connections from this socket instead; those that are open stay."""
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        self.path = Path(listener.getsockname())
        self._listener = listener
        self._listener.setblocking(False)
        self._loop.add(listener.fileno(), self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # out of descriptors, say: the others go on
                self._garbage(f"a connection could not be accepted: {error}")
                time.sleep(SHORTAGE_PAUSE_S)  # it still waits, and would keep this process busy
                return
            pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if uid != os.getuid():
                self._garbage(f"a connection of user {uid}")
                sock.close()
                continue
            self._next += 1
            peer = self._next
            connection = self._connections[peer] = _Connection(self._loop, sock, self._max_bytes, pid)
            self._loop.add(sock.fileno(), lambda peer=peer, connection=connection: self._read(peer, connection))  # type: ignore[misc]

    def _read(self, peer: int, connection: _Connection) -> None:
        if not connection.read(lambda header, frames: self._hear(peer, header, frames), self._garbage):
            del self._connections[peer]
            connection.close()
            self._hang_up(peer)

    def send(self, peer: Hashable, header: bytes, frames: Sequence[Any]) -> None:
        """Send to a peer; if it is gone, nothing happens."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.send(header, frames)
            if connection.unread > self._unread_max:
                self._garbage("a peer asks and asks, and reads nothing")
                del self._connections[peer]
                connection.drop()
                self._hang_up(peer)

    def goes_on(self, peer: Hashable) -> bool:
        """Whether it is seen, without a letter, that a peer's process is neither stopped nor gone."""
        connection = self._connections.get(peer)
        return connection is not None and process_state.goes_on(connection.pid)

    def close(self) -> None:
        """Send what waits, briefly, and close."""
        for connection in self._connections.values():
            connection.close()
        self._loop.remove(self._listener.fileno())
        self._listener.close()
        self.path.unlink(missing_ok=True)
