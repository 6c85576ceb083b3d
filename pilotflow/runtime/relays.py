"""The head manager's socket: relays in the steps of its tasks connect to it, and are known by name."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import msgspec
import zmq

from pilotflow.core.addresses import endpoint_of, split_endpoint
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.relay_link import FromRelay, ToRelay, decode_from_relay, encode
from pilotflow.runtime.zmq_channels import ZmqServer, answer_key_questions


class Listener(Protocol):
    """Who has started a step, and hears what its relay says."""

    def __call__(self, message: FromRelay, frames: Sequence[Any]) -> None:
        """Something has come."""


class Relays:
    """One ROUTER for the steps of all nodes, with the keys of the run.

    Args:
        loop: reads it.
        connection: the run's; its managers' keys are the relays' too.
        address: where to listen.
        log: hears of what is not ours.

    Attributes:
        endpoint: where relays connect to.
        context: of ZeroMQ, for whatever else this process connects to.
    """

    def __init__(self, loop: Loop, connection: Connection, address: str, log: logging.Logger) -> None:
        self._log = log
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        keys = connection.keys
        if keys.server_secret:
            answer_key_questions(loop, self.context, {"manager": keys.manager_public})
        self._server = ZmqServer(
            loop,
            self.context,
            endpoint_of(address),
            "manager",
            keys.server_secret,
            connection.max_message_bytes,
            self._hear,
            self._garbage,
        )
        self.endpoint = endpoint_of(address, split_endpoint(self._server.endpoint)[1])
        self._listeners: dict[bytes, Listener] = {}

    def expect(self, name: str, listener: Listener) -> None:
        """A step of this name is about to start."""
        self._listeners[name.encode()] = listener

    def forget(self, name: str) -> None:
        """That step is over."""
        self._listeners.pop(name.encode(), None)

    def send(self, name: str, message: ToRelay, frames: Sequence[Any] = ()) -> None:
        """Tell a step's relay something; if it is gone, nothing happens."""
        self._server.send(name.encode(), encode(message), frames)

    def close(self) -> None:
        """Nobody is listened to any more."""
        self._server.close()
        self.context.destroy(linger=500)

    def _hear(self, peer: Hashable, header: Any, frames: Sequence[Any]) -> None:
        listener = self._listeners.get(peer)  # type: ignore[call-overload]  # names are bytes
        if listener is None:
            return  # of a step that was given up
        try:
            message = decode_from_relay(header)
        except msgspec.MsgspecError as error:
            self._garbage(str(error))
            return
        listener(message, frames)

    def _garbage(self, why: str) -> None:
        self._log.warning("dropped a message that is not ours: %s", why[:200])
