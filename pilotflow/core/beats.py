"""When processes that have nothing to say tell each other that they are alive."""

from __future__ import annotations

from typing import Final

BEATS: Final = 3
"""Signs of life within the time after which a silent process is given up."""
SHORTEST_S: Final = 0.05
REST: Final = 10
"""A process with nothing at stake asks its interchange, if that is on its host, once in so many times the limit."""


def beat_s(limit_s: float) -> float:
    """Seconds between two signs of life of a process that is given up when it is silent for `limit_s`."""
    return max(SHORTEST_S, limit_s / BEATS)


def next_beat(now: float, period_s: float) -> float:
    """When the next sign of life is due.

    The processes of a host, which have one monotonic clock, send theirs at the same moment, so that whoever hears
    them wakes once for all. Those of different hosts do not, as their clocks have begun at different times.
    """
    due = (now // period_s + 1) * period_s
    return due if due > now else due + period_s  # it was that moment, which is not quite a multiple


class InterchangeWatch:
    """When a process asks whether its interchange is there, and whether it has waited for an answer for too long.

    The death of an interchange on its host is seen at once. If it froze, only what is at stake would wait in vain: tasks
    that are pending in a program, or held by a manager. A process with nothing at stake asks seldom, and wakes as seldom.

    Args:
        limit_s: an interchange that does not answer for so long is given up.
        due_at: when the first question is due.

    Attributes:
        due_at: when `ask` is to be called, by the monotonic clock.
    """

    def __init__(self, limit_s: float, due_at: float = 0.0) -> None:
        self.due_at = due_at
        self._limit_s = limit_s
        self._period_s = beat_s(limit_s)
        self._asked_at = 0.0  # first, since something was heard

    def hurry(self, now: float) -> None:
        """Something is at stake, perhaps since just now: the next question is not one at rest, and due at once.

        So whoever was stopped meanwhile, and may be waited for, is heard of as soon as it goes on.
        """
        if self.due_at - now > self._period_s:
            self.due_at = now

    def is_late(self, now: float) -> bool:
        """Whether a question should have been asked long before: this process was stopped, and hears late."""
        return now - self.due_at > self._period_s

    def ask(self, now: float, heard_at: float, *, at_stake: bool) -> float:
        """A question is due, and sent. Returns for how many seconds there was no answer, if those are too many, else 0.

        Counted from a question, not from when something was last heard (`heard_at`), which at rest is long ago.
        """
        late = self.is_late(now)  # hear first, then judge
        self.due_at = next_beat(now, self._period_s if at_stake else REST * self._limit_s)
        if heard_at >= self._asked_at:
            self._asked_at = now
        elif not late and now - self._asked_at > self._limit_s - self._period_s / 2:
            return now - self._asked_at
        return 0.0
