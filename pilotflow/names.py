"""What a worker can import: functions and classes by module and qualified name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


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
