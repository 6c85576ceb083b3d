"""Functions, in a module, for tests of cache keys."""

from __future__ import annotations

LIMIT = 10
UNKEYABLE = object()


def helper(x: int) -> int:
    return x + LIMIT


class Scale:
    def apply(self, x: int) -> int:
        return x * 2


def uses_helper(x: int) -> int:
    return helper(x)


def uses_class(x: int) -> int:
    return Scale().apply(x)


def uses_object(x: int) -> tuple[int, object]:
    return x, UNKEYABLE


def calls_itself(x: int) -> int:
    return x if x <= 0 else calls_itself(x - 1)
