"""Nodes that lose their managers again and again, which new blocks should be kept away from."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

LOSSES: Final = 2
"""A node that has lost its manager so often is excluded..."""
EXCLUDED_S: Final = 3600.0
"""...for so long: by then it may have been mended, and a long run must not use up its cluster."""
EXCLUDED_MAX: Final = 16
"""So many nodes at once: where more are lost, it is not the nodes."""


class NodeLosses:
    """The losses of one executor's nodes, by name."""

    def __init__(self) -> None:
        self._lost_at: dict[str, list[float]] = {}

    def on_lost(self, nodes: Iterable[str], now: float) -> None:
        """The managers of these nodes were lost, and nobody had asked for that."""
        for node in nodes:
            times = self._lost_at.pop(node, [])
            self._lost_at[node] = [*times[1 - LOSSES :], now]  # last in the table, as the latest

    def excluded(self, now: float, suspects: Collection[str] = ()) -> tuple[str, ...]:
        """Nodes that the next block should not have, in alphabetical order.

        Args:
            now: the time.
            suspects: nodes whose managers are gone at the moment, which may be a loss.
        """
        late = [
            node
            for node, times in self._lost_at.items()
            if len(times) + (node in suspects) >= LOSSES and now - times[0] < EXCLUDED_S
        ]
        return tuple(sorted(late[-EXCLUDED_MAX:]))

    def forgive(self) -> None:
        """Begin anew: without the excluded nodes there is no block to be had."""
        self._lost_at.clear()
