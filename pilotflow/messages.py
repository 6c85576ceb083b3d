"""Every message between processes: one closed union per direction, typed and versioned.

On the wire a ZeroMQ message is a header frame and then payload frames. The header is one byte of
protocol version and a msgpack list of messages, so whatever a process has to say to a peer in one
turn of its loop goes in one message. Payload frames are opaque: they belong, in order, to the
tasks or results in the header whose `layout` counts them, and are forwarded untouched.

A payload (pickled arguments, a result, an exception) is a list of blobs, and a blob is a pickle
stream in chunks, followed by the stream's out-of-band buffers. A small payload is one chunk and
rides inside the header (`payload`); `layout` is then empty. Otherwise `layout` has two numbers
for each blob, its chunks and its buffers, and all of them are frames.

Only `Register`, `Hello` and `Refused` must keep their shape over protocol versions, so that a
mismatch can be answered with words.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, Generic, TypeAlias, TypeVar

import msgspec

from pilotflow.questions import (
    Explained,
    ExplainTask,
    Instruct,
    Instructed,
    Instruction,
    IsAt,
    LookUp,
    Obeyed,
    TaskView,
    WhereIs,
)
from pilotflow.resources import BlockShape, Capacity, Request

PROTOCOL: Final = 1
"""Raised whenever the meaning or shape of any message changes."""


ENDED_WHILE_IT_RAN: Final = "ended while it ran"
"""What the history of a task says of an attempt that a planned end has cut."""


class Status(IntEnum):
    """How an attempt at a task ended."""

    OK = 0  # payload: the pickled result
    ERROR = 1  # payload: the pickled exception, of the user's code
    CRASHED = 2  # payload: text that says how the worker died (manager to interchange only)
    LOST = 3  # payload: the history of attempts, msgpack list of lines (interchange to client)
    CANCELLED = 4  # ended on the client's order
    UNSTARTABLE = 5  # payload: as for LOST; no block of its executors will ever come
    EXCEEDED = 6  # payload: an `Excess`; the task was ended because it took more than it had asked for
    TOO_LARGE = 7  # payload: as for LOST; no node of its executors has what it asks for


class _Message(msgspec.Struct, array_like=True, tag_field="kind"):
    pass


class Task(msgspec.Struct, array_like=True, gc=False):
    """One task on its way to a worker.

    Attributes:
        id: the run's number for it.
        attempt: raised each time the task is handed out; results of older attempts are dropped.
        fn: number of its function, see `DefineFunction`.
        cls: number of its request class, see `DefineClass`.
        payload: its arguments if they are small, else empty.
        layout: chunks and buffers of each blob among the frames, see the module's docstring.
        manager: number of the manager that holds it; 0 while it waits.
    """

    id: int
    attempt: int
    fn: int
    cls: int
    payload: bytes
    layout: tuple[int, ...] = ()
    manager: int = 0


class Result(msgspec.Struct, array_like=True, gc=False):
    """How one attempt at a task ended.

    Attributes:
        id, attempt: which attempt at which task.
        status: how it ended; it says what the payload is.
        payload, layout: as in `Task`.
        duration_us: time from start to end on the worker, in microseconds.
        started_us: wall clock at its start, microseconds since the epoch of Unix time, or 0.
        cpu_us: CPU time that it and its processes used, in microseconds.
        peak_bytes: the most memory that it was seen to use; 0 if it was too short to be looked at.
        cores, gpus: logical indices of what it had of its node.
        exit_code: of a command; None for other tasks.
    """

    id: int
    attempt: int
    status: Status
    payload: bytes
    layout: tuple[int, ...] = ()
    duration_us: int = 0
    started_us: int = 0
    cpu_us: int = 0
    peak_bytes: int = 0
    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    exit_code: int | None = None


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


class ResultBatch(msgspec.Struct, array_like=True):
    """Results of one manager. `(manager, seq)` is what the client acknowledges."""

    manager: int
    seq: int
    results: list[Result]


# ---- client -> interchange ------------------------------------------------------------------


class Hello(_Message, tag=1):
    """First message of a client: who it is and which run it wants."""

    version: str
    python: str
    pid: int
    run_id: str
    epoch: int


class DefineFunction(_Message, tag=2):
    """The body of a function, once. Tasks then name it by number.

    Attributes:
        fn, digest, body: its number, and what it is.
        name: for messages to people.
        all_ranks: the result of a task of several ranks is the list of what all return, not what the first does.
    """

    fn: int
    digest: bytes
    body: bytes
    name: str = ""
    all_ranks: bool = False


class ForgetFunctions(_Message, tag=40):
    """No task will be of these functions any more. From the client to the interchange, and from there to managers."""

    fns: list[int]


class DefineClass(_Message, tag=3):
    """A request class: tasks that ask for the same, may run on the same executors, crash alike.

    `executors` is empty for work that may run anywhere. `crash_limit` is the number of attempts
    that may end with the loss of their worker or manager.
    """

    cls: int
    request: Request
    executors: tuple[str, ...]
    crash_limit: int


class DefineSetup(_Message, tag=4):
    """What each worker of an executor runs once before its first task (pickled, opaque)."""

    executor: str
    payload: bytes


class Submit(_Message, tag=5):
    """New tasks for the queue; `again` ones may be running still, from before a restart.

    `crashes` are the histories of those that the client has been told of in `Crashed`.
    """

    tasks: list[Task]
    again: bool = False
    crashes: list[tuple[int, list[str]]] = []


class CancelTasks(_Message, tag=6):
    """End these tasks. `running` ones too, or only those that have not started.

    Answered by `Cancelled` with the same `token`.
    """

    token: int
    ids: list[int]
    running: bool


class AckResults(_Message, tag=7):
    """The client has recorded these batches of results: pairs of (manager, seq)."""

    batches: list[tuple[int, int]]


class LiveBlock(msgspec.Struct, array_like=True):
    """A block as the interchange remembers it, to cancel it if the client is lost."""

    executor: str
    block: str
    cancel_argv: tuple[str, ...]


class LiveBlocks(_Message, tag=8):
    """All blocks that exist now, replacing what was said before."""

    blocks: list[LiveBlock]


class DrainBlocks(_Message, tag=9):
    """Give these blocks no more work; their managers hand back what has not started."""

    blocks: list[str]


class BlocksEnd(_Message, tag=15):
    """When blocks end by their limit, as their provider says: pairs of (block, seconds from now)."""

    ends: list[tuple[str, float]]


class DropBlocks(_Message, tag=16):
    """These blocks are over for their provider; managers of theirs that are still there are to go: (block, why)."""

    blocks: list[tuple[str, str]]


class FailExecutor(_Message, tag=10):
    """No block of this executor will come any more: fail what can run nowhere else."""

    executor: str
    reason: str


class ClientAlive(_Message, tag=11):
    """Sent regularly, and answered by `InterchangeAlive`."""


class Close(_Message, tag=12):
    """The run ends: stop all managers, then exit."""


class DefineExecutors(_Message, tag=13):
    """The executors of the run. If `closed`, managers come from their blocks alone: nobody joins by hand."""

    executors: list[BlockShape]
    closed: bool


class Reunited(_Message, tag=17):
    """After a restart: every manager that there was is back, so that what none of them holds may be handed out."""


# ---- interchange -> client ------------------------------------------------------------------


class Welcome(_Message, tag=1):
    """Answer to `Hello`."""

    version: str
    pid: int
    epoch: int


class Refused(_Message, tag=2):
    """Answer to a `Hello` or `Register` that cannot be served, in words."""

    reason: str


class Results(_Message, tag=3):
    """Ended attempts, by manager."""

    batches: list[ResultBatch]


class Started(_Message, tag=4):
    """Attempts that have begun: pairs of (task, attempt). Short ones may never be announced."""

    tasks: list[tuple[int, int]]


class Cancelled(_Message, tag=5):
    """Answer to `CancelTasks`: which ended without having run to their end, and which did not."""

    token: int
    ended: list[int]
    refused: list[int]


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


class Load(_Message, tag=6):
    """The state of the queue, for scaling and for people; sent on change, a few times a second."""

    executors: list[ExecutorLoad]
    blocks: list[BlockLoad]
    classes: list[ClassLoad] = []


class ManagerUp(_Message, tag=7):
    """A manager has joined."""

    executor: str
    block: str
    node: str
    capacity: Capacity
    manager: int = 0


class ManagerDown(_Message, tag=8):
    """A manager has left (`planned`), was lost, or was never let in (`refused`)."""

    executor: str
    block: str
    node: str
    reason: str
    planned: bool
    refused: bool = False


class SetupFailed(_Message, tag=9):
    """An executor's setup (see `DefineSetup`) raised in a worker; payload: pickled exception."""

    executor: str
    payload: bytes


