"""The link between a manager and one of its workers: a Unix SEQPACKET socket pair.

The manager keeps a copy of the worker's end, so that it can take back packets that the worker has
not read. What comes back and is sent again may be overtaken by what the worker read meanwhile: so every
message says which others come before it. See `packets` for how messages and payloads travel.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from pilotflow.messages.records import Result, Task
from pilotflow.resources import DEFAULT_REQUEST, Request
from pilotflow.runtime import packets
from pilotflow.runtime.loop import Loop


class GiveTask(msgspec.Struct, array_like=True, tag=1):
    """Manager to worker: run this, after so many of the messages below."""

    task: Task
    after: int = 0


class GiveFunction(msgspec.Struct, array_like=True, tag=2):
    """Manager to worker: a function; its body is the one payload frame, its name is for people."""

    fn: int
    name: str = ""
    number: int = 0


class Setup(msgspec.Struct, array_like=True, tag=3):
    """Manager to worker: call this (the one payload frame) before the first task."""

    number: int = 0


class Sit(msgspec.Struct, array_like=True, tag=4):
    """Manager to worker: what the tasks from here on have of the node.

    Attributes:
        cores, gpus: logical indices.
        cpus: ids of the CPUs to run on, or None for any.
        environ: variables to set.
        runtime_s: when a task's time is over, in seconds from its start, if it is limited.
        ends_at: when the block ends, in seconds since 1970, if that is known.
        request: what these tasks have asked for.
        run_directory: of the run.
        scratch: where their scratch directories are made.
        nodes: hosts of the nodes of a task that uses several by itself, ours first; else none.
        number: as of every message that is no task: how many of them there are with it; 0 where none is overtaken.
    """

    cores: tuple[int, ...]
    gpus: tuple[int, ...]
    cpus: list[int] | None
    environ: dict[str, str]
    runtime_s: float | None
    ends_at: float | None
    request: Request = DEFAULT_REQUEST
    run_directory: str = ""
    scratch: str = ""
    nodes: tuple[str, ...] = ()
    number: int = 0


class Forget(msgspec.Struct, array_like=True, tag=5):
    """Manager to worker: no task will be of these functions."""

    fns: list[int]
    number: int = 0


class Ready(msgspec.Struct, array_like=True, tag=1):
    """Worker to manager: give me tasks."""


class TaskDone(msgspec.Struct, array_like=True, tag=2):
    """Worker to manager: how a task ended."""

    result: Result


class SetupRaised(msgspec.Struct, array_like=True, tag=3):
    """Worker to manager: the setup raised; the one payload frame is the pickled exception."""


class IsSetUp(msgspec.Struct, array_like=True, tag=4):
    """Worker to manager: the setup has been called, and went well."""


ToWorker: TypeAlias = GiveTask | GiveFunction | Setup | Sit | Forget
FromWorker: TypeAlias = Ready | TaskDone | SetupRaised | IsSetUp

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode


def check_frames(message: FromWorker, frames: Sequence[Any]) -> None:
    """See that a message has the payload frames that it counts.

    Raises:
        ValueError: it has not.
    """
    wanted = sum(message.result.layout) if isinstance(message, TaskDone) else int(isinstance(message, SetupRaised))
    if len(frames) != wanted:
        raise ValueError(f"{len(frames)} frames instead of {wanted}")


class InOrder:
    """What a worker reads, in the order in which it was first sent.

    Attributes:
        told: how many messages that are no task have been handed over.
    """

    __slots__ = ("_early", "told")

    def __init__(self) -> None:
        self.told = 0
        self._early: list[tuple[ToWorker, list[Any]]] = []

    def put(self, message: ToWorker, frames: list[Any]) -> Iterator[tuple[ToWorker, list[Any]]]:
        """What can be done now that this has come."""
        self._early.append((message, frames))
        while self._early:
            first = min(range(len(self._early)), key=lambda i: _place(self._early[i][0]))
            message, frames = self._early[first]
            if _place(message) > 2 * self.told + 1:
                return
            del self._early[first]
            if not isinstance(message, GiveTask):
                self.told = max(self.told, message.number)
            yield message, frames


def _place(message: ToWorker) -> int:
    """Odd for a message that is told, and even for tasks between two of them."""
    return 2 * message.after if isinstance(message, GiveTask) else 2 * message.number - 1


class WorkerLink:
    """The manager's side of a link. It never waits for the worker, which may be busy for hours.

    Args:
        loop: calls `hear` when the worker has said something, and sends what had to wait.
    """

    __slots__ = ("_loop", "_told", "_waiting", "ours", "theirs")

    def __init__(self, loop: Loop, hear: Callable[[], None]) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.ours, self.theirs):
            packets.tune(end)
        self._loop = loop
        self._told = 0
        self._waiting: deque[tuple[bytes, Sequence[Any]]] = deque()
        loop.add(self.ours.fileno(), hear)

    def placed(self, message: ToWorker) -> bytes:
        """The header of a new message, which says what comes before it."""
        if isinstance(message, GiveTask):
            message.after = self._told
        else:
            self._told = message.number = self._told + 1
        return encode(message)

    def send(self, header: bytes, frames: Sequence[Any] = ()) -> None:
        """Send now, or when there is room.

        Raises:
            OSError: the worker is gone, or memory or descriptors are short.
        """
        if not self._waiting:
            try:
                packets.send(self.ours, header, frames, packets.DONTWAIT)
            except BlockingIOError:
                pass
            else:
                return
        self._waiting.append((header, frames))
        self._loop.want_writes(self.ours.fileno(), self._flush)

    def _flush(self) -> None:
        while self._waiting:
            try:
                packets.send(self.ours, *self._waiting[0], packets.DONTWAIT)
            except BlockingIOError:
                return
            except OSError:  # its death is noticed by other ways
                break
            self._waiting.popleft()
        self._loop.want_writes(self.ours.fileno(), None)

    def take_back(self, buffer: bytearray) -> list[tuple[bytes, ToWorker, Sequence[Any]]]:
        """Whatever the worker has not read: (header, message, frames)."""
        unread: list[tuple[bytes, ToWorker, Sequence[Any]]] = []
        while True:
            try:
                packet = packets.receive(self.theirs, buffer, packets.DONTWAIT)
            except (BlockingIOError, ConnectionError):
                break
            if packet is None:
                break
            unread.append((bytes(packet[0]), decode_to_worker(packet[0]), packet[1]))
        unread += [(header, decode_to_worker(header), frames) for header, frames in self._waiting]
        self._waiting.clear()
        return unread

    def close(self) -> None:
        """Close both ends."""
        self._loop.remove(self.ours.fileno())
        self.ours.close()
        self.theirs.close()
