"""The client's conversation with the interchange: messages collected into letters, letters heard.

Used by the client loop's thread only. One letter goes out each turn, and acknowledgements of
results ride along with it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from pilotflow.core.post import Letter, Post
from pilotflow.messages.client import AckResults, ClientAlive, Submit, to_client
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.records import Task
from pilotflow.runtime.channels import connect
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.loop import Loop

SUBMIT_MAX = 2000
"""Tasks in one letter: the first can start while the next are encoded."""
ACK_DELAY_S = 0.02
"""Acknowledgements of results wait this long for a letter that goes anyway..."""
ACKS_MAX = 64
"""...or until there are so many."""

_INTERCHANGE = "interchange"


class Mailbox:
    """Letters to and from the interchange.

    Args:
        loop: the client's loop, which calls us when something has come.
        connection: where the interchange is.
        take: called with each message, and the payload frames of its letter.
        hang_up: called when the connection has closed.
        log: the run's log.

    Attributes:
        heard_at: when something last came, by the monotonic clock.
    """

    def __init__(
        self,
        loop: Loop,
        connection: Connection,
        take: Callable[[Any, Sequence[Any]], None],
        hang_up: Callable[[], None],
        log: logging.Logger,
    ) -> None:
        self.heard_at = time.monotonic()
        self._take = take
        self._log = log
        self._post = Post(time.time_ns())
        self._decode = to_client()
        self._letter = Letter()
        self._acks: list[tuple[int, int]] = []
        self._acks_due = math.inf
        keys = connection.keys
        self._channel = connect(
            loop,
            connection.client[0],
            b"client",
            (keys.server_public, keys.client_public, keys.client_secret),
            connection.max_message_bytes,
            self._hear,
            lambda _: hang_up(),
        )

    def add(self, message: Any) -> None:
        """Say this in the next letter."""
        self._letter.messages.append(message)

    def add_tasks(self, tasks: list[Task], frames: list[Any], *, again: bool = False) -> None:
        """Submit these tasks, whose payload frames follow each other; long lists in several letters.

        `again` ones may be running still, since a program that is gone has submitted them before.
        """
        at = 0
        for start in range(0, len(tasks), SUBMIT_MAX):
            if start:
                self._send_letter()
            part = tasks[start : start + SUBMIT_MAX]
            self._letter.messages.append(Submit(part, again))
            if frames:
                end = at + sum(sum(task.layout) for task in part)
                self._letter.frames += frames[at:end]
                at = end

    def acknowledge(self, manager: int, seq: int) -> None:
        """The results of this batch are recorded."""
        if not self._acks:
            self._acks_due = self.heard_at + ACK_DELAY_S
        self._acks.append((manager, seq))

    @property
    def due_at(self) -> float:
        """When `send` must be called even if nothing happens."""
        return self._acks_due

    def send(self, now: float) -> None:
        """Send what there is to say, and what the interchange has asked for again."""
        if self._letter.messages or len(self._acks) >= ACKS_MAX or now >= self._acks_due:
            self._send_letter()
        elif wires := self._post.send({}):
            self._dispatch(wires)

    def send_sign_of_life(self) -> None:
        """Say that we are here, and ask whether the interchange is."""
        self._channel.send(self._post.sign_of_life(_INTERCHANGE, [ClientAlive()]), ())

    def close(self) -> None:
        """Send what waits, briefly, and close."""
        self._channel.close()

    def _send_letter(self) -> None:
        letter, self._letter = self._letter, Letter()
        if self._acks:
            letter.messages.append(AckResults(self._acks))
            self._acks = []
            self._acks_due = math.inf
        self._dispatch(self._post.send({_INTERCHANGE: letter}))

    def _dispatch(self, wires: list[tuple[Hashable, bytes, Sequence[Any]]]) -> None:
        for _, header, frames in wires:
            self._channel.send(header, frames)

    def _hear(self, _: Hashable, header: Any, frames: Sequence[Any]) -> None:
        try:
            envelope = self._decode(header)
        except BadMessage as error:
            self._log.warning("dropped a message that is not ours: %s", error)
            return
        self.heard_at = time.monotonic()
        for messages, parts in self._post.receive(_INTERCHANGE, envelope, frames) or ():
            for message in messages:
                self._take(message, parts)
