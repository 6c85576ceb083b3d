"""Functions as the text of keys: their code, what they close over, and what they use of their own package.

Comments, names of files and line numbers do not count, nor does the docstring. Another version of
Python compiles to other code, so the keys of its functions differ.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

from pilotflow.caching.text import KeyWriter
from pilotflow.errors import CacheKeyError
from pilotflow.made_anew import CACHE
from pilotflow.names import names_used

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None), tuple, list, dict, set, frozenset})
"""Kinds of global values that are part of the key of a function that uses them."""
_HELD_AS = ("__func__", "fget", "func", "__wrapped__")
"""Where class methods, properties, cached properties and caches have their functions."""
_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Directories of what somebody else has written."""
_LIBRARY = os.path.join(os.path.dirname(os.__file__), "")
_NOTHING: Final = object()
"""The value of a name that is neither a global's nor a module's, such as a builtin's: it does not count."""


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
    """What a function uses that is part of its key: (name, value), sorted by name.

    They are plain values, and functions and classes of its own package and of modules beside that, or beside the
    script; also those that it takes from such a module (`helpers.mean`). What others have written changes with their
    version, not while you work.
    """
    names = names_used(function.__code__)
    for name in sorted(names):
        value = function.__globals__.get(name, sys.modules.get(name, _NOTHING))
        if isinstance(value, ModuleType):
            if _is_own(value.__name__, function):
                inside = vars(value)
                for inner in sorted(names & inside.keys()):
                    yield from _counting(f"{name}.{inner}", inside[inner], function)
        else:
            yield from _counting(name, value, function)


def _counting(name: str, value: Any, function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What is used, bare, if it counts."""
    value = value.__wrapped__ if type(value) is CACHE else getattr(value, "__pilotflow_function__", value)
    if isinstance(value, (FunctionType, type)):
        if _is_own(value.__module__, function):
            yield name, value
    elif type(value) in _PLAIN:
        yield name, value


def _is_own(module: str | None, function: FunctionType) -> bool:
    """Whether the user who writes a function writes that module too: it is in the same package, or lies beside it."""
    package, own = _top(module), _top(function.__module__)
    if package == own:
        return True
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None or package == "pilotflow" or not _INSTALLED.isdisjoint(file.split(os.sep)):
        return False
    return os.path.abspath(file).startswith(_directory(own)) and not file.startswith(_LIBRARY)


def _directory(package: str) -> str:
    """Where a top-level module lies, or a package, or the script; in a notebook the working directory."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        return os.path.join(os.getcwd(), "")
    directory, base = os.path.split(os.path.abspath(file))
    return os.path.join(os.path.dirname(directory) if base == "__init__.py" else directory, "")


def _put_class(writer: KeyWriter, cls: type) -> None:
    """Write what instances of a class do, and its bases of the same package, and its plain values."""
    for base in cls.__mro__:
        if _top(base.__module__) == _top(cls.__module__):
            writer.named("class", base, ())
            for name, value in sorted(vars(base).items(), key=lambda item: item[0]):
                _put_member(writer, name, value)


def _put_member(writer: KeyWriter, name: str, value: Any) -> None:
    method = next((found for way in _HELD_AS if (found := getattr(value, way, None)) is not None), value)
    if isinstance(method, FunctionType):
        if not _is_known(writer, method):
            writer.functions.append(method)
            writer.named("method", FunctionType, (name, _plain(method.__code__, method.__doc__)))
            for what, used_there in used(method):
                put_used(writer, what, used_there)
    elif type(value) in _PLAIN and not name.startswith("__"):
        writer.put(name)
        writer.can_put(value)


def _is_known(writer: KeyWriter, function: FunctionType) -> bool:
    return any(function is known for known in writer.functions)


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]


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
