"""Many numbers as few ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


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
