"""Payloads in files: a header and frames, which lie where arrays in them can be used without a copy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pilotflow.memfile import buffer_of
from pilotflow.serialize import Packed

ALIGNMENT: Final = 64
"""Frames begin at multiples of this."""
MAGIC_BYTES: Final = 8
_LENGTH: Final = struct.Struct("<I")
_START: Final = MAGIC_BYTES + _LENGTH.size


class FrameHead(msgspec.Struct, frozen=True, array_like=True):
    """What a file begins with.

    Attributes:
        header: of whoever made the file.
        layout: of the payload, see `Packed`.
        sizes: bytes of each frame; the first one is the inline payload.
    """

    header: bytes
    layout: tuple[int, ...]
    sizes: tuple[int, ...]


def pieces(magic: bytes, header: bytes, packed: Packed) -> Iterator[Any]:
    """The file of a payload, as buffers to be written one after the other.

    Args:
        magic: 8 bytes that tell what kind of file it is.
        header: what else is to be known.
        packed: the payload.
    """
    frames = [memoryview(buffer_of(frame)).cast("B") for frame in (packed.payload, *packed.frames)]
    head = msgspec.msgpack.encode(FrameHead(header, packed.layout, tuple(map(len, frames))))
    yield magic + _LENGTH.pack(len(head)) + head
    at = _START + len(head)
    for frame in frames:
        yield b"\0" * (-at % ALIGNMENT)
        yield frame
        at += -at % ALIGNMENT + len(frame)


def head_length(start: bytes | memoryview, magic: bytes) -> int | None:
    """How long the head of a file is that begins with these `_START` bytes; None if it is of another kind."""
    if len(start) < _START or bytes(start[:MAGIC_BYTES]) != magic:
        return None
    return int(_LENGTH.unpack(start[MAGIC_BYTES:_START])[0])


def read_header(file: Any, magic: bytes) -> bytes | None:
    """The header of an open file; None if it is no such file."""
    length = head_length(file.read(_START), magic)
    if length is None:
        return None
    try:
        return msgspec.msgpack.decode(file.read(length), type=FrameHead).header
    except msgspec.MsgspecError:
        return None


def parsed(data: memoryview, magic: bytes) -> tuple[bytes, Packed] | None:
    """The header and the payload of a file, whose frames are parts of `data`; None if it is no such file, or not whole."""
    length = head_length(data[:_START], magic)
    if length is None:
        return None
    at = _START + length
    try:
        head = msgspec.msgpack.decode(data[_START:at], type=FrameHead)
    except msgspec.MsgspecError:  # of another version, or cut
        return None
    frames: list[Any] = []
    for size in head.sizes:
        at += -at % ALIGNMENT
        frames.append(data[at : at + size])
        at += size
    if at > len(data) or not frames:
        return None
    return head.header, Packed(bytes(frames[0]), head.layout, tuple(frames[1:]))


def write_pieces(write: Any, buffers: Iterator[Any], digest: Any) -> None:
    """Write buffers and have a digest see them."""
    for buffer in buffers:
        digest.update(buffer)
        write(buffer)
