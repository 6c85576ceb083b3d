"""Channels over TCP: ZeroMQ sockets with CURVE, and only the run's own keys let in."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import zmq
import zmq.utils.z85

from pilotflow.memfile import buffer_of
from pilotflow.runtime import limits
from pilotflow.runtime.channels import Garbage, HangUp, Hear
from pilotflow.runtime.loop import Loop

_HANDSHAKE_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)


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


class ZmqChannel:
    """A peer's DEALER to the interchange."""

    def __init__(
        self,
        loop: Loop,
        endpoint: str,
        identity: bytes,
        keys: tuple[str, str, str],
        max_message_bytes: int,
        hear: Hear,
        hang_up: HangUp,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
    ) -> None:
        self._hear = hear
        self._own = context is None
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context() if context is None else context
        self._socket = self._context.socket(zmq.DEALER)
        prepare(self._socket, max_message_bytes)
        self._socket.set(zmq.ROUTING_ID, identity)
        if keys[0]:
            self._socket.set(zmq.CURVE_SERVERKEY, keys[0].encode())
            self._socket.set(zmq.CURVE_PUBLICKEY, keys[1].encode())
            self._socket.set(zmq.CURVE_SECRETKEY, keys[2].encode())
        self._loop = loop
        self._monitor = monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

        def hung_up() -> None:
            while _receive(monitor) is not None:
                hang_up(None)

        loop.add_socket(monitor, hung_up)
        loop.add_socket(self._socket, self._read)
        self._socket.connect(endpoint)

    def _read(self) -> None:
        for _ in range(limits.READ_MAX):
            parts = _receive(self._socket)
            if parts is None:
                return
            self._hear(None, parts[0].buffer, parts[1:])

    def send(self, header: bytes, frames: Sequence[Any]) -> None:
        """Send to the interchange, now or when it is there."""
        self._socket.send_multipart([header, *map(buffer_of, frames)], zmq.NOBLOCK, copy=False)

    def close(self) -> None:
        """Send what waits, briefly, and close; the second time nothing happens."""
        if not self._socket.closed:
            _close(self._loop, self._socket, self._monitor, linger=1000)
            if self._own:
                self._context.destroy(linger=1000)


class ZmqServer:
    """The interchange's ROUTER on one endpoint.

    A peer that leaves more messages than `unread_max` unread is sent no more; None for no limit.
    """

    def __init__(
        self,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        domain: str,
        server_secret: str,
        max_message_bytes: int,
        hear: Hear,
        garbage: Garbage,
        unread_max: int | None = None,
    ) -> None:
        self._loop = loop
        self._hear = hear
        self._garbage = garbage
        self._socket = context.socket(zmq.ROUTER)
        prepare(self._socket, max_message_bytes)
        if unread_max is not None:
            self._socket.set(zmq.SNDHWM, unread_max)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.ROUTER_HANDOVER, 1)
        if server_secret:
            self._socket.set(zmq.CURVE_SERVER, 1)
            self._socket.set(zmq.CURVE_SECRETKEY, server_secret.encode())
            self._socket.set(zmq.ZAP_DOMAIN, domain.encode())
            self._socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError:
            self._socket.close()
            raise
        self._monitor = self._socket.get_monitor_socket(_HANDSHAKE_FAILED)
        loop.add_socket(self._monitor, self._count_failed_handshakes)
        loop.add_socket(self._socket, self._read)
        self.endpoint = bytes(self._socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()

    def _read(self) -> None:
        for _ in range(limits.READ_MAX):
            parts = _receive(self._socket)
            if parts is None:
                return
            if len(parts) < 2:
                self._garbage("a message without a header")
                continue
            self._hear(parts[0].bytes, parts[1].buffer, parts[2:])

    def _count_failed_handshakes(self) -> None:
        while _receive(self._monitor) is not None:
            self._garbage("a connection that does not speak our protocol or has no valid key")

    def send(self, peer: Hashable, header: bytes, frames: Sequence[Any]) -> None:
        """Send to a peer; if it is gone, nothing happens."""
        try:
            parts: list[Any] = [peer, header, *map(buffer_of, frames)]
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def goes_on(self, _: Hashable) -> bool:
        """Of processes of other hosts nothing is seen but their letters."""
        return False

    def close(self) -> None:
        """Send what waits, briefly, and close; the second time nothing happens."""
        if not self._socket.closed:
            _close(self._loop, self._socket, self._monitor, linger=500)


def answer_key_questions(
    loop: Loop, context: zmq.Context[zmq.Socket[bytes]], allowed: dict[str, str]
) -> zmq.Socket[bytes]:
    """Let only these keys (by domain, Z85) through CURVE: ZeroMQ asks over ZAP (ZeroMQ RFC 27)."""
    keys = {domain.encode(): zmq.utils.z85.decode(key) for domain, key in allowed.items()}
    zap = context.socket(zmq.REP)
    zap.linger = 0
    zap.bind("inproc://zeromq.zap.01")

    def answer() -> None:
        while True:
            try:
                version, request, domain, _, _, mechanism, *credentials = zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            ours = mechanism == b"CURVE" and credentials == [keys.get(domain)]
            verdict = (b"200", b"OK", domain) if ours else (b"400", b"unknown key", b"")
            zap.send_multipart([version, request, *verdict, b""])

    loop.add_socket(zap, answer)
    return zap


def _close(loop: Loop, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes], linger: int) -> None:
    """Close a socket and its monitor; what waits is sent within `linger` milliseconds."""
    loop.remove_socket(monitor)
    loop.remove_socket(socket)
    socket.disable_monitor()
    socket.close(linger=linger)


def _receive(socket: zmq.Socket[bytes]) -> list[Any] | None:
    """One message without copies, or None if there is none."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
