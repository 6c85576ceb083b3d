"""Messages with valid keys whose bytes have been changed are dropped, or do no harm."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import msgspec
import pytest

from pilotflow.core.exchange import Exchange
from pilotflow.core.post import Post
from pilotflow.messages.client import (
    AckResults,
    CancelTasks,
    Close,
    DefineClass,
    DefineFunction,
    DrainBlocks,
    FailExecutor,
    Hello,
    Results,
    Submit,
    from_client,
    to_client,
)
from pilotflow.messages.codec import PROTOCOL, BadMessage, Decoder, Envelope, encode
from pilotflow.messages.manager import (
    Begun,
    CancelOutcome,
    Done,
    Leaving,
    ManagerAlive,
    Returned,
    Run,
    from_manager,
    to_manager,
)
from pilotflow.messages.records import Result, Status, Task
from pilotflow.resources import Request
from pilotflow.testing.simulator_checks import check_exchange
from tests.core.exchange_bench import HUGE, NOW, register

VALUES: list[Any] = [0, 1, -1, HUGE, -(1 << 63), 1 << 20, None, True, "", "x", b"", [], [[1, 2]], 1.5, float("nan"), {}]


def mutated(message: bytes, dice: Random) -> bytes:
    """The message with bytes changed, or with a value in it replaced."""
    if dice.random() < 0.3:
        data = bytearray(message)
        for _ in range(dice.choice([1, 1, 2, 8])):
            data[dice.randrange(len(data))] = dice.randrange(256)
        return bytes(data[: dice.randrange(len(data))] if dice.random() < 0.2 else data)
    tree = msgspec.msgpack.decode(message[1:])
    for _ in range(dice.choice([1, 1, 2])):
        node: Any = tree
        parents: list[tuple[list[Any], int]] = []
        while isinstance(node, list) and node and (not parents or dice.random() < 0.85):
            parents.append((node, dice.randrange(len(node))))
            node = node[parents[-1][1]]
        if parents:
            parent, index = parents[-1]
            parent[index] = deepcopy(dice.choice([*VALUES, dice.randrange(1 << 16), (1 << 20) + dice.randrange(4)]))
    return bytes([PROTOCOL]) + msgspec.msgpack.encode(tree)


class Fuzz:
    """Two honest peers do their work, and two others with valid keys send mutated messages."""

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.exchange = Exchange("r", self.dice.choice([1, 2]), "1", "3.11.0")
        self.post = Post(10)
        self.decoders: dict[str, Decoder[Any]] = {"client": from_client(), "manager": from_manager()}
        self.reached = self.sent = 0
        self.next_task = 1 << 50
        self.seq = 0
        self.ended: list[int] = []
        hello = Hello("1", "3.11.0", 1, "r", 1)
        self.exchange.on_client(
            "client", [hello, DefineFunction(1, b"d", b"b"), DefineClass(1, Request(), (), 5)], (), NOW
        )
        self.exchange.on_client("client", [DefineClass(2, Request(), ("honest",), 5)], (), NOW)
        self.exchange.on_manager("honest", [register("honest", executor="honest")], (), NOW)
        self.turn()

    def turn(self) -> None:
        for key, letter in self.exchange.turn(NOW).items():
            header = encode(Envelope(1, 1, 1, 1, False, letter.messages))
            to_client()(header) if key == "client" else to_manager()(header)
            for message in letter.messages:
                if key == "honest" and isinstance(message, Run):
                    self.seq += 1
                    results = [Result(task.id, task.attempt, Status.OK, b"") for task in message.tasks]
                    self.exchange.on_manager("honest", [Done(self.seq, results)], (), NOW)
                elif key == "client" and isinstance(message, Results):
                    self.ended += [r.id for batch in message.batches for r in batch.results]
        self.exchange.take_lost()

    def samples(self) -> list[Any]:
        tasks = [self.exchange.scheduler.find(id) for id in list(self.exchange.scheduler.tasks)[:3]]
        pairs = [(task.id, task.attempt) for task in tasks if task is not None] or [(1, 1)]
        results = [Result(id, attempt, Status.OK, b"x", (1, 0)) for id, attempt in pairs]
        return [
            register("evil", leased=pairs[:1], running=pairs[1:]),
            Done(self.dice.randrange(5), results),
            Begun(pairs),
            Returned(pairs),
            CancelOutcome(1, pairs, [1]),
            ManagerAlive(5.0),
            Leaving("bye", pairs),
        ]

    def evil(self) -> None:
        message = self.dice.choice(self.samples())
        header = mutated(encode(Envelope(1, 1, 0, 0, False, [message])), self.dice)
        self.sent += 1
        try:
            envelope = self.decoders["manager"](header)
            self.reached += 1
            arrived = self.post.receive(f"evil-{self.sent}", envelope, [b"frame"])
            for messages, frames in arrived or ():
                if self.dice.random() < 0.5:
                    self.exchange.on_manager("evil", [register("evil")], (), NOW)
                self.exchange.on_manager("evil", messages, frames, NOW)
        except BadMessage:
            pass

    def evil_client(self) -> None:
        self.sent += 1
        id = self.dice.randrange(1 << 40, 1 << 41)
        message = self.dice.choice(
            [
                Submit([Task(id, 0, 1, 1, b"", (1, 0))], self.dice.random() < 0.3),
                CancelTasks(3, [id], True),
                AckResults([(1, 1)]),
                DefineClass(self.dice.randrange(3, 9), Request(), ("evil",), 3),
                FailExecutor("evil", "x"),
            ]
        )
        try:
            envelope = self.decoders["client"](mutated(encode(Envelope(1, 1, 0, 0, False, [message])), self.dice))
            self.reached += 1
            # It is the honest client's key, so it may not fail or end what that client wants.
            if not any(
                isinstance(m, (CancelTasks, Close, DrainBlocks, FailExecutor, Hello)) for m in envelope.messages
            ):
                self.exchange.on_client("client", envelope.messages, [b"frame"], NOW)
        except BadMessage:
            pass

    def honest(self) -> list[int]:
        ids = [self.next_task, self.next_task + 1]
        self.next_task += 2
        self.exchange.on_client("client", [Submit([Task(id, 0, 1, 2, b"") for id in ids])], (), NOW)
        return ids


@pytest.mark.parametrize("count", [1_000, pytest.param(12_000, marks=pytest.mark.soak)])
def test_mutated_messages_with_valid_keys_are_dropped_or_harmless(
    count: int, record_property: Callable[..., None]
) -> None:
    reached = 0
    seed = 0
    while reached < count:
        seed += 1
        fuzz = Fuzz(seed)
        submitted: list[int] = []
        for _ in range(150):
            fuzz.dice.choice([fuzz.evil, fuzz.evil, fuzz.evil_client])()
            if fuzz.dice.random() < 0.2:
                submitted += fuzz.honest()
            fuzz.turn()
            check_exchange(fuzz.exchange)
        for _ in range(5):
            fuzz.turn()
        assert "honest" in fuzz.exchange.peers, f"seed {seed}"
        assert set(submitted) <= set(fuzz.ended), f"seed {seed}: an honest peer's tasks have not ended"
        reached += fuzz.reached
    record_property("count", reached)
