"""Futures in containers: where they are, and the same containers with results in their places.

Looked into are lists, tuples (named ones too), sets, dictionaries (their keys as well) and dataclasses,
however deep, with their subclasses. Nothing is copied that holds no future.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Final

_ATOMS: Final = frozenset({int, float, bool, str, bytes, type(None), complex})


def futures_in(value: Any) -> list[Future[Any]]:
    """The futures in a value, each once, in the order in which they are found."""
    return list(dict.fromkeys(_found(value)))


def _found(value: Any) -> Iterator[Future[Any]]:
    if type(value) in _ATOMS:
        return
    if isinstance(value, Future):
        yield value
    else:
        for part in _parts(value):
            yield from _found(part)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield item
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield getattr(value, field.name, None)


def filled(value: Any, result_of: Callable[[Future[Any]], Any]) -> Any:
    """The value with the result of each future in its place; the value itself if it holds none."""
    if type(value) in _ATOMS:
        return value
    if isinstance(value, Future):
        return result_of(value)
    if next(_found(value), None) is None:
        return value
    if isinstance(value, dict):
        return _like(value, {filled(key, result_of): filled(item, result_of) for key, item in value.items()})
    if isinstance(value, tuple) and type(value) is not tuple:
        parts = [filled(part, result_of) for part in value]
        return type(value)._make(parts) if hasattr(value, "_make") else type(value)(parts)
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return type(value)(filled(part, result_of) for part in value)
    same = copy.copy(value)
    for field in dataclasses.fields(value):
        object.__setattr__(same, field.name, filled(getattr(value, field.name, None), result_of))
    return same


def _like(original: dict[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    """A dictionary of the same class, such as a `defaultdict` with its factory."""
    if type(original) is dict:
        return items
    same = copy.copy(original)
    same.clear()
    same.update(items)
    return same
