"""Functions as the text of keys: their code, what they close over, and what they use of their own package.

Comments, names of files and line numbers do not count, nor does the docstring. Another version of
Python compiles to other code, so the keys of its functions differ.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from pilotflow.caching.text import KeyWriter
from pilotflow.errors import CacheKeyError

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), tuple, list, dict, set, frozenset})
"""Kinds of global values that are part of the key of a function that uses them."""


def put_function(writer: KeyWriter, function: FunctionType) -> None:
    """Write a function with all that belongs to it.

    Raises:
        CacheKeyError: a default or a value that it closes over cannot be keyed.
    """
    if _is_known(writer, function):
        writer.named("again", FunctionType, (function.__module__, function.__qualname__))
        return
    put_own(writer, function)
    for name, value in used(function):
        put_used(writer, name, value)


def put_own(writer: KeyWriter, function: FunctionType) -> None:
    """Write a function's own code, its defaults, and the values that it closes over.

    Raises:
        CacheKeyError: one of these values cannot be keyed.
    """
    writer.functions.append(function)
    writer.named("function", FunctionType, (_plain(function.__code__, function.__doc__),))
    for what, name, value in _held(function):
        try:
            writer.put(value)
        except CacheKeyError as error:
            raise CacheKeyError(f"{what} '{name}' of function '{function.__name__}': {error}") from None


def put_used(writer: KeyWriter, name: str, value: Any) -> None:
    """Write something that a function uses; a value that cannot be keyed does not count."""
    writer.put(name)
    if isinstance(value, type):
        _put_class(writer, value)
    elif isinstance(value, FunctionType):
        put_function(writer, value)
    else:
        writer.can_put(value)


def used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals that are part of a function's key: (name, value), sorted by name.

    They are plain values, and functions and classes of its own package. What others have written
    changes with their version, not while you work.
    """
    for name in sorted(_names(function.__code__)):
        value = function.__globals__.get(name, _names)
        value = getattr(value, "__pilotflow_function__", value)
        if isinstance(value, (FunctionType, type)):
            if _package(value) == _package(function):
                yield name, value
        elif type(value) in _PLAIN:
            yield name, value


def _put_class(writer: KeyWriter, cls: type) -> None:
    """Write what instances of a class do."""
    writer.named("class", cls, ())
    for name, value in sorted(vars(cls).items(), key=lambda item: item[0]):
        method = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if isinstance(method, FunctionType) and not _is_known(writer, method):
            writer.functions.append(method)
            writer.named("method", FunctionType, (name, _plain(method.__code__, method.__doc__)))


def _is_known(writer: KeyWriter, function: FunctionType) -> bool:
    return any(function is known for known in writer.functions)


def _package(value: Any) -> str:
    return (getattr(value, "__module__", None) or "").partition(".")[0]


def _names(code: CodeType) -> set[str]:
    """Every name that a function's code, or a function within it, looks up."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _plain(code: CodeType, doc: str | None = None) -> tuple[Any, ...]:
    """What code does, as plain values."""
    constants = [
        _plain(constant) if isinstance(constant, CodeType) else None if constant is doc else constant
        for constant in code.co_consts
    ]
    return (
        f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}",
        code.co_code,
        getattr(code, "co_exceptiontable", b""),
        constants,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
    )


def _held(function: FunctionType) -> Iterator[tuple[str, str, Any]]:
    """Values that a function carries: (what it is, name, value)."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    for name, value in zip(code.co_varnames[code.co_argcount - len(defaults) :], defaults, strict=False):
        yield "the default of parameter", name, value
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        yield "the default of parameter", name, value
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield "the enclosing variable", name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
