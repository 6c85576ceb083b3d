"""What a manager at the head of an allocation and the relay in a task's step say to each other.

Between them travel the messages of `link`, which the relay hands on to and from its worker, and these.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from pilotflow.runtime.link import GiveFunction, GiveTask, IsSetUp, Ready, Setup, SetupRaised, Sit, TaskDone


class Here(msgspec.Struct, array_like=True, tag=10):
    """Relay to manager: the step has started, and wants its task.

    Attributes:
        node: host name.
        gpus: indices that Slurm has given the step, among all of the node.
    """

    node: str
    gpus: tuple[int, ...] = ()


class Over(msgspec.Struct, array_like=True, tag=11):
    """Relay to manager: the worker has ended, and nothing more will come.

    Attributes:
        status: its wait status.
        peak_bytes: the most memory that it or any process it waited for has had.
    """

    status: int
    peak_bytes: int


class Seen(msgspec.Struct, array_like=True, tag=10):
    """Manager to relay: `Over` has arrived, the step may end."""


class Warned(msgspec.Struct, array_like=True, tag=11):
    """Manager to relay: the task's time is over, or its block ends soon; everything of it is sent SIGTERM.

    srun passes signals to all processes of a step at once, whatever group they are in, so it cannot tell
    the task alone.
    """


ToRelay: TypeAlias = GiveTask | GiveFunction | Setup | Sit | Seen | Warned
FromRelay: TypeAlias = Ready | TaskDone | SetupRaised | IsSetUp | Here | Over

encode = msgspec.msgpack.Encoder().encode
decode_to_relay = msgspec.msgpack.Decoder(ToRelay).decode
decode_from_relay = msgspec.msgpack.Decoder(FromRelay).decode
