"""The text that keys are digests of: pieces of it, and the gaps that futures leave in it.

The text of a value is made of prefixes and lengths, so that no two values share one, in any process
and on any host. What a future stands for is not known yet: it leaves a gap, which is filled with the
text of its result later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import Future
from types import FunctionType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

LONG_BYTES: Final = 256
"""Longer strings and buffers stand in the text as their digest."""
DIGEST_BYTES: Final = 20


class Unordered(NamedTuple):
    """The texts of things whose order does not count; they are sorted once all are known."""

    parts: list[Any]


Text: TypeAlias = "list[bytes | Future[Any] | Unordered]"
"""Pieces of a value's text, gaps among them."""


class KeyWriter(Protocol):
    """What writes the text of values.

    Attributes:
        functions: those that it has written, so that one that refers to itself ends.
    """

    functions: list[FunctionType]

    def put(self, value: Any) -> None:
        """Write a value.

        Raises:
            CacheKeyError: it cannot be keyed, or something in it cannot.
        """

    def named(self, what: str, kind: type, values: tuple[Any, ...]) -> None:
        """Write values under the name of a class."""

    def buffer(self, data: Any) -> None:
        """Write what is in a buffer."""

    def can_put(self, value: Any) -> bool:
        """Write a value if that is possible."""


def digest(data: Any) -> bytes:
    """The digest that keys are made of."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def atom(tag: bytes, data: bytes | memoryview) -> bytes:
    """The text of plain data of any length."""
    if len(data) > LONG_BYTES:
        return b"#%b%b" % (tag, digest(data))
    return b"%b%d:%b" % (tag, len(data), bytes(data))


def gaps(text: Text) -> list[Future[Any]]:
    """The futures whose results are missing in a text."""
    found: list[Future[Any]] = []
    for piece in text:
        if isinstance(piece, Unordered):
            for part in piece.parts:
                found += gaps(part)
        elif not isinstance(piece, bytes):
            found.append(piece)
    return found


def joined_in_order(parts: Iterable[bytes]) -> bytes:
    """The text of things whose order does not count."""
    return b"".join(sorted(parts))
