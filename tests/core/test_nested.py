"""Futures in containers are found and filled in, and everything else is left as it is."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilotflow.nested import filled, futures_in


def made(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def fill(value: Any) -> Any:
    return filled(value, lambda future: future.result(0))


@dataclass(frozen=True, slots=True)
class Pair:
    left: Any
    right: Any = field(default=None)


class Named(NamedTuple):
    a: Any
    b: Any


class Own(list[Any]):
    pass


ONE, TWO = made(1), made("two")

VALUES = [
    (ONE, 1, 1),
    ([ONE, (TWO, [ONE])], [1, ("two", [1])], 2),
    ({ONE: {TWO}, "k": frozenset([ONE])}, {1: {"two"}, "k": frozenset([1])}, 2),
    (Pair(ONE, [Pair(TWO)]), Pair(1, [Pair("two")]), 2),
    (Named(ONE, 2), Named(1, 2), 1),
    (Own([ONE]), Own([1]), 1),
    (deque([ONE, 2]), deque([1, 2]), 1),
    (OrderedDict(b=ONE, a=TWO), OrderedDict(b=1, a="two"), 2),
]


def test_futures_are_replaced_at_any_depth_in_the_same_kind_of_container() -> None:
    for value, whole, count in VALUES:
        assert len(futures_in(value)) == count
        result = fill(value)
        assert result == whole
        assert type(result) is type(whole)
        assert futures_in(result) == []


def test_a_default_dictionary_keeps_its_factory() -> None:
    result = fill(defaultdict(list, {"a": ONE}))
    assert result["new"] == []


def test_what_holds_no_future_is_not_copied() -> None:
    inner = [1, {"a": (2, Pair(3))}]
    outer = [inner, ONE, object]
    result = fill(outer)
    assert result[0] is inner
    assert result[2] is object
    assert fill(inner) is inner
    assert futures_in([Pair, "text", b"x", None, 1.5, object()]) == []
