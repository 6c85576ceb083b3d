"""Letters between two peers that arrive once and in order, whatever happens in between.

ZeroMQ keeps order and loses nothing while a connection lives, but what is on its way when one
breaks is gone. So letters are numbered and kept until the peer has acknowledged them, which it
does with everything it sends. A peer that sees a gap asks for the rest again; nothing is ever
repeated on a timer, so a slow reader is not flooded. The price is paid per letter, not per task.

Each life of each side has a *stream*. A letter names the stream that its sender believes to be
the receiver's, so that what was meant for an earlier life is recognised, however late it comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from pilotflow.memfile import size_of
from pilotflow.messages.codec import Envelope, encode

ACK_EVERY = 64
"""Letters received before an acknowledgement is sent for its own sake."""
ACK_BYTES = 1 << 20
"""A letter with so much payload is acknowledged at once, so that the sender can let it go."""
EARLY_MAX = 10_000
"""Letters kept that came before an earlier one..."""
EARLY_FRAMES = 256
"""...as long as they have fewer payload frames than this together, since each may be an open file..."""
EARLY_BYTES = 64 << 20
"""...and fewer bytes in them. The others are asked for again, with the one that is missing."""


class Session:
    """One side of the exchange of letters with one peer.

    Args:
        stream: number of this life of our side, larger than any before (say, a clock's reading).
    """

    __slots__ = (
        "_early",
        "_kept",
        "_out_of_order",
        "_resend",
        "_sent",
        "_to_ack",
        "again",
        "received",
        "stream",
        "their_stream",
    )

    def __init__(self, stream: int) -> None:
        self.stream = stream
        self.their_stream = 0
        self.received = 0
        self.again = False
        self._sent = 0
        self._to_ack = 0
        self._out_of_order = 0  # letters that came while an earlier one is missing
        self._kept: deque[tuple[int, bytes, Sequence[Any]]] = deque()
        self._early: dict[int, tuple[list[Any], Sequence[Any]]] = {}
        self._resend: list[tuple[bytes, Sequence[Any]]] = []

    @property
    def pressing(self) -> bool:
        """Whether there is something to send for the session's own sake."""
        return bool(self._resend) or self.again or self._to_ack >= ACK_EVERY

    @property
    def sent(self) -> int:
        """Letters sent that must arrive."""
        return self._sent

    @property
    def unacknowledged(self) -> int:
        """Letters kept until the peer says that it has them."""
        return len(self._kept)

    def wrap(self, messages: list[Any], frames: Sequence[Any]) -> tuple[bytes, Sequence[Any]]:
        """A letter that must arrive, as header and payload frames.

        It never asks for anything: it may be repeated, and two repeated requests for repetition
        would go back and forth for ever.
        """
        self._sent += 1
        self._to_ack = 0
        header = encode(Envelope(self.stream, self._sent, self.their_stream, self.received, False, messages))
        self._kept.append((self._sent, header, frames))
        return header, frames

    def note(self, messages: Sequence[Any] = ()) -> tuple[bytes, Sequence[Any]]:
        """A letter that may be lost: a sign of life, an acknowledgement, a request to send again."""
        self._to_ack = 0
        header = encode(
            Envelope(self.stream, -self._sent, self.their_stream, self.received, self.again, list(messages))
        )
        self.again = False
        return header, ()

    def unwrap(self, envelope: Envelope[Any], frames: Sequence[Any]) -> list[tuple[list[Any], Sequence[Any]]]:
        """What has now arrived: (messages, frames) of zero or more letters, in order."""
        if envelope.ack_stream != self.stream and envelope.ack_stream:
            return []  # meant for an earlier life of ours
        if envelope.stream != self.their_stream:
            if envelope.stream < self.their_stream:
                return []  # from an earlier life of theirs
            self.their_stream = envelope.stream
            self.received = 0
            self._early.clear()
        if envelope.ack_stream:
            self._acknowledged(envelope.ack, envelope.again)
        seq = envelope.seq
        if seq <= 0:
            self.again = -seq > self.received
            return [(envelope.messages, frames)] if envelope.messages else []
        if seq != self.received + 1:
            self._out_of_turn(seq, envelope.messages, frames)
            return []
        self.received = seq
        self._to_ack += ACK_EVERY if frames and sum(map(size_of, frames)) >= ACK_BYTES else 1
        arrived = [(envelope.messages, frames)]
        if self._early:
            while (following := self._early.pop(self.received + 1, None)) is not None:
                self.received += 1
                arrived.append(following)
            self.again = bool(self._early)
        self._out_of_order = 0
        return arrived

    def take_resends(self) -> list[tuple[bytes, Sequence[Any]]]:
        """Letters that the peer has asked for again."""
        resend, self._resend = self._resend, []
        return resend

    def _out_of_turn(self, seq: int, messages: list[Any], frames: Sequence[Any]) -> None:
        if seq <= self.received:  # the peer repeats what we have: it must have missed that we do
            self._to_ack = ACK_EVERY
            return
        if len(self._early) < EARLY_MAX and (not frames or self._has_room_for(frames)):
            self._early[seq] = (messages, frames)
        # Every letter behind a gap shows the same gap; asking each time would multiply the answers.
        self._out_of_order += 1
        if self._out_of_order & (self._out_of_order - 1) == 0:
            self.again = True

    def _has_room_for(self, frames: Sequence[Any]) -> bool:
        early = [frame for _, each in self._early.values() for frame in each]
        return len(early) + len(frames) <= EARLY_FRAMES and sum(map(size_of, (*early, *frames))) <= EARLY_BYTES

    def _acknowledged(self, ack: int, again: bool) -> None:
        kept = self._kept
        while kept and kept[0][0] <= ack:
            kept.popleft()
        if again:
            self._resend = [(header, frames) for _, header, frames in kept]
