"""The link between a manager and one of its workers: a Unix SEQPACKET socket pair.

The manager keeps a copy of the worker's end, so that it can take back packets that the worker has
not read. See `packets` for how messages and payloads travel.
"""

from __future__ import annotations

import socket
from typing import TypeAlias

import msgspec

from pilotflow.messages import Result, Task
from pilotflow.runtime import packets


class GiveTask(msgspec.Struct, array_like=True, tag=1):
    """Manager to worker: run this."""

    task: Task


class GiveFunction(msgspec.Struct, array_like=True, tag=2):
    """Manager to worker: a function; its body is the one payload frame."""

    fn: int


class Setup(msgspec.Struct, array_like=True, tag=3):
    """Manager to worker: call this (the one payload frame) before the first task."""


class Ready(msgspec.Struct, array_like=True, tag=1):
    """Worker to manager: give me tasks."""


class TaskDone(msgspec.Struct, array_like=True, tag=2):
    """Worker to manager: how a task ended."""

    result: Result


class SetupRaised(msgspec.Struct, array_like=True, tag=3):
    """Worker to manager: the setup raised; the one payload frame is the pickled exception."""


ToWorker: TypeAlias = GiveTask | GiveFunction | Setup
FromWorker: TypeAlias = Ready | TaskDone | SetupRaised

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a new link."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        packets.tune(end)
    return ours, theirs
