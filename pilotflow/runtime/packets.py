"""Messages over Unix SEQPACKET sockets: one packet each, whole or not at all.

A packet is a header, and says where the payload frames are: short ones in the packet itself, long
ones in memory files whose descriptors go with it. So big payloads cross any number of processes of
a host without being copied.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final

from pilotflow.memfile import MemoryFile, buffer_of, size_of

PACKET_BYTES: Final = 96 * 1024
"""Longest packet: shorter than any system's default socket buffer."""
OWN_FILE_BYTES: Final = 64 * 1024
"""Frames from this size on have a memory file of their own, which can be handed on."""
FILES_MAX: Final = 200
"""Descriptors in one packet; Linux allows 253."""

# Plain integers: combining the enumeration's members costs more than the call they go to.
DONTWAIT: Final = int(socket.MSG_DONTWAIT)
"""For `send` and `receive`: raise BlockingIOError instead of waiting."""
_CLOEXEC: Final = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED: Final = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)

_FRAMED: Final = 0xC1
"""First byte of a packet with frames: one that neither msgpack nor our own headers begin with."""
_HEAD = struct.Struct("<BBIH")
_POOL_IN_FILE: Final = 1
_HEADER_IN_POOL: Final = 2
_ANCILLARY: Final = socket.CMSG_SPACE(4 * (FILES_MAX + 1))


class BadPacket(ValueError):
    """A packet that breaks its own counts."""


def new_buffer() -> bytearray:
    """Room for one packet."""
    return bytearray(PACKET_BYTES + 4096)


def tune(sock: socket.socket) -> None:
    """Give a socket room for several packets."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)


def send(sock: socket.socket, header: bytes, frames: Sequence[Any] = (), flags: int = 0) -> None:
    """Send one message.

    Raises:
        BlockingIOError: with DONTWAIT, if the peer has too much unread; nothing was sent.
        OSError: the peer is gone, or memory or descriptors are short.
    """
    if not frames and len(header) < PACKET_BYTES:
        sock.send(header, flags)
        return
    packet, files = compose(header, frames)
    send_composed(sock, packet, files, flags)


def compose(header: bytes, frames: Sequence[Any]) -> tuple[bytes, list[MemoryFile]]:
    """A message as a packet and the memory files that go with it."""
    if not frames and len(header) < PACKET_BYTES:
        return header, []
    sizes: list[int] = []
    pool: list[Any] = []
    files: list[MemoryFile] = []
    for frame in frames:
        size = size_of(frame)
        if size >= OWN_FILE_BYTES and len(files) < FILES_MAX:
            files.append(frame if type(frame) is MemoryFile else MemoryFile.write((frame,)))
            sizes.append(-size)
        else:
            pool.append(buffer_of(frame))
            sizes.append(size)
    bits = 0
    if len(header) + 8 * len(sizes) + _HEAD.size >= PACKET_BYTES // 2:
        bits |= _HEADER_IN_POOL
        pool.insert(0, header)
    length = len(header) + sum(memoryview(part).nbytes for part in pool)
    if bits or length + 8 * len(sizes) + _HEAD.size > PACKET_BYTES:
        bits |= _POOL_IN_FILE
        files.insert(0, MemoryFile.write(pool))
        pool = []
    head = _HEAD.pack(_FRAMED, bits, len(header), len(sizes)) + struct.pack(f"<{len(sizes)}q", *sizes)
    return b"".join([head, b"" if bits & _HEADER_IN_POOL else header, *pool]), files


def send_composed(sock: socket.socket, packet: bytes, files: Sequence[MemoryFile], flags: int = 0) -> None:
    """Send what `compose` made; raises as `send` does."""
    if not files:
        sock.send(packet, flags)
        return
    rights = array.array("i", [file.fd for file in files])
    sock.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], flags)


def receive(sock: socket.socket, buffer: bytearray, flags: int = 0) -> tuple[memoryview | bytes, Sequence[Any]] | None:
    """One message as (header, frames), or None if the peer has closed.

    The header is only good until the next call with the same buffer.

    Raises:
        BlockingIOError: with DONTWAIT, if there is nothing to read.
        BadPacket: the packet is none of ours.
    """
    n, ancillary, kind, _ = sock.recvmsg_into([buffer], _ANCILLARY, flags | _CLOEXEC)
    if n == 0:
        return None
    view = memoryview(buffer)[:n]
    if buffer[0] != _FRAMED and not ancillary:
        return view, ()
    fds = array.array("i")
    for _, what, data in ancillary:
        if what == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % 4])
    files = [MemoryFile(fd, 0) for fd in fds]
    if kind & _TRUNCATED:
        raise BadPacket("a packet that is too long")
    return _parse(view, files)


def _parse(view: memoryview, files: list[MemoryFile]) -> tuple[memoryview | bytes, Sequence[Any]]:
    try:
        mark, bits, header_length, count = _HEAD.unpack_from(view)
        sizes = struct.unpack_from(f"<{count}q", view, _HEAD.size)
    except struct.error:
        raise BadPacket("a packet that is cut") from None
    if mark != _FRAMED:
        raise BadPacket("descriptors with a packet that has no frames")
    rest = view[_HEAD.size + 8 * count :]
    own = [size for size in sizes if size < 0]
    pooled = sum(size for size in sizes if size >= 0)
    if bits & _POOL_IN_FILE:
        if not files:
            raise BadPacket("a packet without its descriptor")
        pool_file = files.pop(0)
        pool_file.size = pooled + (header_length if bits & _HEADER_IN_POOL else 0)
        pool = _checked(pool_file).view()
    else:
        pool = rest if bits & _HEADER_IN_POOL else rest[header_length:]
    header: memoryview | bytes = rest[:header_length]
    if bits & _HEADER_IN_POOL:
        header, pool = pool[:header_length], pool[header_length:]
    if len(header) != header_length or len(pool) != pooled or len(own) != len(files):
        raise BadPacket("a packet that breaks its own counts")
    frames: list[Any] = []
    at = 0
    for size in sizes:
        if size < 0:
            file = files.pop(0)
            file.size = -size
            frames.append(_checked(file))
        else:
            part = pool[at : at + size]
            frames.append(part if bits & _POOL_IN_FILE else bytes(part))
            at += size
    return header, frames


def _checked(file: MemoryFile) -> MemoryFile:
    if os.fstat(file.fd).st_size < file.size:
        raise BadPacket(f"a memory file that is shorter than the {file.size} bytes announced")
    return file
