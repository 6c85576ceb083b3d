"""Which managers a run has, and whether those that it had are back after a restart of the interchange."""

from __future__ import annotations

from pilotflow.messages import ManagerDown, ManagerUp


class Roster:
    """The managers of one run, by block and node."""

    def __init__(self) -> None:
        self._there: set[tuple[str, str]] = set()
        self._missing: set[tuple[str, str]] | None = None

    def expect_all(self) -> None:
        """The interchange is another one: all that were there must find it."""
        self._missing = set(self._there)

    def joined(self, event: ManagerUp) -> bool:
        """A manager has joined, or joined again; whether it is new."""
        place = (event.block, event.node)
        if self._missing is not None:
            self._missing.discard(place)
        is_new = place not in self._there
        self._there.add(place)
        return is_new

    def left(self, event: ManagerDown) -> None:
        """A manager has left."""
        self._there.discard((event.block, event.node))

    def is_reunited(self) -> bool:
        """Whether all that were missing are back; true once."""
        if self._missing is None or self._missing:
            return False
        self._missing = None
        return True
