"""What another terminal (a control peer) asks the interchange, and what it is answered."""

from __future__ import annotations

from typing import TypeAlias

from pilotflow.explanation import Explanation
from pilotflow.messages.codec import Decoder, Envelope
from pilotflow.messages.records import BlockLoad, ExecutorLoad, Message, Refused

# ---- control -> interchange ------------------------------------------------------------------


class StatusQuery(Message, tag=1):
    """Asks for `StatusReport`."""


class ExplainTask(Message, tag=20):
    """Why is the task with this number or name not running?"""

    token: int
    task: str


class Instruct(Message, tag=23):
    """Have the run's program do something.

    Attributes:
        token: comes back with the answer.
        verb: what, such as "cancel".
        words: to what; the program knows how to read them.
    """

    token: int
    verb: str
    words: list[str]


# ---- interchange -> control ------------------------------------------------------------------


class StatusReport(Message, tag=1):
    """The run's state for another terminal."""

    run_id: str
    pid: int
    executors: list[ExecutorLoad]
    blocks: list[BlockLoad]
    dropped: int


class Explained(Message, tag=20):
    """Answer to `ExplainTask`."""

    token: int
    explanation: Explanation


class Instructed(Message, tag=23):
    """Answer to `Instruct`: whether it was done, and what there is to say."""

    token: int
    done: bool
    text: str


# ---- the closed unions, and who reads them ---------------------------------------------------


ControlMessage: TypeAlias = StatusQuery | ExplainTask | Instruct
ToControl: TypeAlias = StatusReport | Explained | Instructed | Refused


def from_control() -> Decoder[ControlMessage]:
    """Decoder of what a control peer sends."""
    return Decoder(Envelope[ControlMessage])


def to_control() -> Decoder[ToControl]:
    """Decoder of what a control peer receives."""
    return Decoder(Envelope[ToControl])
