"""Which tasks can run nowhere any more: executors have failed, or no node has what is asked for.

This is decided here, in the interchange, although it is the client that knows the configurations:
only the interchange knows at each moment what every manager has, those that joined unasked among
them, and it holds the tasks that must end. The client tells it what the executors are like
(`DefineExecutors`) and which of them will have no more blocks (`FailExecutor`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilotflow.core.shapes import Nodes, why_not_there, why_nowhere
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Status
from pilotflow.resources import BlockShape, Capacity

ANY = "*"
"""Stands for every executor of the run."""


@dataclass(frozen=True)
class Verdict:
    """How tasks of a class end that nothing will ever take, and why."""

    status: Status
    why: str


class Hope:
    """What may still come, judged by request class.

    Attributes:
        failed: executors that will have no new blocks, and why; `ANY` says so of all.
    """

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}
        self._nodes: dict[str, Nodes] = {}
        self._closed = False  # whether managers come from the executors' blocks alone
        self._here: Counter[tuple[str, Capacity]] = Counter()  # managers that take work, by what they are
        self._examples: dict[tuple[str, Capacity], Manager] = {}

    # ---- what it is told --------------------------------------------------------------------

    def define(self, executors: Sequence[BlockShape], *, closed: bool) -> None:
        """The executors of the run; if `closed`, nobody else will join."""
        self._closed = closed
        for blocks in executors:
            self._nodes.setdefault(blocks.executor, Nodes(blocks))

    def fail(self, executor: str, reason: str) -> None:
        """An executor will have no new blocks."""
        self.failed[executor] = reason

    def meet(self, manager: Manager, time_left_s: float | None) -> bool:
        """A manager has joined and takes work; True if that may change a verdict."""
        key = manager.executor, manager.capacity
        self._here[key] += 1
        self._examples[key] = manager
        before = self._nodes.get(manager.executor)
        if before is not None:
            self._nodes[manager.executor] = before.learn(manager.capacity, time_left_s)
        learned = before is not None and self._nodes[manager.executor] != before
        return learned or (bool(self.failed) and self._here[key] == 1)

    def part(self, manager: Manager) -> bool:
        """A manager takes no more work; True if that may change a verdict."""
        key = manager.executor, manager.capacity
        self._here[key] -= 1
        if self._here[key] > 0:
            return False
        del self._here[key], self._examples[key]
        return bool(self.failed)

    # ---- what it tells ----------------------------------------------------------------------

    def judge_all(self, classes: Iterable[RequestClass]) -> dict[int, Verdict]:
        """Those of the classes whose tasks nothing will ever take."""
        if not self.failed and not self._closed:
            return {}
        return {cls.id: verdict for cls in classes if (verdict := self.judge(cls)) is not None}

    def judge(self, cls: RequestClass) -> Verdict | None:
        """How tasks of the class end, or None while there is hope."""
        admitted = [nodes for name, nodes in self._nodes.items() if cls.admits(name)]
        if self._closed and admitted and not any(nodes.admits(cls.request) for nodes in admitted):
            return Verdict(Status.TOO_LARGE, why_nowhere(cls.request, admitted))
        names = sorted(cls.executors)
        misfits = [nodes for name in names if name not in self.failed and (nodes := self._misfit(name, cls))]
        dead = bool(names) and len(misfits) + sum(name in self.failed for name in names) == len(names)
        if not (dead or ANY in self.failed) or self._anybody_here(cls):
            return None
        reasons = [self.failed[name] for name in names if name in self.failed]
        if misfits:
            reasons.append(why_nowhere(cls.request, misfits))
        return Verdict(Status.UNSTARTABLE, "\n".join(reasons) or self.failed[ANY])

    def misfits(self, cls: RequestClass) -> dict[str, str]:
        """Executors of which no new block would take a task of the class, as far as that is known, and why."""
        admitted = [nodes for name, nodes in self._nodes.items() if cls.admits(name)]
        misfits = [nodes for nodes in admitted if not nodes.admits(cls.request)]
        return {nodes.blocks.executor: why_not_there(cls.request, nodes) for nodes in misfits}

    def _misfit(self, executor: str, cls: RequestClass) -> Nodes | None:
        """The executor, if it is certain that no block of it would take a task of the class."""
        nodes = self._nodes.get(executor)
        return nodes if self._closed and nodes is not None and not nodes.admits(cls.request) else None

    def _anybody_here(self, cls: RequestClass) -> bool:
        """Whether a manager that takes work would take a task of the class, or its part of one, and be the first to."""
        return any(
            not manager.capacity.follows and manager.could_ever_run(cls) and self._misfit(manager.executor, cls) is None
            for manager in self._examples.values()
        )
