"""Why a task is not running, or where it runs: what `run.explain` and `pilotflow explain` answer.

An `Explanation` is a list of `Reason`s, the most important first, each in words and in numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final

import msgspec

_SHOWN: Final = 9
"""Words of a list that text names."""
_LINKS_SHOWN: Final = 5
"""Links of a chain that text names; the last two are among them."""


class State(Enum):
    """Where a task is in its life."""

    WAITING = "waiting"  # for other tasks, or for its next try
    QUEUED = "queued"  # no manager has it
    LEASED = "leased"  # a manager has it, and it has not started
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ENDED = "ended"  # how is not known yet
    UNKNOWN = "unknown"


class Kind(Enum):
    """What a reason is about. Those of one task come in this order."""

    SILENT = "silent"  # somebody who would know more has not answered
    NEEDS = "needs"  # it needs results of other tasks
    HERE = "here"  # the run's program itself runs it, or lets it wait before its next try
    HELD_BACK = "held back"  # too many big arguments are on their way
    RESTART = "restart"  # the interchange was restarted and waits for the managers it had
    BEHIND = "behind"  # the run's program does not take its results
    ENDING = "ending"  # it was cancelled, or the run ends
    CORES = "cores"
    MEMORY = "memory"
    GPUS = "gpus"
    CONSUMABLE = "consumable"
    APART = "apart"  # everything is free, but not on one node
    SLOTS = "slots"  # every worker is busy
    DEPTH = "depth"  # the node runs as many tasks as it may
    RESERVED = "reserved"  # nodes are kept free for another task
    TAKEN = "taken"  # multi-node tasks have whole nodes
    NODES = "nodes"  # too few nodes of one block are empty
    NEXT = "next"  # nothing stands in its way
    BLOCK = "block"  # a block is awaited
    START_FAILURES = "start failures"  # blocks end before they can work
    NO_BLOCK = "no block"  # and none is awaited
    TOO_LONG = "too long"  # for what is left of the blocks' walltime
    CLOSED = "closed"  # all nodes take no more work
    TOO_BIG = "too big"  # for every node
    GIVEN_UP = "given up"  # the executor has failed
    NOT_BOUND = "not bound"  # it may not run on that executor
    KEPT = "kept"  # nodes are kept free for it
    AHEAD = "ahead"  # other tasks come first
    CRASHES = "crashes"  # attempts at it were lost
    SENT = "sent"  # a manager has it and has not started it
    RUNS = "runs"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ENDED = "ended"
    ALIKE = "alike"  # several tasks have the name that was asked for
    UNKNOWN = "unknown"  # there is no such task, or no record of it


NEXT_STEP: Final = "What now: "
"""What the last lines of an explanation begin with."""
RANKS: Final = {kind: rank for rank, kind in enumerate(Kind)}
"""Their order: what stands in the way soonest to be gone comes before what never goes."""

HOPELESS: Final = frozenset({Kind.TOO_BIG, Kind.GIVEN_UP})
"""An executor with such a reason never takes the task, as far as anybody knows."""


class Number(msgspec.Struct, frozen=True, array_like=True):
    """One of a reason's numbers; the name ends in its unit, if it has one."""

    name: str
    value: int | float  # what is counted stays whole on its way


class Reason(msgspec.Struct, frozen=True, array_like=True):
    """One thing that is so.

    Attributes:
        kind: what it is about.
        text: the same in words, whole sentences.
        executor: whom it concerns; empty for none in particular.
        numbers: what was asked for, what there is.
        tasks: other tasks that it is about.
        block, node: where, if it is about one.
        advice: what to do about it, or what happens next.
    """

    kind: Kind
    text: str
    executor: str = ""
    numbers: tuple[Number, ...] = ()
    tasks: tuple[int, ...] = ()
    block: str = ""
    node: str = ""
    advice: str = ""


class Named(msgspec.Struct, frozen=True, array_like=True):
    """A task by number and name; number 0 is a future that is no task of the run."""

    task: int
    name: str

    def __str__(self) -> str:
        return self.called("task")

    def called(self, noun: str) -> str:
        """The same as text; `noun` says what is numbered: tasks or jobs."""
        if not self.task:
            return f"a future of another kind ({self.name})"
        return f"{noun} {self.task} ({self.name})" if self.name else f"{noun} {self.task}"


