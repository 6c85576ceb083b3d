"""How tasks ended that did not end well, in words, for the run store."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError, Future
from typing import Any, Final

from pilotflow.messages.records import Status
from pilotflow.remote_errors import summary
from pilotflow.runtime.store import EndRow
from pilotflow.serialize import Packed

ENDS_MAX: Final = 10_000
"""Ends of a run that are put into words; a run with more of them is not told better by all."""
WORDS_MAX: Final = 500
"""Characters of one."""
_LEFT_OUT: Final = "\n...\n"


class Ends:
    """Collects ends in words. Nothing is unpickled that a user has made.

    Attributes:
        rows: those that have not been recorded.
        failed, cancelled: how many there were, all of them.
        by_result: how many of these had a result, of their last attempt.
    """

    def __init__(self) -> None:
        self.rows: list[EndRow] = []
        self.failed = 0
        self.cancelled = 0
        self.by_result = 0
        self._left = ENDS_MAX
        self._first = ""  # failure, in words
        self._seen = False

    @property
    def unseen(self) -> str:
        """The first failure, in words, if the program has not asked for the error of any; else empty."""
        return "" if self._seen else self._first

    def _see(self) -> None:
        self._seen = True

    def of_result(self, future: Any, status: Status, packed: Packed) -> None:
        """The task's last attempt has ended with this."""
        self.by_result += 1
        if status is Status.ERROR:
            self.failed += 1
            future.when_seen = self._see
            if future.is_seen:  # before we could know
                self._see()
            if not self._first:
                self._first = f"'{future.name}' (task {future.task_id}): {_cut(summary(packed))}"
            if self._left > 0:
                self._add(future, "failed", summary(packed))
        else:
            self.of(future)

    def of(self, future: Any, by_result: bool = False) -> None:
        """The future has ended without a result of its task; or with one, of its last attempt, that was bad."""
        self.by_result += by_result
        error = _error_of(future)
        if error is None:
            self.cancelled += 1
            if self._left > 0:
                self._add(future, "cancelled", "")
        else:
            self.failed += 1
            if self._left > 0:
                self._add(future, "failed", f"{type(error).__name__}: {error}")

    def _add(self, future: Any, how: str, words: str) -> None:
        self._left -= 1
        text = _cut(words).encode("utf-8", "replace").decode()  # SQLite takes no lone surrogates
        self.rows.append((future.task_id, future.fn, how, text, time.time()))


def _cut(words: str) -> str:
    """The words, or their beginning and their end, which says more than the middle: it may be a command's stderr."""
    if len(words) <= WORDS_MAX:
        return words
    half = (WORDS_MAX - len(_LEFT_OUT)) // 2
    return f"{words[:half]}{_LEFT_OUT}{words[-half:]}"


def _error_of(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception(0)
    except CancelledError:
        return None
