"""Threads for functions that run in the user's program and may wait for tasks."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

EAGER: Final = 8
"""So many threads are started as soon as they are needed."""
STUCK_S: Final = 0.1
"""If what is to be run has waited for so long, all threads wait for something, and as many again are started."""


class BodyThreads:
    """Runs functions in threads, of which there are always enough: those that all wait cannot block the rest.

    `run` and `grow` are for the client loop's thread.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._todo: deque[tuple[float, Callable[[], object]]] = deque()
        self._wake = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._closed = False
        self.due_at = math.inf
        """When `grow` must be called."""

    def run(self, body: Callable[[], object]) -> None:
        """Call this in a thread, soon; it raises nothing."""
        with self._wake:
            now = time.monotonic()
            self._todo.append((now, body))
            self.due_at = min(self.due_at, now + STUCK_S)
            if self._idle >= len(self._todo):
                self._wake.notify()
            elif self._threads < EAGER:
                self._start(1)

    def grow(self, now: float) -> None:
        """See whether all threads wait."""
        with self._wake:
            if not self._todo:
                self.due_at = math.inf
                return
            if now >= self._todo[0][0] + STUCK_S and not self._idle:
                self._start(min(self._threads, len(self._todo)))
            self.due_at = now + STUCK_S

    def close(self) -> None:
        """Let the threads end that have nothing to do."""
        with self._wake:
            self._closed = True
            self._todo.clear()
            self._wake.notify_all()

    def _start(self, count: int) -> None:
        for _ in range(count):
            self._threads += 1
            threading.Thread(target=self._work, name=f"pilotflow-body-{self._threads}", daemon=True).start()

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
                _, body = self._todo.popleft()
            try:
                body()
            except Exception:  # noqa: BLE001  a thread's top
                self._log.exception("what ran in this program failed because of a bug")
            del body
