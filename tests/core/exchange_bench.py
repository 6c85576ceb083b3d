"""An exchange with a client and managers that say what a test wants them to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pilotflow.core.exchange import Exchange
from pilotflow.messages.client import DefineClass, DefineFunction, Hello, Results, Submit
from pilotflow.messages.manager import Done, Register, Run
from pilotflow.messages.records import Result, Status, Task
from pilotflow.resources import Capacity, Request
from pilotflow.testing.simulator_checks import check_exchange

HUGE = (1 << 64) - 1
NOW = 1000.0


def register(name: str = "m1", capacity: Capacity | None = None, **changes: Any) -> Register:
    offer = capacity or Capacity(2000, slots=2)
    message = Register("1", "3.11.0", "cpu", f"block-{name}", name, name, 1, offer, None, [], [])
    return msgspec.structs.replace(message, **changes)


class Bench:
    """An exchange with a client and one manager, and what it said to whom."""

    def __init__(self, epoch: int = 1) -> None:
        self.exchange = Exchange("r", epoch, "1", "3.11.0")
        self.said: dict[Any, list[Any]] = {}
        self.lost: list[Any] = []
        self.client(
            Hello("1", "3.11.0", 1, "r", epoch), DefineFunction(1, b"d", b"b"), DefineClass(1, Request(), (), 5)
        )
        self.manager(register())

    def client(self, *messages: Any, frames: Sequence[Any] = ()) -> list[Any]:
        self.exchange.on_client("client", messages, frames, NOW)
        return self.turn("client")

    def manager(self, *messages: Any, frames: Sequence[Any] = (), key: str = "m1") -> list[Any]:
        self.exchange.on_manager(key, messages, frames, NOW)
        return self.turn(key)

    def turn(self, key: str, now: float = NOW) -> list[Any]:
        letters = self.exchange.turn(now)
        self.lost += self.exchange.take_lost()
        check_exchange(self.exchange)
        for to, letter in letters.items():
            self.said.setdefault(to, []).extend(letter.messages)
        return letters[key].messages if key in letters else []

    def submit(self, *ids: int) -> list[Task]:
        self.client(Submit([Task(id, 0, 1, 1, b"") for id in ids]))
        return self.given()

    def given(self) -> list[Task]:
        return [task for message in self.said.get("m1", []) if isinstance(message, Run) for task in message.tasks]

    def results(self) -> list[Result]:
        found = [message for message in self.said.get("client", []) if isinstance(message, Results)]
        return [result for message in found for batch in message.batches for result in batch.results]


def done(task: Task, seq: int = 1, status: Status = Status.OK) -> Done:
    return Done(seq, [Result(task.id, task.attempt, status, b"")])
