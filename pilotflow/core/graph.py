"""The client's mind: which tasks are pending, which wait for others, which are tried again.

Handles stand for futures and are never looked into. A task without dependencies costs one
dictionary entry. The shell (`pilotflow.runtime.client`) owns the futures and the socket.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pilotflow.core.retry import Policy
from pilotflow.core.window import FrameWindow
from pilotflow.messages.records import Task
from pilotflow.serialize import Packed, join

H = TypeVar("H")

LOCAL: Final = 0
"""The request class of tasks that run in the user's program."""


@dataclass(eq=False)
class Waiting:
    """A task that needs results of others: its own arguments first, then one place for each.

    In the place of a result that is not there yet is the id of the task that makes it.

    Attributes:
        allow_failed: in the place of a failure it takes what the failure is packed as.
    """

    task: Task
    packs: list[Packed | int]
    missing: int
    allow_failed: bool = False


@dataclass(frozen=True)
class Oversized:
    """A task whose arguments are too long to travel, joined with the results that they need.

    Attributes:
        id: the task.
        parts: bytes of its own arguments, then of each of these results.
    """

    id: int
    parts: tuple[int, ...]


@dataclass
class Kept:
    """What is needed to submit a task once more.

    Attributes:
        task, frames: what is submitted.
        retries: how often it may still be tried again.
        policy: how its failures are dealt with, if there is more to it than a number of retries.
        tries: how often it was tried.
        used_s: how long all these took.
    """

    task: Task
    frames: Sequence[Any]
    retries: int
    policy: Policy | None = None
    tries: int = 1
    used_s: float = 0.0


@dataclass
class Ready(Generic[H]):
    """Tasks to submit, with the payload frames they count, in order, and what is known of lost attempts at them.

    `local` are the ids of those that run in the user's program.
    """

    tasks: list[Task] = field(default_factory=list)
    frames: list[Any] = field(default_factory=list)
    crashes: list[tuple[int, list[str]]] = field(default_factory=list)
    local: list[int] = field(default_factory=list)


