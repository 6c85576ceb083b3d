"""What the interchange is told once of a run: functions and request classes, which tasks then name by number."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from pilotflow.bodies import digest
from pilotflow.messages.client import DefineClass, DefineFunction
from pilotflow.resources import Request
from pilotflow.runtime.store import Store

FORGOTTEN_AT_ONCE: Final = 1000
"""So many functions are forgotten together: for that, all pending tasks are looked at..."""
FORGOTTEN_BYTES: Final = 64 << 20
"""...or functions whose bodies have so many bytes."""


class Definitions:
    """Gives out the numbers, to any thread.

    Args:
        say: sends the interchange a message, before every task that is submitted after this.
        store: where names of functions are recorded, or None.
        forget: is told of functions that nobody submits tasks of any more.
    """

    def __init__(self, say: Callable[[Any], None], store: Store | None, forget: Callable[[list[int]], None]) -> None:
        self._say = say
        self._store = store
        self._forget = forget
        self._lock = threading.Lock()
        self._functions = 0
        self.known: dict[tuple[bytes, bool], int] = {}
        """Numbers of the functions that are not forgotten, by body and whether the results of all ranks are wanted."""
        self._uses: dict[int, tuple[int, tuple[bytes, bool]]] = {}  # owners of a function, and its key above
        self._released: deque[int] = deque()  # functions of which an owner is gone
        self._unused: list[int] = []  # functions without an owner, and how long their bodies are together
        self._unused_bytes = 0
        self._leaving: set[int] = set()  # functions that are forgotten when their tasks have ended
        self._classes: dict[tuple[Request, tuple[str, ...], int], int] = {}
        self._meanings: list[tuple[Request, tuple[str, ...]]] = []
        self._here: frozenset[str] = frozenset()
        self.bodies: dict[int, bytes] = {}
        self.names: dict[int, str] = {}
        """Of functions, by number, if some executors are in this process; so are their bodies."""

    def keep_for(self, executors: Iterable[str]) -> None:
        """These executors are in this process: nobody else hears of their classes, and bodies are kept for them."""
        self._here = frozenset(executors)

    def function(self, name: str, body: bytes, *, all_ranks: bool = False, owner: object | None = None) -> int:
        """Make a function known; returns its number, the same for the same body. See `DefineFunction`.

        Args:
            name, body, all_ranks: the function.
            owner: who submits tasks of it. A function is forgotten when all its owners are gone and all its tasks
                have ended; without an owner never.
        """
        key = (body, all_ranks)
        with self._lock:
            self._forget_released()
            fn = self.known.get(key)
            if fn is None:
                fn = self.known[key] = self._new_function(name, body, all_ranks)
            self._uses[fn] = self._uses.get(fn, (0, key))[0] + 1, key
        if owner is not None:  # it may go at any moment, in any thread, also in the middle of what is above
            weakref.finalize(owner, self._released.append, fn).atexit = False
        return fn

    def _new_function(self, name: str, body: bytes, all_ranks: bool) -> int:
        self._functions += 1
        fn = self._functions
        if self._here:
            self.bodies[fn], self.names[fn] = body, name
        self._say(DefineFunction(fn, digest(body), body, name, all_ranks))
        if self._store is not None:
            self._store.function(fn, name)
        return fn

    def _forget_released(self) -> None:
        while self._released:
            fn = self._released.popleft()
            uses, key = self._uses[fn]
            if uses > 1:
                self._uses[fn] = uses - 1, key
                continue
            del self._uses[fn], self.known[key]
            self._unused.append(fn)
            self._unused_bytes += len(key[0])
        if len(self._unused) >= FORGOTTEN_AT_ONCE or self._unused_bytes >= FORGOTTEN_BYTES:
            self._forget(self._unused)
            self._unused, self._unused_bytes = [], 0

    def drop(self, fns: Iterable[int], in_use: set[int]) -> set[int]:
        """Nobody submits tasks of these functions any more; called in the loop's thread.

        Returns those of them, and of all before them, that are forgotten now, as no task is of them either: those
        `in_use` have pending ones.
        """
        self._leaving.update(fns)
        gone = self._leaving - in_use
        self._leaving -= gone
        for fn in gone:
            self.bodies.pop(fn, None)
            self.names.pop(fn, None)
        return gone

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