class InterchangeAlive(_Message, tag=10):
    """Answer to `ClientAlive`. `dropped` counts messages that could not be understood."""

    dropped: int


class HelloAgain(_Message, tag=11):
    """The interchange does not know this client (any more): say hello, and submit again."""


class Crashed(_Message, tag=12):
    """Attempts that were lost with their worker or manager and are followed by others.

    Each is (task, attempt, line of the task's history). The client keeps them for a later life of
    the interchange, see `Submit`.
    """

    attempts: list[tuple[int, int, str]]


class Notice(_Message, tag=13):
    """Something that people should know, said once."""

    text: str


# ---- manager -> interchange -----------------------------------------------------------------


class Register(_Message, tag=1):
    """First message of a manager, and again whenever it finds its interchange anew.

    `leased` and `running` are its inventory as (task, attempt) pairs; unacknowledged results
    follow as ordinary `Done` messages. `session` tells two lives of one node name apart.
    """

    version: str
    python: str
    executor: str
    block: str
    node: str
    session: str
    pid: int
    capacity: Capacity
    time_left_s: float | None
    leased: list[tuple[int, int]]
    running: list[tuple[int, int]]


class Done(_Message, tag=2):
    """Ended attempts. Repeated until acknowledged, with the same `seq`."""

    seq: int
    results: list[Result]


