"""Objects that pickle would write as a name of the script, or not at all, and that a worker can make anew.

`functools` and `typing` make them of a function or a type: caches, cached properties, functions that dispatch by type,
new types. In a module that workers import, their names suffice.
"""

from __future__ import annotations

import functools
import typing
import weakref
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pilotflow.names import found


def reduce_anew(value: Any) -> Any:
    """How a pickler should write it, if its kind is in `ANEW`; NotImplemented if as it would itself."""
    return ANEW[type(value)](value)


def _cache(value: Any) -> Any:
    parameters = value.cache_parameters()
    return _unless_importable(value, _new_cache, (value.__wrapped__, parameters["maxsize"], parameters["typed"]))


def _new_cache(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _property(value: functools.cached_property[Any]) -> Any:
    return _new_property, (value.func, value.attrname)


def _new_property(function: Callable[..., Any], name: str | None) -> functools.cached_property[Any]:
    made = functools.cached_property(function)
    made.attrname = name
    return made


def _new_type(value: Any) -> Any:
    return _unless_importable(value, typing.NewType, (value.__name__, value.__supertype__))


def _parameters(value: Any) -> Any:
    return _unless_importable(value, type(value), (value.__name__,))


def _alias(value: Any) -> Any:
    return _unless_importable(value, type(value), (value.__name__, value.__value__))


def _weak_dict(value: weakref.WeakKeyDictionary[Any, Any]) -> Any:
    """What `functools.singledispatch` has found so far; of other ones nothing would be left there."""
    if all(isinstance(key, type) for key in value):
        return weakref.WeakKeyDictionary, ()
    return NotImplemented


def _proxy(value: MappingProxyType[Any, Any]) -> Any:
    return MappingProxyType, (dict(value),)


def _unless_importable(value: Any, make: Callable[..., Any], parts: tuple[Any, ...]) -> Any:
    module, name = value.__module__, getattr(value, "__qualname__", None) or value.__name__
    return NotImplemented if module != "__main__" and found(module, name) is value else (make, parts)


CACHE: Final = type(functools.lru_cache(lambda: None))
"""The kind of what `functools.cache` and `lru_cache` make."""
_LATER: Final = {"TypeVarTuple": _parameters, "TypeAliasType": _alias}
"""Kinds that Python 3.10 does not have yet."""

ANEW: Final[Mapping[type, Callable[[Any], Any]]] = MappingProxyType(
    {
        CACHE: _cache,
        functools.cached_property: _property,
        typing.NewType: _new_type,
        typing.ParamSpec: _parameters,
        weakref.WeakKeyDictionary: _weak_dict,
        MappingProxyType: _proxy,
        **{vars(typing)[name]: reduce for name, reduce in _LATER.items() if name in vars(typing)},
    }
)
"""Their kinds."""
