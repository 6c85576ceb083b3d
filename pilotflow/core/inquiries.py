"""Questions from other terminals about single tasks, until everybody who knows something has answered."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from pilotflow.messages.client import TaskView
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.manager import IsAt
from pilotflow.messages.views import ClientView, Whereabouts

ANSWER_S: Final = 2.0
"""The run's program, and then the task's manager, are waited for so long."""
INQUIRIES_MAX: Final = 100
"""Questions that may wait for their answers at once."""
MOVES_MAX: Final = 3
"""A task that goes from manager to manager is followed so far."""

TIME_MAX_S: Final = 1e10
"""Longer than anything lasts."""


@dataclass(eq=False)
class Inquiry:
    """One question about one task.

    Attributes:
        key, token: who has asked, and under which number.
        task: the number or name that was asked for.
        due: when the one that is being asked has had enough time.
        view: what the program has said; None before, and if it does not answer.
        has_view: whether nothing more is to be heard from the program.
        chosen: whether the view is about the one of several tasks that is answered for.
        asked: (manager, task, attempt) that a manager was asked about.
        asks: how often a manager was asked.
        place: what the manager has said.
    """

    key: Hashable
    token: int
    task: str
    due: float
    view: ClientView | None = None
    has_view: bool = False
    chosen: bool = False
    asked: tuple[int, int, int] | None = None
    asks: int = 0
    place: Whereabouts | None = None


class Inquiries:
    """The questions of a run that have not been answered."""

    def __init__(self) -> None:
        self._open: dict[int, Inquiry] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[tuple[int, Inquiry]]:
        return iter(list(self._open.items()))

    def add(self, key: Hashable, token: int, task: str, now: float) -> int:
        """A new question; returns the number under which others are asked about it."""
        self._last += 1
        self._open[self._last] = Inquiry(key, token, task, now + ANSWER_S)
        return self._last

    def client_said(self, message: TaskView) -> None:
        """The run's program has answered.

        Raises:
            BadMessage: with times that are none.
        """
        view = message.view
        _check_times([*(block.for_s for block in view.blocks), *(one.next_try_s for one in view.executors)])
        inquiry = self._open.get(message.token)
        if inquiry is not None and not inquiry.has_view:
            inquiry.view, inquiry.has_view = view, True

    def manager_said(self, manager: int, message: IsAt) -> None:
        """A manager has answered.

        Raises:
            BadMessage: with a time that is none.
        """
        _check_times([message.place.running_s or 0.0])
        inquiry = self._open.get(message.token)
        if inquiry is not None and inquiry.asked is not None and inquiry.asked[0] == manager:
            inquiry.place = message.place

    def close(self, number: int) -> None:
        """It has been answered."""
        del self._open[number]

    def forget(self, key: Hashable) -> None:
        """Whoever has asked is gone."""
        if self._open:
            self._open = {number: inquiry for number, inquiry in self._open.items() if inquiry.key != key}

    def next_due(self) -> float:
        """When somebody has had enough time to answer."""
        return min((inquiry.due for inquiry in self._open.values()), default=float("inf"))


def _check_times(times_s: Iterable[float]) -> None:
    if not all(0.0 <= time_s <= TIME_MAX_S for time_s in times_s):
        raise BadMessage("a duration that is negative, endless or no number")
