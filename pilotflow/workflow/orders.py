"""What other terminals tell the program that has a run to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.control import instruct

TIMEOUT_S: Final = 60.0


def order_cancel(directory: Path, numbers: Sequence[int] | None) -> int:
    """Have jobs cancelled, all if None; returns how many were, with those that depended on them.

    Raises:
        RunClosed, InfrastructureError: the program cannot be reached.
    """
    if numbers is not None and not numbers:
        return 0
    words = [] if numbers is None else [f"{low}-{high}" for low, high in ranges(numbers)]
    return int(instruct(read_connection(directory / "connection.json"), "cancel", words, TIMEOUT_S))


def numbers_in(words: Sequence[str]) -> list[int]:
    """The numbers of ranges such as `3-7`.

    Raises:
        ValueError: one is none.
    """
    found: list[int] = []
    for word in words:
        low, _, high = word.partition("-")
        found += range(int(low), int(high) + 1)
    return found


def ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The same numbers, which ascend, as ranges."""
    start = last = -2
    for number in numbers:
        if number != last + 1:
            if start >= 0:
                yield start, last
            start = number
        last = number
    if start >= 0:
        yield start, last
