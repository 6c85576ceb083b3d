"""Blocks that a workflow's actions, or people at other terminals, ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from pilotflow.errors import PolicyExceeded
from pilotflow.units import counted
from pilotflow.workflow.records import Action

EACH: Final = "each"
"""What somebody says who wants a manager on each node."""

if TYPE_CHECKING:
    from pilotflow.run import Run
    from pilotflow.workflow.inbox import ActionEnded
    from pilotflow.workflow.supplies import Supplies


class AskedBlocks:
    """Asks a run for the blocks of one workflow.

    Args:
        supplies: which executors there are.
        actions: the workflow's.
    """

    def __init__(self, supplies: Supplies, actions: Sequence[Action]) -> None:
        self._supplies = supplies
        self._actions = actions

    def ask(self, run: Run | None, ended: ActionEnded) -> str:
        """An action was carried out: ask for its blocks; returns what came of it. Without a run `ask_again` will."""
        action = self._actions[ended.number]
        label = self._supplies.of_action(action)
        if label is not None and run is not None:
            try:
                run.request_blocks(label, action.num_allocations)
            except PolicyExceeded as error:  # others have been asked for by hand
                return f"failed: {error}"
        return ended.words

    def ask_again(self, run: Run, done: Iterable[int], present: Counter[str]) -> None:
        """A run has begun: ask for the blocks of all these actions, but for those that are present."""
        wanted = Counter[str]()
        for number in done:
            if (label := self._supplies.of_action(self._actions[number])) is not None:
                wanted[label] += self._actions[number].num_allocations
        for label, count in (wanted - present).items():
            run.request_blocks(label, count)

    def order(self, run: Run | None, words: Sequence[str]) -> str:
        """Somebody says: scheduler, count, jobs at once or nothing, `each` or nothing. Returns the executor's label.

        Raises:
            ValueError: there is no such executor; names those that there are. Or so many are not allowed.
        """
        name, count, depth = words[0], int(words[1]), int(words[2]) if words[2] else None
        each = words[3:] == [EACH]
        label = self._supplies.of_scheduler(name, depth, each=each)
        if label is None or run is None:
            known = ", ".join(executor.label for executor in run.config.executors) if run is not None else "none"
            at_once = "" if depth is None else f" with {counted(depth, 'job')} at once"
            managers = " with a manager on each node" if each else ""
            raise ValueError(
                f"no executor of scheduler '{name}'{at_once}{managers}; this run has: {known}. Which there are is said by "
                "the `schedule_nodes` actions of the workflow's file"
            )
        run.request_blocks(label, count)
        return label
