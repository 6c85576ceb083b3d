"""What the interchange is told once of a run: functions and request classes, which tasks then name by number."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from pilotflow.bodies import digest
from pilotflow.messages import DefineClass, DefineFunction
from pilotflow.resources import Request
from pilotflow.runtime.store import Store


class Definitions:
    """Gives out the numbers, to any thread.

    Args:
        say: sends the interchange a message, before every task that is submitted after this.
        store: where names of functions are recorded, or None.
    """

    def __init__(self, say: Callable[[Any], None], store: Store | None) -> None:
        self._say = say
        self._store = store
        self._lock = threading.Lock()
        self._functions = 0
        self._classes: dict[tuple[Request, tuple[str, ...], int], int] = {}

    def function(self, name: str, body: bytes, *, all_ranks: bool = False) -> int:
        """Make a function known; returns its number. See `messages.DefineFunction`."""
        with self._lock:
            self._functions += 1
            fn = self._functions
        self._say(DefineFunction(fn, digest(body), body, name, all_ranks))
        if self._store is not None:
            self._store.function(fn, name)
        return fn

    def local_function(self, name: str) -> int:
        """A number for a function that runs in this program, for records."""
        with self._lock:
            self._functions += 1
            fn = self._functions
        if self._store is not None:
            self._store.function(fn, name)
        return fn

    def request_class(self, request: Request, executors: tuple[str, ...], crash_limit: int) -> int:
        """Make a request class known; returns its number, the same for the same class."""
        key = (request, executors, crash_limit)
        with self._lock:
            cls = self._classes.get(key)
            if cls is None:
                cls = self._classes[key] = len(self._classes) + 1
                self._say(DefineClass(cls, request, executors, crash_limit))
        return cls

    def narrowed(self, cls: int, timeout_s: float) -> int:
        """The number of the class that is like this one, with another timeout."""
        request, executors, crash_limit = list(self._classes)[cls - 1]
        return self.request_class(msgspec.structs.replace(request, timeout_s=timeout_s), executors, crash_limit)
