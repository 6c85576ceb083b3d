"""How far the tasks of a run are, how fast they go, and one line that says it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from pilotflow.units import format_duration

WINDOW_S: Final = 10.0
_LEAST_TASKS: Final = 20
_LEAST_S: Final = 0.5
"""A rate over less time says nothing."""
_LONGEST_S: Final = 99 * 86400.0
_BAR: Final = 20
_BAR_FROM: Final = 60
"""Terminals narrower than this get no bar."""


@dataclass(frozen=True)
class Counts:
    """How many tasks there are of each kind; together they are all tasks so far.

    Attributes:
        done: ended well.
        failed: ended with an error, those that needed a failed one too.
        cancelled: ended by `cancel`.
        running: handed to workers.
        waiting: for others, or for a place.
    """

    done: int = 0
    failed: int = 0
    cancelled: int = 0
    running: int = 0
    waiting: int = 0

    @property
    def ended(self) -> int:
        """Tasks that have ended, one way or another."""
        return self.done + self.failed + self.cancelled

    @property
    def pending(self) -> int:
        """Tasks that have not ended."""
        return self.running + self.waiting

    @property
    def total(self) -> int:
        """All tasks so far."""
        return self.ended + self.pending

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.done + other.done,
            self.failed + other.failed,
            self.cancelled + other.cancelled,
            self.running + other.running,
            self.waiting + other.waiting,
        )


class Pace:
    """Tasks that end in a second, from looks at how many have ended.

    It is that of the last 10 seconds, or of the last 20 tasks if they took longer.
    """

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()  # when each number of ended tasks was first seen
        self._now = 0.0

    def look(self, now: float, counts: Counts) -> None:
        """Take note of how many have ended at this time (seconds)."""
        looks, self._now = self._looks, now
        if not looks or counts.ended != looks[-1][1]:
            looks.append((now, counts.ended))
        elif not counts.pending:  # a pause is not slowness
            looks.clear()
            looks.append((now, counts.ended))
        while len(looks) > 2 and looks[1][0] <= now - WINDOW_S and counts.ended - looks[1][1] >= _LEAST_TASKS:
            looks.popleft()

    @property
    def rate(self) -> float:
        """Tasks a second; 0 if that is not known yet."""
        if not self._looks:
            return 0.0
        (first, before), (_, ended) = self._looks[0], self._looks[-1]
        return (ended - before) / (self._now - first) if self._now - first >= _LEAST_S else 0.0


def time_left_s(counts: Counts, rate: float) -> float | None:
    """Seconds until all tasks so far have ended at this rate; None if that cannot be said."""
    if not counts.pending or rate <= 0:
        return None
    left = counts.pending / rate
    return left if left < _LONGEST_S else None


def parts_of(counts: Counts, rate: float, note: str = "") -> list[str]:
    """What is worth saying, most important first: `["12 done", "2 running", ...]`.

    Args:
        counts: how many tasks there are.
        rate: tasks a second, 0 if not known.
        note: something else that is worth saying, such as what is waited for.
    """
    parts = [f"{counts.done:,} done"]
    if counts.failed:
        parts.append(f"{counts.failed:,} failed")
    if counts.cancelled:
        parts.append(f"{counts.cancelled:,} cancelled")
    if counts.running:
        parts.append(f"{counts.running:,} running")
    if counts.waiting:
        parts.append(f"{counts.waiting:,} waiting")
    if note:
        parts.append(note)
    if rate > 0 and counts.pending:
        parts.append(_rate(rate))
        left = time_left_s(counts, rate)
        if left is not None:
            parts.append(f"ETA {clock(left)}")
    return parts


def line(title: str, counts: Counts, rate: float, note: str, width: int, *, unicode: bool) -> str:
    """One line of at most `width` columns: title, bar and `parts_of`, as far as there is room.

    Args:
        title: what it is about.
        counts, rate, note: see `parts_of`.
        width: columns.
        unicode: whether the terminal shows more than ASCII.
    """
    text = title
    if width >= _BAR_FROM:
        text += f" {bar(counts, unicode=unicode)}"
    separator = " · " if unicode else " | "
    for number, part in enumerate(parts_of(counts, rate, note)):
        longer = text + (separator if number else " ") + part
        if len(longer) > width:
            break
        text = longer
    return text[:width]


def bar(counts: Counts, *, unicode: bool) -> str:
    """How much of all tasks so far has ended, as a bar of 20 columns."""
    full = _BAR * counts.ended // counts.total if counts.total else 0
    return "━" * full + "─" * (_BAR - full) if unicode else "#" * full + "-" * (_BAR - full)


def summary(counts: Counts, seconds: float) -> str:
    """What became of all tasks, such as `12 done, 1 failed in 3.2s (4.1/s)`.

    Args:
        counts: all of them.
        seconds: how long it took.
    """
    text = ", ".join(parts_of(counts, 0.0))
    rate = f" ({_rate(counts.ended / seconds)})" if counts.ended and seconds > 0 else ""
    return f"{text} in {format_duration(round(seconds, 1))}{rate}"


def clock(seconds: float) -> str:
    """A duration in few characters that has the same width for a while: `8s`, `2:05`, `1:02:05`."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h:02}:{m:02}"
    return f"{h}:{m:02}:{s:02}" if h else f"{m}:{s:02}"


def _rate(rate: float) -> str:
    if rate < 0.1:
        return f"{rate * 60:.2g}/min"
    return f"{rate:,.0f}/s" if rate >= 9.95 else f"{rate:.1f}/s"
