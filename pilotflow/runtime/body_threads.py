"""Threads for functions that run in the user's program and may wait for tasks."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from pilotflow.errors import InfrastructureError
from pilotflow.runtime.own_threads import start_thread

EAGER: Final = 8
"""So many threads are started as soon as they are needed."""
STUCK_S: Final = 0.1
"""If what is to be run has waited for so long, all threads wait for something, and as many again are started."""
PATIENCE_S: Final = 60.0
"""If no thread can be started and none has become free for so long, what is to be run is refused."""

Refuse: TypeAlias = Callable[[InfrastructureError], object]


class _Work(NamedTuple):
    since: float
    body: Callable[[], object]
    refuse: Refuse


class BodyThreads:
    """Runs functions in threads, of which there are always enough: those that all wait cannot block the rest.

    `run` and `grow` are for the client loop's thread.

    Args:
        log: the run's log.
        start: starts a thread, with a name; raises InfrastructureError if there can be none.
    """

    def __init__(self, log: logging.Logger, start: Callable[[Callable[[], None], str], object] = start_thread) -> None:
        self._log = log
        self._start_thread = start
        self._todo: deque[_Work] = deque()
        self._wake = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._taken_at = -math.inf  # when a thread has last begun with something
        self._short = False  # whether there can be no more threads
        self._closed = False
        self.due_at = math.inf
        """When `grow` must be called."""

    def run(self, body: Callable[[], object], refuse: Refuse) -> None:
        """Call this in a thread, soon; it raises nothing. If there is no thread for it, say that to `refuse`."""
        with self._wake:
            now = time.monotonic()
            self._todo.append(_Work(now, body, refuse))
            self.due_at = min(self.due_at, now + STUCK_S)
            if self._idle >= len(self._todo):
                self._wake.notify()
            elif self._threads < EAGER:
                self._start(1)

    def grow(self, now: float) -> None:
        """See whether all threads wait."""
        refused: list[_Work] = []
        problem: InfrastructureError | None = None
        with self._wake:
            if not self._todo:
                self.due_at = math.inf
                return
            since = self._todo[0].since
            if now >= since + STUCK_S and not self._idle:
                problem = self._start(max(1, min(self._threads, len(self._todo))))
                if problem is not None and now >= max(since, self._taken_at) + PATIENCE_S:
                    refused = list(self._todo)
                    self._todo.clear()
            self.due_at = now + STUCK_S
        if problem is not None:
            for work in refused:
                work.refuse(problem)

    def close(self) -> None:
        """Let the threads end that have nothing to do."""
        with self._wake:
            self._closed = True
            self._todo.clear()
            self._wake.notify_all()

    def _start(self, count: int) -> InfrastructureError | None:
        """Start so many threads; what is the matter if not all can be. Then `grow` will try again."""
        for _ in range(count):
            try:
                self._start_thread(self._work, f"pilotflow-body-{self._threads + 1}")
            except InfrastructureError as error:
                if not self._short:
                    self._short = True
                    self._log.warning("functions of join_apps wait: %s", error)
                return error
            self._threads += 1
        self._short = False
        return None

    def _work(self) -> None:
        while True:
            with self._wake:
                self._idle += 1
                while not self._todo and not self._closed:
                    self._wake.wait()
                self._idle -= 1
                if not self._todo:
                    self._threads -= 1
                    return
                body = self._todo.popleft().body
                self._taken_at = time.monotonic()
            try:
                body()
            except BaseException:  # noqa: BLE001  a thread's top
                self._log.exception("what ran in this program failed because of a bug")
            del body
