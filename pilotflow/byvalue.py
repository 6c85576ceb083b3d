"""Functions and classes that a worker cannot import, as bytes: scripts, lambdas, notebook cells.

cloudpickle does the work, because dill fails or loses identity with what scripts are made of:
enums, mutually recursive functions, `isinstance` on the script's own dataclasses. dill remains for
functions that hold on to something cloudpickle refuses.

A class has a key, the same in every process that has met it. So a worker has one class object for
all tasks, and an instance that comes home is one of the program's own class.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from types import CodeType, FunctionType
from typing import Any

import cloudpickle
from cloudpickle.cloudpickle import _DYNAMIC_CLASS_TRACKER_BY_ID, _code_reduce, _get_or_create_tracker_id

from pilotflow.errors import PilotflowError, SerializationError
from pilotflow.made_anew import ANEW, reduce_anew
from pilotflow.names import found, importable_function, resolve
from pilotflow.script_globals import ScriptGlobals

_VALUES_MAX = 1000
"""Bodies whose values a process keeps, at most..."""
_VALUES_BYTES_MAX = 64 << 20
"""...and how long they are together, at most."""

GLOBALS = ScriptGlobals()
"""Of the bodies that this process has loaded."""

_NO_FILE = "<dynamic-code>"
"""What cloudpickle 3.1 and later write for the name of a function's file."""

_lock = threading.Lock()
_class_bodies: weakref.WeakKeyDictionary[type, bytes] = weakref.WeakKeyDictionary()
_values: dict[bytes, Any] = {}  # by-value bodies that this process has loaded


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types of its own
    """cloudpickle's pickler, with our rule for what a worker can import."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType:
            name = importable_function(obj)
            if name is None:
                return self._dynamic_function_reduce(obj)
            return NotImplemented if found(*name) is obj else (resolve, name)
        if isinstance(obj, Future):
            raise SerializationError(
                "a future cannot travel inside a function; pass it as an argument, or wait for its result"
            )
        if type(obj) is CodeType:
            # Some versions of cloudpickle leave out the file's name, so that tracebacks show neither file nor lines.
            make, parts = _code_reduce(obj)
            return make, tuple(obj.co_filename if type(part) is str and part == _NO_FILE else part for part in parts)
        if type(obj) in ANEW:
            return reduce_anew(obj)
        return super().reducer_override(obj)


class _Unpickler(pickle.Unpickler):
    """Also finds the globals of the functions that it makes."""

    def __init__(self, body: bytes) -> None:
        super().__init__(io.BytesIO(body))
        self.globals: dict[int, dict[str, Any]] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        named = super().find_class(module, name)
        if name != "_function_setstate":
            return named

        def set_state(function: FunctionType, state: Any) -> Any:
            self.globals[id(function.__globals__)] = function.__globals__
            return named(function, state)

        return set_state


def dump(value: Any) -> bytes:
    """A function or class, with all that it refers to and a worker cannot import.

    Raises:
        PilotflowError, Exception: something in it cannot be pickled.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, protocol=5).dump(value)
    except PilotflowError:
        raise
    except Exception:  # what it refers to is pickled by code of its own, which raises what it likes
        body = _dilled(value)
        if body is None:
            raise
        return body
    return file.getvalue()


def _dilled(value: Any) -> bytes | None:
    """What dill makes of a function that cloudpickle cannot do, or None."""
    if not isinstance(value, FunctionType):
        return None
    import dill

    try:
        body: bytes = dill.dumps(value, protocol=5, byref=False, recurse=True)
    except Exception:  # noqa: BLE001  as in `dump`, which shows cloudpickle's reason
        return None
    return body


def load(body: bytes) -> Any:
    """The value of a body; the same object each time in one process."""
    value = _values.get(body)
    if value is None:
        if len(_values) >= _VALUES_MAX or sum(map(len, _values)) + len(body) > _VALUES_BYTES_MAX:
            _values.clear()
        unpickler = _Unpickler(body)
        value = _values[body] = unpickler.load()
        for names in unpickler.globals.values():
            GLOBALS.take(names)
    return value


def reduce_class(cls: type) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """How a pickler should write a class that cannot be imported."""
    body = _class_bodies.get(cls)
    if body is None:
        body = dump(cls)
        with _lock:
            _class_bodies[cls] = body
    return load_class, (_get_or_create_tracker_id(cls), body)


def load_class(key: str, body: bytes) -> Any:
    """The class with that key, if this process has met it, else its own class of that name, else from its body."""
    cls = _DYNAMIC_CLASS_TRACKER_BY_ID.get(key)
    if cls is None:
        cls = load(body)
        own = _own_class(cls)
        with _lock:
            if own is None:
                _class_bodies.setdefault(cls, body)
            else:  # the body comes from an earlier run of this program, through a cache
                _DYNAMIC_CLASS_TRACKER_BY_ID[key] = cls = own
    return cls


def _own_class(cls: type) -> type | None:
    """The class of this program's script that has the name of a class of another program's script."""
    own: Any = sys.modules.get("__main__") if cls.__module__ == "__main__" else None
    for name in cls.__qualname__.split("."):
        own = getattr(own, name, None)
    return own if isinstance(own, type) and own.__module__ == "__main__" else None
