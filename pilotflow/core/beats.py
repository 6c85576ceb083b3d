"""When processes that have nothing to say tell each other that they are alive."""

from __future__ import annotations

from typing import Final

BEATS: Final = 3
"""Signs of life within the time after which a silent process is given up."""
SHORTEST_S: Final = 0.05
REST: Final = 10
"""A program with nothing pending, which could wait in vain, lets so many of those times pass between two questions."""


def beat_s(limit_s: float) -> float:
    """Seconds between two signs of life of a process that is given up when it is silent for `limit_s`."""
    return max(SHORTEST_S, limit_s / BEATS)


def rest_s(limit_s: float) -> float:
    """Seconds between two questions of a program with nothing pending whether its interchange is there.

    That one is on its host, and its death is seen at once; if it froze, only what is pending would wait in vain.
    """
    return REST * limit_s


def next_beat(now: float, period_s: float) -> float:
    """When the next sign of life is due.

    The processes of a host, which have one monotonic clock, send theirs at the same moment, so that whoever hears
    them wakes once for all. Those of different hosts do not, as their clocks have begun at different times.
    """
    due = (now // period_s + 1) * period_s
    return due if due > now else due + period_s  # it was that moment, which is not quite a multiple