class Begun(_Message, tag=3):
    """Attempts that have been running for a while: pairs of (task, attempt)."""

    tasks: list[tuple[int, int]]


class Returned(_Message, tag=4):
    """Attempts handed back without having started: pairs of (task, attempt)."""

    tasks: list[tuple[int, int]]


class CancelOutcome(_Message, tag=5):
    """Answer to `Cancel`: attempts ended, and attempts that had started (or are unknown)."""

    token: int
    ended: list[tuple[int, int]]
    refused: list[int]


class ManagerAlive(_Message, tag=6):
    """Sent regularly. `time_left_s` is what is left of the block's walltime, if it has one."""

    time_left_s: float | None


class Leaving(_Message, tag=7):
    """The manager goes. What ran and what waited is handed back and costs those tasks nothing.

    `started` are those that had begun: tasks that may never run twice are not tried again. If the
    walltime is over, `ran_s` says for how many seconds each of them has run.
    """

    reason: str
    returned: list[tuple[int, int]]
    started: list[tuple[int, int]] = []
    ran_s: list[float] = []


class WorkerSetupFailed(_Message, tag=8):
    """The executor's setup raised in a worker; payload: pickled exception."""

    payload: bytes


class NodeReady(_Message, tag=9):
    """Answer to `ReserveNode`: nothing runs on the node."""

    task: int
    attempt: int


# ---- interchange -> manager -----------------------------------------------------------------


class Registered(_Message, tag=1):
    """Answer to `Register`. A silent peer is given up after `heartbeat_limit_s`."""

    manager: int
    heartbeat_limit_s: float
    setup: bytes


class ManagerRefused(_Message, tag=2):
    """The manager cannot join: it must end its block's part and say why in its log."""

    reason: str


class Function(_Message, tag=3):
    """A function's body, once per manager; see `DefineFunction`."""

    fn: int
    digest: bytes
    body: bytes
    name: str = ""
    all_ranks: bool = False


class Run(_Message, tag=4):
    """Tasks leased to the manager. `cpus_milli` (and so on) of each come with its class."""

    tasks: list[Task]


class Class(_Message, tag=5):
    """A request class, once per manager."""

    cls: int
    request: Request


class Cancel(_Message, tag=6):
    """End these attempts; `running` ones too, or only what has not started."""

    token: int
    tasks: list[tuple[int, int]]
    running: bool


class Retract(_Message, tag=7):
    """Hand back these attempts if they have not started."""

    tasks: list[tuple[int, int]]


class Recorded(_Message, tag=8):
    """The client has these batches of results; forget them."""

    seqs: list[int]


