"""Which one of several tasks that are called alike is answered for: one that waits, if any does.

The run's program knows their names and hears a second late which of them have begun; the interchange knows
what waits. A look at the first of each class is enough as a rule, however many tasks are pending.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Final

from pilotflow.core.ahead import newest
from pilotflow.core.scheduler import Scheduler
from pilotflow.messages.records import Task
from pilotflow.messages.views import ClientView, Stretch

LOOKS_MAX: Final = 1_000_000
"""Tasks that are looked at one by one, if no class begins with one of them."""


def choose(view: ClientView, scheduler: Scheduler) -> ClientView:
    """The same about the task that is to be answered for.

    That is one that waits in the queue; else the one that the program has named, if it waits there; else one that
    was sent to a node ahead of time; else the one that the program has named.
    """
    if not view.among:
        return view
    name_of = _names(view.among)
    task = _first_of_a_class(name_of, scheduler) or _any_queued(view.among, scheduler)
    if task is None and view.task in scheduler.tasks:
        task = _sent_ahead(name_of, scheduler)
    if task is None or task.id == view.task:
        return view
    return ClientView(task.id, name_of(task.id) or view.name, view.alike, blocks=view.blocks, executors=view.executors)


def _names(stretches: Sequence[Stretch]) -> Callable[[int], str | None]:
    """Gives the name of a task, or None if it is in none of the stretches."""
    ordered = sorted(stretches, key=lambda stretch: stretch.first)
    firsts = [stretch.first for stretch in ordered]

    def name_of(id: int) -> str | None:
        at = bisect_right(firsts, id) - 1
        return ordered[at].name if at >= 0 and id <= ordered[at].last else None

    return name_of


def _first_of_a_class(name_of: Callable[[int], str | None], scheduler: Scheduler) -> Task | None:
    firsts = (cls.first() for cls in scheduler.classes.values())
    return min(
        (task for task in firsts if task is not None and name_of(task.id) is not None),
        key=lambda task: task.id,
        default=None,
    )


def _any_queued(stretches: Sequence[Stretch], scheduler: Scheduler) -> Task | None:
    ids = chain.from_iterable(range(stretch.first, stretch.last + 1) for stretch in stretches)
    tasks = map(scheduler.tasks.get, islice(ids, LOOKS_MAX))
    return next((task for task in tasks if task is not None and not task.manager), None)


def _sent_ahead(name_of: Callable[[int], str | None], scheduler: Scheduler) -> Task | None:
    for manager in scheduler.managers.values():
        for cls_id, count in manager.prefilled.items():
            ahead = [task for task in newest(manager, cls_id, count, scheduler.tasks) if name_of(task.id) is not None]
            if ahead:
                return ahead[-1]
    return None
