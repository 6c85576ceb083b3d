"""Envelopes: how what one peer says to another becomes bytes, and is read again.

Only `Register`, `Hello` and `Refused` must keep their shape over protocol versions, so that a
mismatch can be answered with words.
"""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

PROTOCOL: Final = 1
"""Raised whenever the meaning or shape of any message changes."""

M = TypeVar("M")


class BadMessage(ValueError):
    """A message that is not one of ours, or is cut, or breaks its own counts.

    Args:
        words: what is wrong with it.
        count: how many messages of a letter were as bad; the words are about the first.
    """

    def __init__(self, words: str, count: int = 1) -> None:
        super().__init__(words)
        self.count = count


class WrongProtocol(BadMessage):
    """A message of another protocol version."""

    def __init__(self, theirs: int) -> None:
        super().__init__(f"the peer speaks protocol {theirs}, this side speaks {PROTOCOL}")
        self.theirs = theirs


class Envelope(msgspec.Struct, Generic[M], array_like=True):
    """A header frame: what one peer says to another in one go (see `pilotflow.core.session`).

    Attributes:
        stream: the sender's numbering; a later life of the sender has a larger one.
        seq: the letter's number in it; 0 or less for a letter that need not arrive, and then
            minus the number of the last one that must.
        ack_stream, ack: the receiver's numbering, and the last letter of it that arrived whole.
        again: letters after `ack` are missing; send them again.
        messages: of one direction's union.
    """

    stream: int
    seq: int
    ack_stream: int
    ack: int
    again: bool
    messages: list[M]


_encoder = msgspec.msgpack.Encoder()
_PREFIX = bytes([PROTOCOL])


def encode(envelope: Envelope[Any]) -> bytes:
    """The header frame of an envelope."""
    return _PREFIX + _encoder.encode(envelope)


class Decoder(Generic[M]):
    """Turns header frames of one direction back into envelopes.

    Example:
        >>> from pilotflow.messages.manager import ManagerAlive, from_manager
        >>> decode = from_manager()
        >>> decode(encode(Envelope(1, 1, 0, 0, False, [ManagerAlive(None)]))).messages
        [ManagerAlive(time_left_s=None)]
    """

    def __init__(self, envelope: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(envelope).decode

    def __call__(self, header: bytes | memoryview) -> Envelope[M]:
        """The envelope in a header frame.

        Raises:
            WrongProtocol: the peer speaks another version.
            BadMessage: anything else that is not an envelope of this direction.
        """
        if not len(header) or header[0] != PROTOCOL:
            raise WrongProtocol(header[0] if len(header) else -1)
        try:
            envelope: Envelope[M] = self._decode(memoryview(header)[1:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise BadMessage(str(error)) from None
        return envelope
