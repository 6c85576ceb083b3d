"""The link between a manager and one of its workers: a Unix SEQPACKET socket pair.

One packet is one message, whole or not at all. The manager keeps a copy of the worker's end, so
that it can take back packets that the worker has not read. What does not fit into a packet
travels as a memory file (`memfd`) whose descriptor goes with the packet: the worker maps it and
unpickles from the map, so big payloads are never copied through a socket.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from pilotflow.messages import Result, Task

PACKET_BYTES = 96 * 1024
"""Longest packet. Longer than an inline payload, shorter than any system's socket buffer."""
_ANCILLARY = socket.CMSG_SPACE(4)


class GiveTask(msgspec.Struct, array_like=True, tag=1):
    """Manager to worker: run this. `sizes`: bytes of each payload frame in the memory file."""

    task: Task
    sizes: tuple[int, ...] = ()


class GiveFunction(msgspec.Struct, array_like=True, tag=2):
    """Manager to worker: a function's body, inline or (one size) in the memory file."""

    fn: int
    body: bytes
    sizes: tuple[int, ...] = ()


class Setup(msgspec.Struct, array_like=True, tag=3):
    """Manager to worker: call this before the first task; inline or in the memory file."""

    payload: bytes
    sizes: tuple[int, ...] = ()


class Ready(msgspec.Struct, array_like=True, tag=1):
    """Worker to manager: give me tasks."""


class TaskDone(msgspec.Struct, array_like=True, tag=2):
    """Worker to manager: how a task ended."""

    result: Result
    sizes: tuple[int, ...] = ()


class SetupRaised(msgspec.Struct, array_like=True, tag=3):
    """Worker to manager: the setup raised; payload: the pickled exception."""

    payload: bytes
    sizes: tuple[int, ...] = ()


ToWorker: TypeAlias = GiveTask | GiveFunction | Setup
FromWorker: TypeAlias = Ready | TaskDone | SetupRaised

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new link."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return ours, theirs


def send(link: socket.socket, packet: bytes, frames: Sequence[Any] = (), flags: int = 0) -> None:
    """Send one message; its frames go into a memory file.

    Raises:
        BlockingIOError: with `MSG_DONTWAIT`, if the peer has too much unread.
        OSError: if the peer is gone or memory is short.
    """
    if not frames:
        link.send(packet, flags)
        return
    fd = os.memfd_create("pilotflow-payload", os.MFD_CLOEXEC)
    try:
        for frame in frames:
            view = memoryview(frame).cast("B")
            while len(view):
                view = view[os.write(fd, view) :]
        link.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))], flags)
    finally:
        os.close(fd)


def receive(link: socket.socket, buffer: bytearray, flags: int = 0) -> tuple[int, int]:
    """Read one packet into the buffer; returns its length (0 at the end) and a descriptor or -1."""
    n, ancillary, _, _ = link.recvmsg_into([buffer], _ANCILLARY, flags | socket.MSG_CMSG_CLOEXEC)
    fd = -1
    for _, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            fd = int.from_bytes(data[:4], "little")
    return n, fd


def open_frames(fd: int, sizes: Sequence[int]) -> list[memoryview]:
    """The frames in a memory file, as views of a private map; closes the descriptor.

    The views keep the map alive; they may be written to, and nobody else sees it.

    Raises:
        ValueError: if the sizes do not match the file.
    """
    try:
        total = os.fstat(fd).st_size
        if sum(sizes) != total:
            raise ValueError(f"a memory file of {total} bytes for frames of {sum(sizes)}")
        if total == 0:
            return [memoryview(b"") for _ in sizes]
        view = memoryview(mmap.mmap(fd, total, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))
    finally:
        os.close(fd)
    frames: list[memoryview] = []
    at = 0
    for size in sizes:
        frames.append(view[at : at + size])
        at += size
    return frames
