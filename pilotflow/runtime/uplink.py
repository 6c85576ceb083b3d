"""A manager's connection to its interchange: which way, since when, and whether it still holds."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pilotflow.core.addresses import is_settled
from pilotflow.core.post import Letter, Post
from pilotflow.errors import ConfigError
from pilotflow.ids import UNREACHABLE
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.manager import ToManager, to_manager
from pilotflow.runtime.channels import Channel, connect
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.loop import Loop

ATTEMPT_S: Final = 4.0
"""After so long without an answer the next of several endpoints is tried."""
RECONNECT_TIMEOUT_S: Final = 10.0
"""A manager whose interchange hung up and does not come back for so long ends."""
LOOK_S: Final = 0.25
"""The successor of a durable run's interchange is looked for this often."""
_INTERCHANGE: Final = "interchange"


class Gone(NamedTuple):
    """The interchange cannot be had any more: in words, and with which code the manager exits."""

    reason: str
    code: int


class Uplink:
    """The way of one manager to its interchange.

    Args:
        loop: calls us when there is something to read.
        connection: the run's.
        node, executor: whose manager it is, for messages.
        session: what the interchange calls this connection.
        hear: called with the messages of a letter, and their frames.
        greet: called when another way is tried: what was said first must be said again.
        log: the manager's log.
        file: the connection file, where the successor of a durable run's interchange is found.
        context: of ZeroMQ, shared by the managers of one process.

    Attributes:
        heard_at: when the interchange was last heard.
    """

    def __init__(
        self,
        loop: Loop,
        connection: Connection,
        node: str,
        executor: str,
        session: str,
        hear: Callable[[list[ToManager], Any], None],
        greet: Callable[[], None],
        log: logging.Logger,
        file: Path,
        context: Any = None,
    ) -> None:
        self._file = file
        self._looked_at = 0.0  # into that file, while the interchange is away
        self._loop = loop
        self._connection = connection
        self._node = node
        self._executor = executor
        self._session = session.encode()
        self._take = hear
        self._greet = greet
        self._log = log
        self._context = context
        self._post = Post(time.time_ns())
        self._decode = to_manager()
        self._endpoints = endpoints_from(connection, socket.gethostname())
        self._at = 0
        self._started = self.heard_at = self._tried_at = time.monotonic()
        self._hung_up_at: float | None = None
        self._gone: Gone | None = None
        self._registered = False
        self._channel = self._connect()

    @property
    def endpoint(self) -> str:
        """The one that is used now."""
        return self._endpoints[self._at]

    @property
    def is_local(self) -> bool:
        """Whether the interchange is on this host, and reached by a Unix socket."""
        return self.endpoint.startswith("unix:")

    @property
    def due_at(self) -> float:
        """When `lost` must be called again, if nothing is heard until then."""
        if self._hung_up_at is None:
            return float("inf")
        return self._looked_at + LOOK_S if self._waits else self._hung_up_at + RECONNECT_TIMEOUT_S + 0.01

    @property
    def _waits(self) -> bool:
        """Whether a successor of an interchange that has hung up is waited for."""
        return self._registered and self._connection.keep_s > 0

    def registered(self) -> None:
        """The interchange has let this manager in: this is the way."""
        self._registered = True

    def forget(self) -> None:
        """The interchange does not know us (any more): begin anew with it."""
        self._post.forget(_INTERCHANGE)

    def send(self, letter: Letter) -> None:
        """Something that arrives, in order, once; repeats what the interchange has missed."""
        waits = self._hung_up_at is not None and self._waits  # a successor is told what counts when we register with it
        for _, header, frames in self._post.send({_INTERCHANGE: letter} if letter.messages else {}):
            if not waits:
                self._channel.send(header, frames)

    def note(self, message: Any) -> None:
        """Something that may be lost."""
        self._channel.send(self._post.sign_of_life(_INTERCHANGE, [message]), ())

    def lost(self, now: float) -> Gone | None:
        """Whether the interchange has hung up and stays away."""
        if self._hung_up_at is not None and self._waits:
            if now - self._hung_up_at > self._connection.keep_s:
                return Gone("the interchange is gone, and none has taken its place", 1)
            if now - self._looked_at >= LOOK_S:
                self._looked_at = now
                self._look_for_successor(now)
            return None
        if self._gone is None and self._hung_up_at is not None and now - self._hung_up_at > RECONNECT_TIMEOUT_S:
            self._gone = Gone("the interchange is gone", 1)
        return self._gone

    def silent(self, now: float, silent_s: float) -> Gone | None:
        """Whether the interchange is silent for too long; tries another way, if this one has never answered.

        Args:
            now: monotonic clock.
            silent_s: for how long it has not answered a registered manager, if that is too long, else 0.
        """
        if self._hung_up_at is not None and self._waits:
            return None
        if self._registered:
            if silent_s:
                if self._waits:
                    self._hung_up_at = now
                    return None
                return Gone(f"the interchange ({self.endpoint}) answered no heartbeat for {silent_s:.0f} s", 1)
        elif now - self._started > self._connection.connect_timeout_s:
            return self._unreachable(now - self._started)
        elif len(self._endpoints) > 1 and now - self._tried_at > ATTEMPT_S and now - self.heard_at > ATTEMPT_S:
            self._try_next(now)
        return None

    def close(self) -> None:
        """Send what waits, briefly, and close."""
        self._channel.close()

    # ---- inside -----------------------------------------------------------------------------

    def _connect(self) -> Channel:
        keys = self._connection.keys
        self._log.info("connecting to %s", self.endpoint)
        return connect(
            self._loop,
            self.endpoint,
            self._session,
            (keys.server_public, keys.manager_public, keys.manager_secret),
            self._connection.max_message_bytes,
            self._hear,
            self._hung_up,
            self._context,
        )

    def _look_for_successor(self, now: float) -> None:
        """Go to the interchange of a later epoch, if the connection file names one."""
        try:
            connection = read_connection(self._file)
            if connection.epoch <= self._connection.epoch or connection.run_id != self._connection.run_id:
                return
            endpoints = endpoints_from(connection, socket.gethostname())
            if not all(is_settled(endpoint) for endpoint in endpoints):
                return  # it has not chosen its port yet
        except ConfigError:  # it is being written, or its host listens nowhere yet
            return
        self._log.info("the interchange of epoch %d takes the place of the last one", connection.epoch)
        before = (self._connection, self._endpoints, self._at)
        self._connection, self._endpoints, self._at = connection, endpoints, 0
        try:
            channel = self._connect()
        except OSError as error:
            self._log.warning("it cannot be reached yet: %s", error)
            self._connection, self._endpoints, self._at = before
            return
        self._channel.close()
        self._channel = channel
        self._hung_up_at, self.heard_at, self._tried_at = None, now, now
        self.forget()
        self._greet()

    def _try_next(self, now: float) -> None:
        self._channel.close()
        self._at = (self._at + 1) % len(self._endpoints)
        self._tried_at = now
        self._channel = self._connect()
        self.forget()
        self._greet()

    def _unreachable(self, seconds: float) -> Gone:
        if self.endpoint.startswith("unix:"):
            return Gone(f"the interchange ({self.endpoint}) could not be reached for {seconds:.0f} s", UNREACHABLE)
        from pilotflow.runtime.addresses import why_unreachable  # all others start without it

        words = why_unreachable(self._node, self._connection.host, self._executor, self._endpoints, seconds)
        return Gone(words, UNREACHABLE)

    def _hung_up(self, _: Hashable) -> None:
        """The connection has closed. A Unix one does so when the interchange is dead."""
        if self.endpoint.startswith("unix:") and not self._waits:
            self._gone = Gone("the interchange is gone", 1)
        elif self._hung_up_at is None:
            self._hung_up_at = time.monotonic()

    def _hear(self, _: Hashable, header: Any, frames: Sequence[Any]) -> None:
        try:
            envelope = self._decode(header)
        except BadMessage as error:
            self._log.warning("dropped a message that is not ours: %s", error)
            return
        self.heard_at = time.monotonic()
        self._hung_up_at = None
        for messages, parts in self._post.receive(_INTERCHANGE, envelope, frames) or ():
            self._take(messages, parts)


def endpoints_from(connection: Connection, host: str) -> list[str]:
    """Where the interchange listens for managers on this host, best first.

    Raises:
        ConfigError: nowhere.
    """
    for endpoint in connection.managers:
        if endpoint.startswith("unix:") and connection.host == host and Path(endpoint[5:]).parent.is_dir():
            return [endpoint]
    found = [endpoint for endpoint in connection.managers if not endpoint.startswith("unix:")]
    if not found and connection.host == host:
        gone = ", ".join(endpoint[5:] for endpoint in connection.managers)
        raise ConfigError(f"Run {connection.run_id} is over, or its sockets were removed: there is no {gone}.")
    if not found:
        raise ConfigError(
            f"The run listens only on this host's Unix sockets ({connection.host}), and this manager is on "
            f"{host}. Give the executor an address, so that it listens on TCP."
        )
    return found
