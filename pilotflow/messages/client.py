"""What the user's program (the client) and the interchange say to each other."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from pilotflow.messages.codec import Decoder, Envelope
from pilotflow.messages.records import (
    BlockLoad,
    ClassLoad,
    ExecutorLoad,
    ForgetFunctions,
    Message,
    Refused,
    ResultBatch,
    Task,
)
from pilotflow.messages.views import ClientView
from pilotflow.resources import BlockShape, Capacity, Request

# ---- client -> interchange -------------------------------------------------------------------


class Hello(Message, tag=1):
    """First message of a client: who it is and which run it wants.

    `token` is known to that client alone: while it is there, nobody else who has its keys and says its `pid` is it.
    """

    version: str
    python: str
    pid: int
    run_id: str
    epoch: int
    token: bytes = b""


class DefineFunction(Message, tag=2):
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


class DefineClass(Message, tag=3):
    """A request class: tasks that ask for the same, may run on the same executors, crash alike.

    `executors` is empty for work that may run anywhere. `crash_limit` is the number of attempts
    that may end with the loss of their worker or manager.
    """

    cls: int
    request: Request
    executors: tuple[str, ...]
    crash_limit: int


class DefineSetup(Message, tag=4):
    """What each worker of an executor runs once before its first task (pickled, opaque)."""

    executor: str
    payload: bytes


class Submit(Message, tag=5):
    """New tasks for the queue; `again` ones may be running still, from before a restart.

    `crashes` are the histories of those that the client has been told of in `Crashed`.
    """

    tasks: list[Task]
    again: bool = False
    crashes: list[tuple[int, list[str]]] = msgspec.field(default_factory=list)


class CancelTasks(Message, tag=6):
    """End these tasks. `running` ones too, or only those that have not started.

    Answered by `Cancelled` with the same `token`.
    """

    token: int
    ids: list[int]
    running: bool


class AckResults(Message, tag=7):
    """The client has recorded these batches of results: pairs of (manager, seq)."""

    batches: list[tuple[int, int]]


class LiveBlock(msgspec.Struct, array_like=True):
    """A block as the interchange remembers it, to cancel it if the client is lost."""

    executor: str
    block: str
    cancel_argv: tuple[str, ...]


class LiveBlocks(Message, tag=8):
    """All blocks that exist now, replacing what was said before."""

    blocks: list[LiveBlock]


class DrainBlocks(Message, tag=9):
    """Give these blocks no more work; their managers hand back what has not started."""

    blocks: list[str]


class BlocksEnd(Message, tag=15):
    """When blocks end by their limit, as their provider says: pairs of (block, seconds from now)."""

    ends: list[tuple[str, float]]


class DropBlocks(Message, tag=16):
    """These blocks are over for their provider; managers of theirs that are still there are to go: (block, why)."""

    blocks: list[tuple[str, str]]


class SuspendedBlocks(Message, tag=18):
    """All blocks that their batch system has suspended, replacing what was said before."""

    blocks: list[str]


class FailExecutor(Message, tag=10):
    """No block of this executor will come any more: fail what can run nowhere else."""

    executor: str
    reason: str


class ClientAlive(Message, tag=11):
    """Sent regularly, and answered by `InterchangeAlive`."""


class Close(Message, tag=12):
    """The run ends: stop all managers, then exit."""


class DefineExecutors(Message, tag=13):
    """The executors of the run. If `closed`, managers come from their blocks alone: nobody joins by hand."""

    executors: list[BlockShape]
    closed: bool


class Reunited(Message, tag=17):
    """After a restart: every manager that there was is back, so that what none of them holds may be handed out."""


class TaskView(Message, tag=21):
    """Answer to `LookUp`."""

    token: int
    view: ClientView


class Obeyed(Message, tag=24):
    """Answer to `Instruction`."""

    token: int
    done: bool
    text: str


# ---- interchange -> client -------------------------------------------------------------------


class Welcome(Message, tag=1):
    """Answer to `Hello`."""

    version: str
    pid: int
    epoch: int


class Results(Message, tag=3):
    """Ended attempts, by manager."""

    batches: list[ResultBatch]


class Started(Message, tag=4):
    """Attempts that have begun: pairs of (task, attempt). Short ones may never be announced."""

    tasks: list[tuple[int, int]]


class Cancelled(Message, tag=5):
    """Answer to `CancelTasks`: which ended without having run to their end, and which did not."""

    token: int
    ended: list[int]
    refused: list[int]


class Load(Message, tag=6):
    """The state of the queue, for scaling and for people; sent on change, a few times a second."""

    executors: list[ExecutorLoad]
    blocks: list[BlockLoad]
    classes: list[ClassLoad] = msgspec.field(default_factory=list)


class ManagerUp(Message, tag=7):
    """A manager has joined."""

    executor: str
    block: str
    node: str
    capacity: Capacity
    manager: int = 0


class ManagerDown(Message, tag=8):
    """A manager has left (`planned`), was lost, or was never let in (`refused`); `follows`: as in `Capacity`."""

    executor: str
    block: str
    node: str
    reason: str
    planned: bool
    refused: bool = False
    follows: bool = False


class SetupFailed(Message, tag=9):
    """An executor's setup (see `DefineSetup`) raised in a worker, or workers died in it; see `WorkerSetupFailed`."""

    executor: str
    payload: bytes
    died: str = ""


class InterchangeAlive(Message, tag=10):
    """Answer to `ClientAlive`. `dropped` counts messages that could not be understood."""

    dropped: int


class HelloAgain(Message, tag=11):
    """The interchange does not know this client (any more): say hello, and submit again."""


class Crashed(Message, tag=12):
    """Attempts that were lost with their worker or manager and are followed by others.

    Each is (task, attempt, line of the task's history). The client keeps them for a later life of
    the interchange, see `Submit`.
    """

    attempts: list[tuple[int, int, str]]


class Notice(Message, tag=13):
    """Something that people should know, said once."""

    text: str


class LookUp(Message, tag=21):
    """What do you know of the task with this number or name?"""

    token: int
    task: str


class Instruction(Message, tag=24):
    """What the program is to do, as another terminal has asked by `Instruct`."""

    token: int
    verb: str
    words: list[str]


# ---- the closed unions, and who reads them ---------------------------------------------------


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
    | SuspendedBlocks
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


def from_client() -> Decoder[ClientMessage]:
    """Decoder of what a client sends."""
    return Decoder(Envelope[ClientMessage])


def to_client() -> Decoder[ToClient]:
    """Decoder of what a client receives."""
    return Decoder(Envelope[ToClient])