class Graph(Generic[H]):
    """Pending tasks of one run.

    Args:
        keep_all: keep every task until it has ended, so that all can be submitted again to an
            interchange that has lost its memory.
        max_bytes: largest payload that the run's links carry, None for no limit.
    """

    def __init__(self, keep_all: bool = False, max_bytes: int | None = None) -> None:
        self.pending: dict[int, H] = {}
        self._keep_all = keep_all
        self._max_bytes = max_bytes
        self._oversized: list[Oversized] = []
        self._waiting: dict[int, Waiting] = {}
        self._dependents: dict[int, list[tuple[Waiting, int]]] = {}
        self._kept: dict[int, Kept] = {}
        self._crashes: dict[int, list[str]] = {}
        self._ready: Ready[H] = Ready()
        self._window = FrameWindow()

    def add(
        self,
        handle: H,
        task: Task,
        frames: Sequence[Any],
        retries: int = 0,
        needs: Sequence[Packed | int] = (),
        policy: Policy | None = None,
    ) -> None:
        """A new task.

        Args:
            handle: its future.
            task: what to submit.
            frames: payload frames that it counts.
            retries: how often it is tried again after an error of its own.
            needs: for each of its dependencies the result, or the id of the task that makes it.
            policy: how its failures are dealt with, instead of `retries`.
        """
        self.pending[task.id] = handle
        if policy is not None:
            self._kept[task.id] = Kept(task, frames, policy.retries, policy)
        elif retries or self._keep_all:
            self._kept[task.id] = Kept(task, frames, retries)
        if not needs:
            self._ready.tasks.append(task)
            if frames:
                self._ready.frames += frames
            return
        self._wait(task, [Packed(task.payload, task.layout, tuple(frames))], needs, policy)

    def add_local(self, handle: H, id: int, needs: Sequence[int], policy: Policy | None = None) -> None:
        """A new task that runs in the user's program once these have ended; `Ready.local` tells when."""
        self.pending[id] = handle
        task = Task(id, 0, 0, LOCAL, b"")
        if policy is not None:
            self._kept[id] = Kept(task, (), policy.retries, policy)
        self._wait(task, [], needs, policy)

    def wait_again(self, id: int, needs: Sequence[int]) -> None:
        """A local task that has run ends with these; `Ready.local` tells once more."""
        self._wait(Task(id, 0, 0, LOCAL, b""), [], needs, None)

    def _wait(
        self, task: Task, packs: list[Packed | int], needs: Sequence[Packed | int], policy: Policy | None
    ) -> None:
        missing = sum(type(need) is int for need in needs)
        waiting = Waiting(task, packs, missing, policy is not None and policy.allow_failed)
        for index, need in enumerate(needs, len(packs)):
            packs.append(need)
            if not isinstance(need, Packed):
                self._dependents.setdefault(need, []).append((waiting, index))
        if missing:
            self._waiting[task.id] = waiting
        else:
            self._complete(waiting)

    def finish(self, id: int) -> H | None:
        """A task has ended for good; None if it had ended before."""
        if self._kept:
            self._kept.pop(id, None)
        if self._crashes:
            self._crashes.pop(id, None)
        if self._waiting:
            self._waiting.pop(id, None)
        self._window.end(id)
        return self.pending.pop(id, None)

    def is_superseded(self, id: int, attempt: int) -> bool:
        """Whether a result is of an attempt that has been followed by a try of ours already.

        It is, when an interchange that has lost its memory delivers a result for the second time.
        """
        kept = self._kept.get(id)
        return kept is not None and attempt <= kept.task.attempt

    def has_dependents(self, id: int) -> bool:
        """Whether any task waits for this one."""
        return id in self._dependents

    def feeds_workers(self, id: int) -> bool:
        """Whether any task waits for this one's result that needs it packed."""
        return any(waiting.task.cls != LOCAL for waiting, _ in self._dependents.get(id, ()))

    def supply(self, id: int, packed: Packed) -> None:
        """The result of a task (or of a foreign future) for those that wait for it."""
        self.supply_to(self._dependents.pop(id, ()), packed)

    def supply_to(self, dependents: Sequence[tuple[Waiting, int]], packed: Packed) -> None:
        """As `supply`, for these that wait alone."""
        for waiting, index in dependents:
            waiting.packs[index] = packed
            waiting.missing -= 1
            if not waiting.missing and self._waiting.pop(waiting.task.id, None) is not None:
                self._complete(waiting)

    def take_oversized(self) -> list[Oversized]:
        """Tasks that will never be ready: the caller fails and finishes them."""
        oversized, self._oversized = self._oversized, []
        return oversized

    def abandon(self, id: int) -> list[int]:
        """A task has failed: the ids of those that wait for it, which can never run."""
        return [w.task.id for w, _ in self._dependents.pop(id, ()) if w.task.id in self._waiting]

    def take_tolerant(self, id: int) -> list[tuple[Waiting, int]]:
        """Those that wait for this one and take its failure as well; hand them to `supply_to`."""
        dependents = self._dependents.get(id, ())
        tolerant = [(waiting, index) for waiting, index in dependents if waiting.allow_failed]
        if tolerant:
            self._dependents[id] = [pair for pair in dependents if not pair[0].allow_failed]
        return tolerant

    def retry(self, id: int, attempt: int) -> bool:
        """Try a task again after an error of its own; False if it has no tries left."""
        kept = self._kept.get(id)
        if kept is None or kept.retries <= 0:
            return False
        self.count_try(kept, attempt)
        self.submit_again(id)
        return True

    def kept(self, id: int) -> Kept | None:
        """What is known of a task that may be tried again."""
        return self._kept.get(id)

    def count_try(self, kept: Kept, attempt: int) -> None:
        """A try has failed, with that attempt, and `submit_again` follows."""
        kept.retries -= 1
        kept.tries += 1
        kept.task.attempt = attempt
        self._crashes.pop(kept.task.id, None)

    def submit_again(self, id: int, cls: int | None = None) -> None:
        """Submit a task for its next try, in another request class if one is given; nothing if it has ended."""
        kept = self._kept.get(id)
        if kept is not None:
            if cls is not None:
                kept.task.cls = cls
            self._submit(kept)

    def crashed(self, id: int, attempt: int, line: str) -> None:
        """An attempt was lost with its worker or manager: remember it, should the interchange forget.

        Args:
            id, attempt: which one; nothing that comes of it or of earlier ones counts from now on.
            line: what the task's history says of it.
        """
        if id not in self.pending:
            return
        self._crashes.setdefault(id, []).append(line)
        if (kept := self._kept.get(id)) is not None:
            kept.task.attempt = max(kept.task.attempt, attempt)

    def submit_all_again(self) -> None:
        """The interchange has lost its memory: submit everything it should know."""
        self._ready = Ready(local=self._ready.local)
        for id, kept in self._kept.items():
            if id not in self._waiting and kept.task.cls != LOCAL:
                self._submit(kept)

    def needs(self, id: int) -> list[int]:
        """The unfinished tasks (and foreign futures) that a task waits for, each once."""
        waiting = self._waiting.get(id)
        return [] if waiting is None else list(dict.fromkeys(pack for pack in waiting.packs if isinstance(pack, int)))

    def holds_back(self, id: int) -> bool:
        """Whether a task waits because too many big arguments are on their way."""
        return self._window.holds(id)

    def is_waiting(self, id: int) -> bool:
        """Whether a task waits, for others or for its turn, so that the interchange has not heard of it."""
        return id in self._waiting or self._window.holds(id)

    @property
    def unsent(self) -> tuple[Collection[int], ...]:
        """Pending tasks of which the interchange has not heard: those that wait for others, those held back."""
        return self._waiting.keys(), self._window.held

    def take_ready(self) -> Ready[H]:
        """Tasks to submit now."""
        ready, self._ready = self._ready, Ready()
        if ready.frames or self._window:
            ready.tasks, ready.frames = self._window.admit(ready.tasks, ready.frames)
        if self._crashes:
            ready.crashes = [(task.id, self._crashes[task.id]) for task in ready.tasks if task.id in self._crashes]
        return ready

    def _submit(self, kept: Kept) -> None:
        if kept.task.cls == LOCAL:
            self._ready.local.append(kept.task.id)
            return
        self._ready.tasks.append(kept.task)
        self._ready.frames += kept.frames

    def _complete(self, waiting: Waiting) -> None:
        if waiting.task.cls == LOCAL:
            self._ready.local.append(waiting.task.id)
            return
        packs = [pack for pack in waiting.packs if isinstance(pack, Packed)]
        whole = join(packs)
        task = waiting.task
        if whole.layout and self._max_bytes is not None and whole.nbytes > self._max_bytes:
            self._oversized.append(Oversized(task.id, tuple(pack.nbytes for pack in packs)))
            return
        task.payload, task.layout = whole.payload, whole.layout
        kept = self._kept.get(task.id)
        if kept is not None:
            kept.frames = whole.frames
        self._ready.tasks.append(task)
        self._ready.frames += whole.frames