class Explanation(msgspec.Struct, frozen=True, array_like=True):
    """The answer for one task. `str()` of it is text for people.

    Attributes:
        task: its number; 0 if there is no such task.
        name: name of its function; empty if that is not known here.
        state: where it is in its life.
        reasons: the most important first.
        chain: for a task that waits for others: the tasks from the one it needs to the one that
            all of this waits for.
        links: how many there are in that chain, if `chain` leaves some out.
        root: the explanation of the last one.
        noun: what people call it: "job" in a workflow.
    """

    task: int
    name: str
    state: State
    reasons: tuple[Reason, ...]
    chain: tuple[Named, ...] = ()
    links: int = 0
    root: Explanation | None = None
    noun: str = "task"

    @property
    def advice(self) -> str:
        """What to do, or what happens next: that of the first reason that has some."""
        found = next((reason.advice for reason in self.reasons if reason.advice), "")
        return found or (self.root.advice if self.root is not None else "")

    @property
    def headline(self) -> str:
        """The answer in one sentence."""
        called = Named(self.task, self.name).called(self.noun) if self.task else f"this {self.noun}"
        subject = f"{called[0].upper()}{called[1:]}"
        match self.state:
            case State.WAITING:
                return f"{subject} waits for {self.chain[-1].called(self.noun) if self.chain else 'its next try'}."
            case State.QUEUED if self._is_hopeless():
                return f"{subject} is queued, and nothing that is known of can run it."
            case State.LEASED:
                return f"{subject} has been handed to a node."
            case State.CANCELLED:
                return f"{subject} was cancelled."
            case State.FAILED | State.ENDED:
                return f"{subject} has {self.state.value}."
            case State.UNKNOWN:
                return f"{subject} is not known."
            case _:
                return f"{subject} is {self.state.value}."

    def _is_hopeless(self) -> bool:
        first: dict[str, Kind] = {}
        for reason in self.reasons:
            if reason.executor and reason.kind is not Kind.NOT_BOUND:
                first.setdefault(reason.executor, reason.kind)
        return bool(first) and all(kind in HOPELESS for kind in first.values())

    def __str__(self) -> str:
        return "\n".join(self.lines(100))

    def lines(self, width: int | None) -> list[str]:
        """The answer as text, in lines of at most `width` characters where words allow it; None folds nothing."""
        body = self._body(width)
        lines = [self.headline, *([""] if body and body[0] else []), *body]
        if self.advice:
            lines += ["", *_folded(self.advice, NEXT_STEP, width)]
        return lines

    def _body(self, width: int | None) -> list[str]:
        unbound = sorted({reason.executor for reason in self.reasons if reason.kind is Kind.NOT_BOUND})
        general = [reason for reason in self.reasons if not reason.executor]
        lines: list[str] = []
        for reason in general:
            if reason.kind is Kind.NEEDS and len(self.chain) == 1 and len(reason.tasks) <= 1:
                continue  # the headline says it
            if RANKS[reason.kind] < RANKS[Kind.NOT_BOUND]:
                lines += _folded(reason.text, "  ", width)
        lines += self._by_executor(width)
        if unbound:
            lines += _folded(f"It is not bound to {listed([repr(label) for label in unbound], 'or')}.", "  ", width)
        for reason in general:
            if RANKS[reason.kind] > RANKS[Kind.NOT_BOUND]:
                lines += _folded(reason.text, "  ", width)
        if self.links > 1:
            lines += ["", *_folded(self._chain(), "  The chain: ", width)]
        if self.root is not None:
            lines += ["", f"  {self.root.headline}"]
            lines += [f"  {line}" for line in self.root._body(None if width is None else width - 2)]
        return lines

    def _by_executor(self, width: int | None) -> Iterator[str]:
        texts: dict[str, list[str]] = {}
        for reason in self.reasons:
            if reason.executor and reason.kind is not Kind.NOT_BOUND:
                texts.setdefault(reason.executor, []).append(reason.text)
        indent = max(map(len, texts), default=0) + 2
        for label, its in texts.items():
            for number, text in enumerate(its):
                yield from _folded(text, f"  {'' if number else label:<{indent}}", width)

    def _chain(self) -> str:
        words = [f"{one.task} ({one.name})" if one.task else str(one) for one in self.chain]
        if self.links > _LINKS_SHOWN:
            shown = [*words[:-2][: _LINKS_SHOWN - 2], "", *words[-2:]]
            shown[-3] = f"... {self.links - len(shown) + 1:,} more ..."
            words = shown
        return " <- ".join([f"{self.task} ({self.name})", *words])


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words as people list them: "a, b and c"; long lists are cut."""
    if len(words) > _SHOWN:
        return f"{', '.join(words[: _SHOWN - 1])} {last} {len(words) - _SHOWN + 1} more"
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _folded(text: str, lead: str, width: int | None) -> list[str]:
    """Text behind its lead, in lines of that width; a text of several lines keeps them."""
    from textwrap import wrap  # for people only: the processes on nodes never come here

    lines: list[str] = []
    for line in text.splitlines():
        room = max(24, width - len(lead)) if width is not None else len(line) + 1
        for part in wrap(line, room, break_long_words=False, break_on_hyphens=False):
            lines.append(f"{' ' * len(lead) if lines else lead}{part}")
    return lines
