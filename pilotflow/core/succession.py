"""Which program a run works for that outlives its programs, and how long it waits for the next one."""

from __future__ import annotations

from math import inf


class Succession:
    """The programs of one run, one after the other.

    That a program's process has ended is heard apart from the end of its connection, of which there may be more to
    read: until that has closed it still has the ended program's number.

    Args:
        program: process id of the first one; 0 if there is none to watch.
        keep_s: how long another one is waited for while nothing runs.

    Attributes:
        program: process id of the one that the run works for; 0 while there is none.
    """

    def __init__(self, program: int, keep_s: float) -> None:
        self.program = program
        self._keep_s = keep_s
        self._ended = 0
        self._since = inf

    def end(self, now: float) -> None:
        """The program's process has ended."""
        self._ended, self.program, self._since = self.program, 0, now

    @property
    def waits(self) -> bool:
        """Whether another program is waited for."""
        return self._since < inf

    def follow(self, connected: int) -> bool:
        """Whether another program has come.

        Args:
            connected: process id of the one that has said hello; 0 once its connection has closed.
        """
        if not connected:
            self._ended = 0  # whoever comes now is another one, of whatever number
        if self.program or connected in (0, self._ended):
            return False
        self.program, self._since = connected, inf
        return True

    def due(self, now: float, *, runs_something: bool) -> float:
        """When the wait for another program is over; call it now and then while something runs."""
        if runs_something and self.waits:
            self._since = now
        return self._since + self._keep_s
