"""How long tasks of each function are expected to take, from those that have ended."""

from __future__ import annotations

WEIGHT = 0.1
"""How much the newest attempt counts in the mean."""


class Durations:
    """Exponentially weighted means, by function."""

    def __init__(self) -> None:
        self._mean_us: dict[int, float] = {}

    def learn(self, fn: int, duration_us: int) -> None:
        """An attempt at a task of that function took so long."""
        if duration_us < 0:  # a clock that was set back, or a peer that lies
            duration_us = 0
        mean = self._mean_us.get(fn)
        self._mean_us[fn] = duration_us if mean is None else mean + WEIGHT * (duration_us - mean)

    def forget(self, fn: int) -> None:
        """There will be no task of that function any more."""
        self._mean_us.pop(fn, None)

    def expected_s(self, fn: int) -> float | None:
        """How long a task of the function is expected to take, in seconds; None if that is not known."""
        mean = self._mean_us.get(fn)
        return None if mean is None else mean / 1e6

    def fit(self, fn: int, horizon_us: float, most: int) -> int:
        """How many tasks of the function fit into a time, `most` at the most; 0 if that is not known."""
        mean = self._mean_us.get(fn)
        return 0 if mean is None else min(most, int(horizon_us / (mean + 1.0)))

    def longer_than(self, fn: int, limit_us: float) -> bool:
        """Whether tasks of the function last longer than that, or it is not known."""
        mean = self._mean_us.get(fn)
        return mean is None or mean > limit_us
