"""What the run's program knows of one task: who it waits for, and what becomes of blocks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any, Final

import msgspec

from pilotflow.core.block_records import BlockInfo, Outlook, Phase
from pilotflow.core.graph import Graph
from pilotflow.explanation import Named
from pilotflow.futures import AppFuture
from pilotflow.messages.views import BlockView, ClientView, ExecutorView, Stretch
from pilotflow.runtime.tickets import Ticket

LISTED_MAX: Final = 10
"""Needs, links at each end of a chain, and names that travel."""
STRETCHES_MAX: Final = 10_000
"""Stretches of tasks with one name that travel."""


def look_up(
    asked: str,
    graph: Graph[AppFuture[Any]],
    foreign: Mapping[int, Future[Any]],
    here: Callable[[int], tuple[str, bool]],
    paused: Collection[int],
) -> ClientView:
    """What the graph knows of the pending task with this number, name or label.

    Args:
        asked: its number, name or label. Of several with the name, the first that waits here; if none does, the
            first that is not known to run.
        graph: the pending tasks.
        foreign: futures of other kinds that tasks wait for, by the number that stands for them.
        here: what the program does about a task, and whether it runs it; see `ClientView`.
        paused: tasks that are tried again after a while.
    """
    by_number = asked.isascii() and asked.isdecimal() and len(asked) < 19
    named_so = [] if by_number else _named(asked, graph)
    waits = _first_that_waits(named_so, (*graph.unsent, paused))
    id = int(asked) if by_number else waits or _first_not_running(named_so, graph)
    future = graph.pending.get(id)
    if future is None:
        pending = () if asked.isdecimal() else graph.pending.values()
        names = dict.fromkeys(word for one in pending for word in (one.name, one.label) if word)
        return ClientView(0, names=tuple(sorted(names)[:LISTED_MAX]))

    def named(number: int) -> Named:
        task = graph.pending.get(number)
        if task is not None:
            return Named(number, task.name)
        other = foreign.get(number)
        name = getattr(other, "name", "") or type(other).__name__
        return Named(other.task_id if isinstance(other, Ticket) else 0, name)

    needs = graph.needs(id)
    needs = [number for number in needs if not _is_ticket_for_one_of(foreign.get(number), needs)]
    chain = _chain(needs, graph)
    last = chain[-1] if chain else id
    cut = chain if len(chain) <= 2 * LISTED_MAX else [*chain[:LISTED_MAX], *chain[-LISTED_MAX:]]
    return ClientView(
        id,
        future.name,
        len(named_so),
        tuple(map(named, needs[:LISTED_MAX])),
        len(needs),
        tuple(map(named, cut)),
        len(chain),
        graph.holds_back(last),
        (),
        (),
        (),
        *here(last),
        _stretches(named_so[: bisect_left(named_so, waits)] if waits else named_so, graph),
    )


def _is_ticket_for_one_of(need: Future[Any] | None, others: list[int]) -> bool:
    return isinstance(need, Ticket) and need.task_id in others


def _named(asked: str, graph: Graph[AppFuture[Any]]) -> list[int]:
    """Pending tasks with that name or label, in the order of their numbers."""
    found = [id for id, future in graph.pending.items() if asked in (future.name, future.label)]
    found.sort()
    return found


def _first_that_waits(ids: Sequence[int], waiting: Iterable[Collection[int]]) -> int:
    """The first of them that is in one of these collections, or 0."""
    return min((id for some in waiting if some for id in islice(filter(some.__contains__, ids), 1)), default=0)


def _first_not_running(ids: Sequence[int], graph: Graph[AppFuture[Any]]) -> int:
    """The first of them that is not known to run; the very first if all do, 0 if there is none."""
    return next((id for id in ids if not graph.pending[id].running()), ids[0] if ids else 0)


def _stretches(ids: Sequence[int], graph: Graph[AppFuture[Any]]) -> tuple[Stretch, ...]:
    """What `ClientView.among` is."""
    found: list[Stretch] = []
    names = [graph.pending[id].name for id in ids]
    at = 0
    while at < len(ids) and len(found) < STRETCHES_MAX:
        end = bisect_right(range(len(ids)), ids[at] - at, at, key=lambda index: ids[index] - index)
        end = next((index for index in range(at + 1, end) if names[index] != names[at]), end)
        found.append(Stretch(ids[at], ids[end - 1], names[at]))
        at = end
    return tuple(found)


def _chain(needs: list[int], graph: Graph[AppFuture[Any]]) -> list[int]:
    """From one of these tasks to one that waits for no other; rather to one that is not running."""
    chain: list[int] = []
    while needs:
        last = next((id for id in needs if (task := graph.pending.get(id)) is None or not task.running()), needs[0])
        chain.append(last)
        needs = graph.needs(last)
    return chain


def with_blocks(view: ClientView, blocks: Sequence[BlockInfo], outlooks: Sequence[Outlook], now: float) -> ClientView:
    """The same with what becomes of the run's blocks."""
    live = [block for block in blocks if block.phase is not Phase.ENDED]
    return msgspec.structs.replace(
        view,
        blocks=tuple(
            BlockView(b.block, b.executor, b.batch_id, b.phase.value, b.said, max(0.0, now - b.since)) for b in live
        ),
        executors=tuple(
            ExecutorView(
                one.executor,
                one.blocks,
                one.max_blocks,
                one.failures,
                one.last_failure,
                one.last_failed,
                max(0.0, one.hold_until - now),
                one.trouble,
            )
            for one in outlooks
        ),
    )
