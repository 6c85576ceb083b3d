"""The sessions of one process with all its peers: envelopes in, letters out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotflow.core.session import Session
from pilotflow.messages.codec import Envelope, encode

STRANGER = 0
"""Stream of a note from a side that has no session with the receiver."""


@dataclass
class Letter:
    """What one peer is to be sent this turn: messages, and the payload frames they count."""

    messages: list[Any] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)


class Post:
    """All sessions of one process.

    Args:
        stream: number of this life of the process; it and those after it must be unused before.
    """

    def __init__(self, stream: int) -> None:
        self._stream = stream
        self._stranger_stream = STRANGER
        self._sessions: dict[Hashable, Session] = {}
        self._pressing: dict[Hashable, Session] = {}

    def receive(
        self, key: Hashable, envelope: Envelope[Any], frames: Sequence[Any]
    ) -> list[tuple[list[Any], Sequence[Any]]] | None:
        """What has arrived from a peer, in order; None if the peer believes we know it.

        None must be answered with a `stranger_note`.
        """
        session = self._sessions.get(key)
        if envelope.stream <= STRANGER:
            if envelope.stream < STRANGER or session is None or envelope.ack_stream not in (STRANGER, session.stream):
                return []  # about a session that is over already
            return [(envelope.messages, frames)]
        if session is None:
            if envelope.seq != 1 or envelope.ack_stream:
                self._stranger_stream = envelope.stream
                return None
            session = self.open(key)
        elif STRANGER < session.their_stream < envelope.stream and not envelope.ack_stream:
            session = self.open(key)  # the peer has begun anew and knows nothing of our numbering
        arrived = session.unwrap(envelope, frames)
        if session.pressing:
            self._pressing[key] = session
        return arrived

    def open(self, key: Hashable) -> Session:
        """Begin a new session with a peer."""
        self._stream += 1
        self._pressing.pop(key, None)
        session = self._sessions[key] = Session(self._stream)
        return session

    def forget(self, key: Hashable) -> None:
        """The peer is gone."""
        self._sessions.pop(key, None)
        self._pressing.pop(key, None)

    def session(self, key: Hashable) -> Session | None:
        """The session with a peer, for those who look on; None if there is none."""
        return self._sessions.get(key)

    def stranger_note(self, message: Any) -> bytes:
        """A header for a peer with which there is no session: the answer to what it has just sent.

        It says which of the peer's streams it is about, so that a peer that has begun anew since
        then does not do so again.
        """
        stream, self._stranger_stream = self._stranger_stream, STRANGER
        return encode(Envelope(STRANGER, 0, stream, 0, False, [message]))

    def sign_of_life(self, key: Hashable, messages: Sequence[Any]) -> bytes:
        """A header that may be lost."""
        session = self._sessions.get(key) or self.open(key)
        return session.note(messages)[0]

    def send(self, letters: Mapping[Hashable, Letter]) -> list[tuple[Hashable, bytes, Sequence[Any]]]:
        """The letters as (peer, header, frames), after what has to be repeated, then acknowledgements."""
        wires: list[tuple[Hashable, bytes, Sequence[Any]]] = []
        pressing = self._pressing
        for key, session in pressing.items():
            for header, frames in session.take_resends():
                wires.append((key, header, frames))
        for key, letter in letters.items():
            session = self._sessions.get(key) or self.open(key)
            header, frames = session.wrap(letter.messages, letter.frames)
            wires.append((key, header, frames))
        if pressing:
            for key, session in pressing.items():
                if session.pressing:
                    wires.append((key, session.note()[0], ()))
            pressing.clear()
        return wires
