"""What a manager and the interchange say to each other."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from pilotflow.messages.codec import Decoder, Envelope
from pilotflow.messages.records import ForgetFunctions, Message, Result, Task
from pilotflow.messages.views import Whereabouts
from pilotflow.resources import Capacity, Request

# ---- manager -> interchange ------------------------------------------------------------------


class Register(Message, tag=1):
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


class Done(Message, tag=2):
    """Ended attempts. Repeated until acknowledged, with the same `seq`."""

    seq: int
    results: list[Result]


class Begun(Message, tag=3):
    """Attempts that have been running for a while: pairs of (task, attempt)."""

    tasks: list[tuple[int, int]]


class Returned(Message, tag=4):
    """Attempts handed back without having started: pairs of (task, attempt)."""

    tasks: list[tuple[int, int]]


class CancelOutcome(Message, tag=5):
    """Answer to `Cancel`: attempts ended, and attempts that had started (or are unknown)."""

    token: int
    ended: list[tuple[int, int]]
    refused: list[int]


class ManagerAlive(Message, tag=6):
    """Sent regularly, by a manager of the interchange's host that holds nothing seldom. `time_left_s` is what is left of the block's walltime, if it has one."""

    time_left_s: float | None


class Leaving(Message, tag=7):
    """The manager goes. All that it held is handed back, and costs those tasks nothing.

    `started` are those that had begun: tasks that may never run twice are not tried again. If the
    walltime is over, `ran_s` says for how many seconds each of them has run.
    """

    reason: str
    started: list[tuple[int, int]] = msgspec.field(default_factory=list)
    ran_s: list[float] = msgspec.field(default_factory=list)


class WorkerSetupFailed(Message, tag=8):
    """The executor's setup raised in a worker; payload: pickled exception. Or workers died in it: how, in words."""

    payload: bytes
    died: str = ""


class NodeReady(Message, tag=9):
    """Answer to `ReserveNode`: nothing runs on the node."""

    task: int
    attempt: int


class IsAt(Message, tag=22):
    """Answer to `WhereIs`."""

    token: int
    place: Whereabouts


# ---- interchange -> manager ------------------------------------------------------------------


class Registered(Message, tag=1):
    """Answer to `Register`. A silent peer is given up after `heartbeat_limit_s`."""

    manager: int
    heartbeat_limit_s: float
    setup: bytes


class ManagerRefused(Message, tag=2):
    """The manager cannot join: it must end its block's part and say why in its log."""

    reason: str


class Function(Message, tag=3):
    """A function's body, once per manager; see `DefineFunction`."""

    fn: int
    digest: bytes
    body: bytes
    name: str = ""
    all_ranks: bool = False


class Run(Message, tag=4):
    """Tasks leased to the manager. `cpus_milli` (and so on) of each come with its class."""

    tasks: list[Task]


class Class(Message, tag=5):
    """A request class, once per manager."""

    cls: int
    request: Request


class Cancel(Message, tag=6):
    """End these attempts; `running` ones too, or only what has not started."""

    token: int
    tasks: list[tuple[int, int]]
    running: bool


class Retract(Message, tag=7):
    """Hand back these attempts if they have not started."""

    tasks: list[tuple[int, int]]


class Recorded(Message, tag=8):
    """The client has these batches of results; forget them."""

    seqs: list[int]


class Drain(Message, tag=9):
    """Take no more work, hand back what has not started, go when idle."""


class Stop(Message, tag=10):
    """End now, with everything that runs."""

    reason: str


class EndsIn(Message, tag=16):
    """The block is ended by its limit in so many seconds; instead of what was known before."""

    left_s: float


class AliveReply(Message, tag=11):
    """Answer to `ManagerAlive`."""


class Reregister(Message, tag=12):
    """The interchange does not know this manager (any more): register, with inventory."""


class ReserveNode(Message, tag=13):
    """Say `NodeReady` when nothing runs on the node: a multi-node task is to start there."""

    task: int
    attempt: int


class Place(Message, tag=14):
    """Where the multi-node task that follows has its nodes, the manager's own first."""

    task: int
    attempt: int
    nodes: list[str]


class WhereIs(Message, tag=22):
    """Where is this attempt at this task?"""

    token: int
    task: int
    attempt: int


# ---- the closed unions, and who reads them ---------------------------------------------------


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


def from_manager() -> Decoder[ManagerMessage]:
    """Decoder of what a manager sends."""
    return Decoder(Envelope[ManagerMessage])


def to_manager() -> Decoder[ToManager]:
    """Decoder of what a manager receives."""
    return Decoder(Envelope[ToManager])
