"""What was handed out before the interchange was restarted, until client and managers agree on it.

After a restart the client submits everything again, and managers come back with what they hold
and with results that nobody has acknowledged, in any order. A task waits here until its manager
claims it, or its result comes, or the grace is over. Then it is tried again, and that counts as
one lost attempt, because it might have been running on a manager that never came back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from enum import Enum, auto

from pilotflow.core.checks import how_it_crashed, is_crash
from pilotflow.messages.records import Result, Status, Task


class Verdict(Enum):
    """What to do with something that no lease of ours explains."""

    STALE = auto()  # superseded or over
    WAIT = auto()  # the client has not spoken about it yet
    TAKE = auto()  # it is the task's latest


class Recovery:
    """Work of earlier lives of the interchange.

    Args:
        floor: attempts below this were handed out in an earlier life.
        grace_s: how long the parties have to come back.
        active: whether there was an earlier life at all.
    """

    def __init__(self, floor: int, grace_s: float, *, active: bool) -> None:
        self.active = active
        self._floor = floor
        self._grace_s = grace_s
        self._held: dict[int, tuple[float, Task]] = {}  # resubmitted; may be claimed yet
        self._claims: dict[int, tuple[float, int, int]] = {}  # task -> due, manager, attempt
        self._ended: dict[int, tuple[float, int, str]] = {}  # task -> due, attempt, how it crashed or ""
        self._open_until: float | None = None  # when results for which nothing waits here are too late
        self._dues: deque[tuple[float, int]] = deque()  # when to look at which task again

    def __contains__(self, id: int) -> bool:
        return id in self._held

    def begin(self, floor: int) -> None:
        """The client has begun anew: attempts below the floor are now of an earlier life, too."""
        self.active = True
        self._floor = floor

    def client_is_here(self, now: float) -> None:
        """The client submits again what it waits for; after the grace all of that has had a new attempt."""
        self._open_until = now + self._grace_s

    @property
    def held(self) -> int:
        """Tasks that wait here."""
        return len(self._held)

    def resubmit(self, task: Task, now: float) -> tuple[Verdict, int, str]:
        """The client submits a task again.

        Returns the verdict, the manager that holds it if it is to be taken, and how it crashed if
        the verdict is that it is stale and it did not end well.
        """
        id = task.id
        ended = self._ended.pop(id, None)
        if ended is not None and ended[1] > task.attempt:
            task.attempt = ended[1]
            return Verdict.STALE, 0, ended[2]
        claim = self._claims.pop(id, None)
        if claim is not None and claim[2] > task.attempt:
            task.attempt = claim[2]
            return Verdict.TAKE, claim[1], ""
        self._held[id] = (self._remind(id, now), task)
        return Verdict.WAIT, 0, ""

    def claim(self, manager: int, id: int, attempt: int, now: float) -> tuple[Verdict, Task | None, tuple[int, int]]:
        """A manager comes back holding this attempt.

        Returns the verdict, the task if it is to be taken, and (manager, attempt) of a claim that
        this one supersedes, or zeros.
        """
        nothing = (0, 0)
        if not self.active or attempt >= self._floor:
            return Verdict.STALE, None, nothing
        held = self._held.get(id)
        if held is not None:
            task = held[1]
            if attempt <= task.attempt:
                return Verdict.STALE, None, nothing
            del self._held[id]
            task.attempt = attempt
            return Verdict.TAKE, task, nothing
        ended = self._ended.get(id)
        if ended is not None and ended[1] >= attempt:
            return Verdict.STALE, None, nothing
        older = self._claims.get(id)
        if older is not None and older[1:] == (manager, attempt):
            return Verdict.WAIT, None, nothing
        if older is not None and older[2] >= attempt:
            return Verdict.STALE, None, nothing
        self._claims[id] = (self._remind(id, now), manager, attempt)
        return Verdict.WAIT, None, older[1:] if older is not None else nothing

    def result(self, manager: int, result: Result, now: float) -> tuple[Verdict, Task | None]:
        """A result that no lease explains; with the task that waits for it, if there is one.

        `WAIT` is for the loss of a worker of which the client will hear when it submits again.
        """
        id, attempt = result.id, result.attempt
        if not self.active or not 0 <= attempt < self._floor:
            return Verdict.STALE, None
        held = self._held.get(id)
        claim = self._claims.get(id)
        ended = self._ended.get(id)
        if (
            (held is None and self._open_until is not None and now >= self._open_until)
            or (held is not None and attempt <= held[1].attempt)
            or (claim is not None and (attempt < claim[2] or (attempt == claim[2] and manager != claim[1])))
            or (ended is not None and attempt <= ended[1])
        ):
            return Verdict.STALE, None
        self._held.pop(id, None)
        self._claims.pop(id, None)
        crashed = result.status > Status.ERROR and is_crash(result)
        if held is None:
            how = how_it_crashed(result) or "its worker died" if crashed else ""
            self._ended[id] = (self._remind(id, now), attempt, how)
            if crashed:
                return Verdict.WAIT, None
        return Verdict.TAKE, held[1] if held is not None else None

    def cancel(self, id: int) -> Task | None:
        """The client wants a task ended that waits here."""
        held = self._held.pop(id, None)
        return held[1] if held is not None else None

    def lose(self, manager: int, but: Container[int] = ()) -> None:
        """A manager is gone, and with it what it claimed; or all but these tasks of it."""
        if self._claims:
            self._claims = {id: claim for id, claim in self._claims.items() if claim[1] != manager or id in but}

    def release(self, now: float) -> tuple[list[Task], list[tuple[int, int, int]]]:
        """What nobody came for: tasks to try again, and (manager, task, attempt) that nobody wants."""
        tasks: list[Task] = []
        unwanted: list[tuple[int, int, int]] = []
        while self._dues and self._dues[0][0] <= now:
            _, id = self._dues.popleft()
            if (held := self._held.get(id)) is not None and held[0] <= now:
                del self._held[id]
                tasks.append(held[1])
            if (claim := self._claims.get(id)) is not None and claim[0] <= now:
                del self._claims[id]
                unwanted.append((claim[1], id, claim[2]))
            if (ended := self._ended.get(id)) is not None and ended[0] <= now:
                del self._ended[id]
        return tasks, unwanted

    def take_held(self) -> list[Task]:
        """Everybody who could hold something has come back: these tasks, which nobody has claimed, were not out."""
        tasks = [task for _, task in self._held.values()]
        self._held.clear()
        return tasks

    def next_due(self) -> float | None:
        """When `release` may have something, or None."""
        return self._dues[0][0] if self._dues else None

    def _remind(self, id: int, now: float) -> float:
        due = now + self._grace_s
        self._dues.append((due, id))
        return due
