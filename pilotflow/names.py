"""What a worker can import: functions and classes by module and qualified name; and which names code looks up."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import msgspec

_LIBRARY = os.path.dirname(os.__file__)
"""Where Python's own modules are. Names that come before it on the path hide them and all that is installed."""


class ImportPath(msgspec.Struct, frozen=True):
    """A program's `sys.path`, for processes that are to import what it imports.

    Attributes:
        first: entries before Python's own library, such as the directory of the script; not those of PYTHONPATH, which
            the `worker_init` of a block may replace.
        rest: the others.
    """

    first: tuple[str, ...] = ()
    rest: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> ImportPath:
        """That of this process, as it is now."""
        entries = tuple(entry or os.getcwd() for entry in sys.path)
        elsewhere = {*entries[_before_library(entries) :], *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
        return cls(
            tuple(entry for entry in entries if entry not in elsewhere),
            tuple(entry for entry in entries if entry in elsewhere),
        )

    def after(self, own: Sequence[str]) -> list[str]:
        """A process's own path, and then what it lacks: our own processes import nothing from a user's directories."""
        return [*own, *(entry for entry in (*self.first, *self.rest) if entry not in own)]

    def around(self, own: Sequence[str]) -> list[str]:
        """A worker's path: what hides installed modules in the program hides them there."""
        before = own[: _before_library(own)]
        first = [entry for entry in self.first if entry not in before]
        return self.after([*first, *(entry for entry in own if entry not in first)])


def _before_library(entries: Sequence[str]) -> int:
    """How many entries come before Python's own library and the archive that may hold it."""
    archive = f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    for at, entry in enumerate(entries):
        if entry == _LIBRARY or os.path.basename(entry) == archive:
            return at
    return 0


def found(module: str, qualname: str) -> Any:
    """What this process has under that name, or None; nothing in modules that were made by hand."""
    value: Any = sys.modules.get(module)
    if getattr(value, "__spec__", None) is None:
        return None
    for name in qualname.split("."):
        value = getattr(value, name, None)
    return value


def importable_class(cls: type) -> bool:
    """Whether a worker can import this class."""
    return cls.__module__ != "__main__" and found(cls.__module__, cls.__qualname__) is cls


def importable_function(function: Any) -> tuple[str, str] | None:
    """Module and qualified name under which a worker finds a function, bare or as an app; or None.

    A function whose code did not come from a file (a notebook cell, `exec`) is not what the
    worker would find.
    """
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not qualname or module == "__main__":
        return None
    value = found(module, qualname)
    if value is not function and getattr(value, "__pilotflow_function__", None) is not function:
        return None
    code = getattr(function, "__code__", None)
    if code is not None and code.co_filename.startswith("<") and not code.co_filename.startswith("<frozen"):
        return None
    return module, qualname


def resolve(module: str, qualname: str) -> Callable[..., Any]:
    """Import a function; of an app, the function that it decorates.

    Raises:
        ImportError, AttributeError: it is not there.
    """
    value: Any = importlib.import_module(module)
    for name in qualname.split("."):
        value = getattr(value, name)
    function: Callable[..., Any] = getattr(value, "__pilotflow_function__", value)
    return function


def names_used(code: CodeType) -> set[str]:
    """Every name that a function's code, or a function within it, looks up or imports."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= names_used(constant)
    return names
