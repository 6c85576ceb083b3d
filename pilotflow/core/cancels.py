"""Cancels that wait for a manager's word. Each is answered when its task ends, however it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pilotflow.messages.client import Cancelled


class Asked(NamedTuple):
    """One cancel of one task, and whom it was put to."""

    token: int
    running: bool
    manager: int
    attempt: int


class Cancels:
    """The cancels of a run that have not been answered."""

    def __init__(self) -> None:
        self._asked: dict[int, dict[int, Asked]] = {}  # task -> token -> cancel
        self._answers: dict[int, Cancelled] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def __contains__(self, id: int) -> bool:
        return id in self._asked

    def __iter__(self) -> Iterator[int]:
        return iter(self._asked)

    def ask(self, id: int, asked: Asked) -> None:
        """A manager is asked to end this task."""
        self._asked.setdefault(id, {})[asked.token] = asked

    def of(self, id: int) -> list[Asked]:
        """The cancels of a task."""
        return list(self._asked.get(id, {}).values())

    def put_to(self, manager: int) -> list[int]:
        """Tasks about which this manager was asked."""
        return [id for id, asked in self._asked.items() if any(one.manager == manager for one in asked.values())]

    def settle(self, id: int, *, ended: bool) -> None:
        """A task has ended, because it was cancelled or of its own; all who asked are told."""
        for token in self._asked.pop(id, ()):
            self.answer(token, id, ended=ended)

    def refuse(self, id: int, token: int) -> None:
        """It goes on, because it has started."""
        asked = self._asked.get(id)
        if asked is not None and asked.pop(token, None) is not None:
            self.answer(token, id, ended=False)
            if not asked:
                del self._asked[id]

    def answer(self, token: int, id: int, *, ended: bool) -> None:
        """Tell the client with its next letter."""
        message = self._answers.get(token)
        if message is None:
            message = self._answers[token] = Cancelled(token, [], [])
        (message.ended if ended else message.refused).append(id)

    @property
    def answered(self) -> bool:
        """Whether there are answers to send."""
        return bool(self._answers)

    def take_answers(self) -> list[Cancelled]:
        """Answers that have not been sent."""
        answers, self._answers = self._answers, {}
        return list(answers.values())
