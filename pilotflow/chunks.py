"""A pickle stream in chunks: as the pickler wrote them, so that long `bytes` in it are never copied."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from pilotflow.memfile import MemoryFile, size_of

LONG_BYTES = 128 * 1024
"""Above the pickler's own frame size (64 KiB): a chunk as long as this is one long `bytes`."""


def coalesced(chunks: list[Any]) -> list[Any]:
    """The pickler's small chunks joined, long `bytes` left as they are."""
    joined: list[Any] = []
    run: list[Any] = []
    for chunk in chunks:
        if len(chunk) < LONG_BYTES:
            run.append(chunk)
            continue
        if run:
            joined.append(b"".join(run))
            run = []
        joined.append(chunk)
    if run:
        joined.append(b"".join(run))
    return joined


class ChunkReader:
    """File over chunks, as an `Unpickler` reads it: long bytes go straight into their place."""

    def __init__(self, chunks: Sequence[Any]) -> None:
        self._chunks = list(reversed(chunks))
        self._at = 0  # in the last one, which is the next

    def readinto(self, target: Any) -> int:
        """Fill a buffer; how many bytes there were for it."""
        view = memoryview(target).cast("B")
        done = 0
        while done < len(view) and self._chunks:
            chunk = self._chunks[-1]
            if type(chunk) is MemoryFile:
                n = chunk.read_into(view[done:], self._at)
            else:
                part = memoryview(chunk).cast("B")[self._at : self._at + len(view) - done]
                n = len(part)
                view[done : done + n] = part
            done += n
            self._at += n
            if not n or self._at >= size_of(chunk):
                self._chunks.pop()
                self._at = 0
        return done

    def read(self, size: int) -> bytes:
        """The next bytes, at most so many."""
        data = bytearray(size)
        return bytes(data[: self.readinto(data)])

    def readline(self) -> bytes:
        """The next bytes, up to the end of a line."""
        line = io.BytesIO()
        while (byte := self.read(1)) != b"":
            line.write(byte)
            if byte == b"\n":
                break
        return line.getvalue()
