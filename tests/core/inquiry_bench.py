"""An exchange that is asked about tasks, with a program and managers that answer as a test wants."""

from __future__ import annotations

from typing import Any

from pilotflow.core.exchange import Exchange
from pilotflow.explanation import Explanation
from pilotflow.messages.client import (
    DefineClass,
    DefineFunction,
    Hello,
    LookUp,
    Submit,
    TaskView,
    from_client,
    to_client,
)
from pilotflow.messages.codec import Envelope, encode
from pilotflow.messages.control import Explained, ExplainTask, from_control, to_control
from pilotflow.messages.manager import Register, Run, from_manager, to_manager
from pilotflow.messages.records import Task
from pilotflow.messages.views import ClientView
from pilotflow.resources import Capacity, Request


class Bench:
    """An exchange with a client, one manager of one slot, and other terminals; every message is sent over a wire."""

    def __init__(self, *, client: bool = True, epoch: int = 1) -> None:
        self.exchange = Exchange("r", epoch, "1", "3.11.0")
        self.now = 1000.0
        self.letters: dict[Any, list[Any]] = {}
        if client:
            self.client(
                Hello("1", "3.11.0", 77, "r", epoch), DefineFunction(1, b"d", b"b"), DefineClass(1, Request(), (), 5)
            )

    def client(self, *messages: Any) -> list[Any]:
        self.exchange.on_client("client", _travelled(messages, from_client()), (), self.now)
        return self.turn("client")

    def manager(self, *messages: Any, key: str = "m1") -> list[Any]:
        self.exchange.on_manager(key, _travelled(messages, from_manager()), (), self.now)
        return self.turn(key)

    def ask(self, task: str, key: str = "terminal", token: int = 5) -> list[Any]:
        self.exchange.on_control(key, _travelled([ExplainTask(token, task)], from_control()), self.now)
        return self.turn(key)

    def turn(self, key: str) -> list[Any]:
        self.letters = {}
        decoders: dict[Any, Any] = {"client": to_client(), "m1": to_manager(), "m2": to_manager()}
        for to, letter in self.exchange.turn(self.now).items():
            self.letters[to] = _travelled(letter.messages, decoders.get(to, to_control()))
        self.exchange.take_lost()
        return self.letters.get(key, [])

    def wait(self, seconds: float) -> list[Any]:
        """Let time go by; what the terminal hears then."""
        self.now += seconds
        return self.turn("terminal")

    def join(self, key: str = "m1", slots: int = 1) -> None:
        self.manager(
            Register("1", "3.11.0", "cpu", "cpu-0", key, key, 1, Capacity(8000, slots=slots), None, [], []), key=key
        )

    def submit(self, *ids: int) -> list[Task]:
        self.client(Submit([Task(id, 0, 1, 1, b"") for id in ids]))
        return [task for message in self.letters.get("m1", []) if isinstance(message, Run) for task in message.tasks]

    def sent(self, to: str, kind: type) -> Any:
        (message,) = [message for message in self.letters.get(to, []) if isinstance(message, kind)]
        return message


def _travelled(messages: Any, decode: Any) -> list[Any]:
    return list(decode(encode(Envelope(1, 1, 0, 0, False, list(messages)))).messages)


def answer(messages: list[Any]) -> Explanation:
    (message,) = [message for message in messages if isinstance(message, Explained)]
    assert message.token == 5
    explanation: Explanation = message.explanation
    return explanation


def told(bench: Bench, view: ClientView) -> list[Any]:
    """The client answers the question that it has just been asked; what the terminal hears then."""
    bench.client(TaskView(bench.sent("client", LookUp).token, view))
    return bench.letters.get("terminal", [])
