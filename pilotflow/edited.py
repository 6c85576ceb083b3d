"""Modules that are edited while a run is open: its workers go on with what they have imported, which is said."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, Final

from pilotflow.names import names_used

_INSTALLED: Final = (os.path.dirname(os.__file__), sys.prefix, sys.base_prefix)
"""Nobody edits what is in these directories while a program runs."""


class EditedModules:
    """Warns when the file of a module has changed since a run's functions first used it. One for each run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, int]] = {}  # by file: its date and size

    def look(self, function: Callable[..., Any]) -> None:
        """Warn if a module that a function uses was edited. Called when the function is sent to workers, not for each call."""
        for module in used_modules(function):
            file = getattr(module, "__file__", None)
            if not file or file.startswith(_INSTALLED):
                continue
            try:
                status = os.stat(file)
            except OSError:  # in an archive, or gone
                continue
            stamp = (status.st_mtime_ns, status.st_size)
            with self._lock:
                before = self._seen.get(file, stamp)
                self._seen[file] = stamp
            if before != stamp:
                _warn(module.__name__, file, status.st_mtime)


def _warn(module: str, file: str, edited: float) -> None:
    at = time.strftime("%H:%M:%S", time.localtime(edited))
    warnings.warn(
        f"module '{module}' ({file}) was edited at {at}, after tasks of this run began to use it: workers that have "
        "imported it go on with what they imported, also if this program reloads it. Close the run and load it again.",
        RuntimeWarning,
        stacklevel=3,
    )


def used_modules(function: Callable[..., Any]) -> set[ModuleType]:
    """The module of a function, and those that its code names, or of which it names functions and classes.

    The functions of its own module that it names are looked at likewise.
    """
    while isinstance(function, functools.partial):
        function = function.func
    pending = [getattr(function, "__func__", function)]
    names: set[Any] = {getattr(pending[0], "__module__", None)}
    for used in pending:
        if not isinstance(used, FunctionType):
            continue
        for value in _values(used):
            name = (
                value if isinstance(value, str) else value.__name__ if isinstance(value, ModuleType) else _home(value)
            )
            names.add(name)
            if name == used.__module__ and not any(value is one for one in pending):
                pending.append(value)
    found = (sys.modules.get(name) for name in names - {None, "__main__"})
    return {module for module in found if isinstance(module, ModuleType)}


def _values(function: FunctionType) -> Iterator[Any]:
    """What its code names: of globals and enclosing variables their values, of all else, such as what it imports, the name."""
    for name in names_used(function.__code__):
        yield function.__globals__.get(name, name)
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not assigned yet
            yield cell.cell_contents


def _home(value: Any) -> str:
    """The module of a function or class, or that of an object's class."""
    return value.__module__ if isinstance(value, (FunctionType, type)) else type(value).__module__