class Drain(_Message, tag=9):
    """Take no more work, hand back what has not started, go when idle."""


class Stop(_Message, tag=10):
    """End now, with everything that runs."""

    reason: str


class EndsIn(_Message, tag=16):
    """The block is ended by its limit in so many seconds; instead of what was known before."""

    left_s: float


class AliveReply(_Message, tag=11):
    """Answer to `ManagerAlive`."""


class Reregister(_Message, tag=12):
    """The interchange does not know this manager (any more): register, with inventory."""


class ReserveNode(_Message, tag=13):
    """Say `NodeReady` when nothing runs on the node: a multi-node task is to start there."""

    task: int
    attempt: int


class Place(_Message, tag=14):
    """Where the multi-node task that follows has its nodes, the manager's own first."""

    task: int
    attempt: int
    nodes: list[str]


# ---- control <-> interchange ----------------------------------------------------------------


class StatusQuery(_Message, tag=1):
    """Asks for `StatusReport`."""


class StatusReport(_Message, tag=1):
    """The run's state for another terminal."""

    run_id: str
    pid: int
    executors: list[ExecutorLoad]
    blocks: list[BlockLoad]
    dropped: int


ClientMessage: TypeAlias = (
    Hello
    | DefineFunction
    | ForgetFunctions
    | DefineClass
    | DefineExecutors
    | DefineSetup
    | Submit
    | CancelTasks
    | AckResults
    | LiveBlocks
    | DrainBlocks
    | BlocksEnd
    | DropBlocks
    | FailExecutor
    | ClientAlive
    | Close
    | TaskView
    | Obeyed
    | Reunited
)
ToClient: TypeAlias = (
    Welcome
    | Refused
    | Results
    | Started
    | Cancelled
    | Load
    | ManagerUp
    | ManagerDown
    | SetupFailed
    | InterchangeAlive
    | HelloAgain
    | Crashed
    | Notice
    | LookUp
    | Instruction
)
ManagerMessage: TypeAlias = (
    Register | Done | Begun | Returned | CancelOutcome | ManagerAlive | Leaving | WorkerSetupFailed | NodeReady | IsAt
)
ToManager: TypeAlias = (
    Registered
    | ManagerRefused
    | Function
    | ForgetFunctions
    | Run
    | Class
    | Cancel
    | Retract
    | Recorded
    | Drain
    | Stop
    | EndsIn
    | AliveReply
    | Reregister
    | ReserveNode
    | Place
    | WhereIs
)
ControlMessage: TypeAlias = StatusQuery | ExplainTask | Instruct
ToControl: TypeAlias = StatusReport | Explained | Instructed | Refused

M = TypeVar("M")
Frames: TypeAlias = Sequence[Any]
"""Payload frames: anything with the buffer protocol."""


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


_encoder = msgspec.msgpack.Encoder()
_excess_decoder = msgspec.msgpack.Decoder(Excess)
_PREFIX = bytes([PROTOCOL])


def encode_excess(excess: Excess) -> bytes:
    """The payload of a result with the status EXCEEDED."""
    return _encoder.encode(excess)


def decode_excess(payload: bytes) -> Excess:
    """What `encode_excess` was given."""
    return _excess_decoder.decode(payload)


def encode(envelope: Envelope[Any]) -> bytes:
    """The header frame of an envelope."""
    return _PREFIX + _encoder.encode(envelope)


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


class Decoder(Generic[M]):
    """Turns header frames of one direction back into envelopes.

    Example:
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


def from_client() -> Decoder[ClientMessage]:
    """Decoder of what a client sends."""
    return Decoder(Envelope[ClientMessage])


def to_client() -> Decoder[ToClient]:
    """Decoder of what a client receives."""
    return Decoder(Envelope[ToClient])


def from_manager() -> Decoder[ManagerMessage]:
    """Decoder of what a manager sends."""
    return Decoder(Envelope[ManagerMessage])


def to_manager() -> Decoder[ToManager]:
    """Decoder of what a manager receives."""
    return Decoder(Envelope[ToManager])


def from_control() -> Decoder[ControlMessage]:
    """Decoder of what a control peer sends."""
    return Decoder(Envelope[ControlMessage])


def to_control() -> Decoder[ToControl]:
    """Decoder of what a control peer receives."""
    return Decoder(Envelope[ToControl])
