"""What the run's program knows of one task: who it waits for, and what becomes of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from pilotflow.core.block_records import BlockInfo, Outlook, Phase
from pilotflow.core.graph import Graph
from pilotflow.explanation import Named
from pilotflow.futures import AppFuture
from pilotflow.questions import BlockView, ClientView, ExecutorView
from pilotflow.runtime.tickets import Ticket

LISTED_MAX: Final = 10
"""Needs, links at each end of a chain, and names that travel."""


def look_up(
    asked: str,
    graph: Graph[AppFuture[Any]],
    foreign: Mapping[int, Future[Any]],
    here: Callable[[int], tuple[str, bool]],
) -> ClientView:
    """What the graph knows of the pending task with this number, name or label.

    Args:
        asked: its number, name or label. Of several with the name, the first that is not running.
        graph: the pending tasks.
        foreign: futures of other kinds that tasks wait for, by the number that stands for them.
        here: what the program does about a task, and whether it runs it; see `ClientView`.
    """
    id, alike = _find(asked, graph)
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
        alike,
        tuple(map(named, needs[:LISTED_MAX])),
        len(needs),
        tuple(map(named, cut)),
        len(chain),
        graph.holds_back(last),
        (),
        (),
        (),
        *here(last),
    )


def _is_ticket_for_one_of(need: Future[Any] | None, others: list[int]) -> bool:
    return isinstance(need, Ticket) and need.task_id in others


def _find(asked: str, graph: Graph[AppFuture[Any]]) -> tuple[int, int]:
    """A pending task's number, and how many have its name or label if it was asked for by that."""
    if asked.isascii() and asked.isdecimal() and len(asked) < 19:
        return int(asked), 0
    found = [future for future in graph.pending.values() if asked in (future.name, future.label)]
    first = next((future for future in found if not future.running()), found[0] if found else None)
    return (first.task_id if first is not None else 0), len(found)


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
