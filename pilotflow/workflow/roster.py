"""Which managers a run has, and whether those that it had are back after a restart of the interchange."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable

from pilotflow.messages.client import ManagerDown, ManagerUp


class Roster:
    """The managers of one run, by block and node.

    Args:
        there: those that there were when another program had the run.
        at_heads: executors whose blocks have one process each, which is a manager for each of its nodes.
    """

    def __init__(self, there: Iterable[tuple[str, str]] = (), at_heads: Container[str] = ()) -> None:
        self._there = set(there)
        self._nodes = Counter(block for block, _ in self._there)
        self._at_heads = at_heads
        self._changed: dict[tuple[str, str], bool] = {}
        self._missing: set[tuple[str, str]] | None = None

    def expect_all(self) -> None:
        """The interchange is another one: all that were there must find it."""
        self._missing = set(self._there)

    def joined(self, event: ManagerUp) -> bool:
        """A manager has joined, or joined again; whether a worker of the workflow has come with it.

        That is a process which starts jobs: none is a node that follows a head, and the nodes of a block are one
        where its manager starts steps on all of them.
        """
        place = (event.block, event.node)
        if self._missing is not None:
            self._missing.discard(place)
        is_new = place not in self._there
        is_first = event.executor not in self._at_heads or not self._nodes[event.block]
        if is_new:
            self._there.add(place)
            self._nodes[event.block] += 1
        self._changed[place] = True
        return is_new and is_first and not event.capacity.follows

    def left(self, event: ManagerDown) -> bool:
        """A manager has left; whether a worker has gone with it, see `joined`."""
        self._leave((event.block, event.node))
        is_last = event.executor not in self._at_heads or not self._nodes[event.block]
        return is_last and not event.follows

    def blocks_are(self, labels: Iterable[str], names: Container[str]) -> None:
        """Of these executors there are these blocks: managers of others do not come back. Runners by hand may."""
        kept = re.compile(f"({'|'.join(map(re.escape, labels))})-\\d+")
        for place in list(self._there):
            if kept.fullmatch(place[0]) and place[0] not in names:
                self._leave(place)

    def dismiss(self) -> None:
        """All leave: the run has ended."""
        for place in list(self._there):
            self._leave(place)

    def _leave(self, place: tuple[str, str]) -> None:
        if place in self._there:
            self._there.remove(place)
            self._nodes[place[0]] -= 1
        self._changed[place] = False
        if self._missing is not None:
            self._missing.discard(place)

    def take_changes(self) -> dict[tuple[str, str], bool]:
        """Of managers that have come or gone since this was last asked, by block and node, whether they are there."""
        changed, self._changed = self._changed, {}
        return changed

    def is_reunited(self) -> bool:
        """Whether all that were missing are back; true once."""
        if self._missing is None or self._missing:
            return False
        self._missing = None
        return True
