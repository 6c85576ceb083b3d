"""What messages of several directions are made of: tasks, results, loads."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeAlias

import msgspec

from pilotflow.resources import Request

ENDED_WHILE_IT_RAN: Final = "ended while it ran"
"""What the history of a task says of an attempt that a planned end has cut."""


class Message(msgspec.Struct, array_like=True, tag_field="kind"):
    """What one peer says to another. The tags of each direction's union are its own."""


class Status(IntEnum):
    """How an attempt at a task ended."""

    OK = 0  # payload: the pickled result
    ERROR = 1  # payload: the pickled exception, of the user's code
    CRASHED = 2  # payload: a line that says how the worker died, and its last words (manager to interchange only)
    LOST = (
        3  # payload: the history of attempts, msgpack list of lines, the last with last words (interchange to client)
    )
    CANCELLED = 4  # ended on the client's order
    UNSTARTABLE = 5  # payload: as for LOST; no block of its executors will ever come
    EXCEEDED = 6  # payload: an `Excess`; the task was ended because it took more than it had asked for
    TOO_LARGE = 7  # payload: as for LOST; no node of its executors has what it asks for


class Task(msgspec.Struct, array_like=True, gc=False):
    """One task on its way to a worker.

    Attributes:
        id: the run's number for it.
        attempt: raised each time the task is handed out; results of older attempts are dropped.
        fn: number of its function, see `DefineFunction`.
        cls: number of its request class, see `DefineClass`.
        payload: its arguments if they are small, else empty.
        layout: chunks and buffers of each blob among the frames, see `pilotflow.messages`.
        manager: number of the manager that holds it; 0 while it waits.
    """

    id: int
    attempt: int
    fn: int
    cls: int
    payload: bytes
    layout: tuple[int, ...] = ()
    manager: int = 0


Measure: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)]
"""A number that somebody measured: it fits wherever it is written, whatever a peer says."""


class Result(msgspec.Struct, array_like=True, gc=False):
    """How one attempt at a task ended.

    Attributes:
        id, attempt: which attempt at which task.
        status: how it ended; it says what the payload is.
        payload, layout: as in `Task`.
        duration_us: time from start to end on the worker, in microseconds.
        started_us: wall clock at its start, microseconds since the epoch of Unix time, or 0.
        cpu_us: CPU time that it and its processes used, in microseconds; its duration if that is below 1 ms.
        peak_bytes: the most memory that it was seen to use; 0 if it was too short to be looked at.
        cores, gpus: logical indices of what it had of its node.
        exit_code: of a command; None for other tasks.
    """

    id: int
    attempt: int
    status: Status
    payload: bytes
    layout: tuple[int, ...] = ()
    duration_us: Measure = 0
    started_us: Measure = 0
    cpu_us: Measure = 0
    peak_bytes: Measure = 0
    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    exit_code: Measure | None = None


class ResultBatch(msgspec.Struct, array_like=True):
    """Results of one manager. `(manager, seq)` is what the client acknowledges."""

    manager: int
    seq: int
    results: list[Result]


class Excess(msgspec.Struct, array_like=True):
    """What a task took more of than it had asked for.

    Attributes:
        kind: "runtime" and "timeout" in seconds, "memory" in bytes, or "walltime", the longest time that a task
            without a runtime got before its block ended, in seconds.
        asked, taken: the limit, and what was measured.
        where: the worker, node and block, in words.
        by_system: the operating system has ended it, not its manager.
    """

    kind: str
    asked: float
    taken: float
    where: str
    by_system: bool = False


_encoder = msgspec.msgpack.Encoder()
_excess_decoder = msgspec.msgpack.Decoder(Excess)


def encode_excess(excess: Excess) -> bytes:
    """The payload of a result with the status EXCEEDED."""
    return _encoder.encode(excess)


def decode_excess(payload: bytes) -> Excess:
    """What `encode_excess` was given."""
    return _excess_decoder.decode(payload)


class ExecutorLoad(msgspec.Struct, array_like=True):
    """What one executor has to do: tasks waiting that may run on it, tasks handed out to it."""

    executor: str
    queued: int
    leased: int
    slots: int


class BlockLoad(msgspec.Struct, array_like=True):
    """One block with at least one manager: tasks it holds, and for how long it has held none."""

    block: str
    managers: int
    leased: int
    slots: int
    idle_s: float
    draining: bool


class ClassLoad(msgspec.Struct, array_like=True):
    """How many tasks wait that ask for the same; `executors` as in `DefineClass`.

    None of them fits into what is free now: that was offered to them before they were counted.

    Attributes:
        running: tasks of the class that run.
        expected_s: how long the next one is expected to take, from those that have ended; None if nobody knows.
    """

    request: Request
    executors: tuple[str, ...]
    queued: int
    running: int = 0
    expected_s: float | None = None


class ForgetFunctions(Message, tag=40):
    """No task will be of these functions any more. From the client to the interchange, and from there to managers."""

    fns: list[int]


class Refused(Message, tag=2):
    """Answer to a `Hello` or `Register` that cannot be served, in words."""

    reason: str
