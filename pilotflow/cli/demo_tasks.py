"""What the tasks of `pilotflow demo` do. Workers import this, so it imports next to nothing."""

from __future__ import annotations

from functools import cache
from math import isqrt
from pathlib import Path


@cache  # a worker keeps what it has imported, so each finds these once
def primes_below(limit: int) -> list[int]:
    """All primes below a number."""
    sieve = bytearray([0, 0]) + bytearray([1]) * max(0, limit - 2)
    for n in range(2, isqrt(max(0, limit - 1)) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return [n for n in range(limit) if sieve[n]]


def count_primes(start: int, stop: int) -> int:
    """How many primes there are from `start` to `stop - 1`, by a sieve over just these numbers."""
    sieve = bytearray([1]) * (stop - start)
    for n in range(start, min(2, stop)):
        sieve[n - start] = 0
    for prime in primes_below(1 << isqrt(stop).bit_length()):
        if prime * prime >= stop:
            break
        first = max(prime * prime, (start + prime - 1) // prime * prime) - start
        if first < len(sieve):
            sieve[first::prime] = bytes(len(range(first, len(sieve), prime)))
    return sieve.count(1)


def factor_command(start: int, stop: int) -> str:
    """A shell command that counts the same primes in another way, and prints their number."""
    return f"seq {start} {stop - 1} | factor | awk 'NF == 2' | wc -l"


def add(counts: list[int]) -> int:
    """The sum of what other tasks have counted."""
    return sum(counts)


def same(counted: int, file: str, exit_code: int) -> bool:
    """Whether a command with this exit code printed the number into a file that was counted here."""
    return exit_code == 0 and int(Path(file).read_text(encoding="ascii")) == counted


def nothing() -> None:
    """No work at all, to see what a task costs by itself."""
