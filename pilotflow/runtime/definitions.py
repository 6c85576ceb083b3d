"""What the interchange is told once of a run: functions and request classes, which tasks then name by number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
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
        self._meanings: list[tuple[Request, tuple[str, ...]]] = []
        self._here: frozenset[str] = frozenset()
        self.bodies: dict[int, bytes] = {}
        self.names: dict[int, str] = {}
        """Of functions, by number, if some executors are in this process; so are their bodies."""

    def keep_for(self, executors: Iterable[str]) -> None:
        """These executors are in this process: nobody else hears of their classes, and bodies are kept for them."""
        self._here = frozenset(executors)

    def function(self, name: str, body: bytes, *, all_ranks: bool = False) -> int:
        """Make a function known; returns its number. See `messages.DefineFunction`."""
        with self._lock:
            self._functions += 1
            fn = self._functions
        if self._here:
            self.bodies[fn], self.names[fn] = body, name
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
                self._meanings.append((request, executors))
                cls = self._classes[key] = len(self._meanings)
                if not executors or executors[0] not in self._here:
                    self._say(DefineClass(cls, request, executors, crash_limit))
        return cls

    def meaning(self, cls: int) -> tuple[Request, tuple[str, ...]]:
        """What a class asks for, and the executors that its tasks may run on; none means any."""
        return self._meanings[cls - 1]

    def narrowed(self, cls: int, timeout_s: float) -> int:
        """The number of the class that is like this one, with another timeout."""
        request, executors, crash_limit = list(self._classes)[cls - 1]
        return self.request_class(msgspec.structs.replace(request, timeout_s=timeout_s), executors, crash_limit)
