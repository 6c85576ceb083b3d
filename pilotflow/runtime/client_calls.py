"""What user threads may ask of the client loop besides submitting to workers.

They wait for the end of all tasks, count them, have tasks run in this program, and cancel.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from pilotflow.core.pace import Counts
from pilotflow.core.retry import Policy
from pilotflow.errors import RunClosed
from pilotflow.futures import AppFuture
from pilotflow.messages.records import Status
from pilotflow.runtime.body_threads import BodyThreads
from pilotflow.runtime.local_book import LocalBook, LocalWork
from pilotflow.runtime.task_book import Answer
from pilotflow.serialize import Packed

CANCEL_TIMEOUT_S = 5.0
"""A strict cancel waits this long for the interchange's answer."""


class LocalSubmission:
    """A new task that runs in this program, in the inbox."""

    __slots__ = ("_book", "_needs", "_policy", "_work", "future")

    def __init__(
        self,
        book: LocalBook,
        future: AppFuture[Any],
        work: LocalWork,
        needs: Sequence[Future[Any]],
        policy: Policy | None,
    ) -> None:
        self._book = book
        self.future = future
        self._work = work
        self._needs = needs
        self._policy = policy

    def __call__(self) -> None:
        """Add it to the book; called in the loop's thread."""
        self._book.add_local(self.future, self._work, self._needs, self._policy)


class ClientCalls(ABC):
    """The base of `Client`, which has the loop."""

    _inbox: deque[Any]
    _asleep: bool
    _closed: BaseException | None
    _book: LocalBook
    _threads: BodyThreads
    _thread: threading.Thread
    _idle: threading.Condition
    _idlers: int
    _outstanding: int
    _taken: int
    _has_ended: bool

    @abstractmethod
    def check_open(self) -> None:
        """See `Client`."""

    @abstractmethod
    def _wake(self) -> None: ...

    @abstractmethod
    def _take_inbox(self) -> None: ...

    def call(self, action: Callable[[], None]) -> None:
        """Have the loop's thread do this."""
        self._inbox.append(action)
        if self._asleep:
            self._wake()

    @property
    def is_own_thread(self) -> bool:
        """Whether the caller is in the loop's thread, where callbacks of futures run."""
        return threading.current_thread() is self._thread

    # ---- all tasks --------------------------------------------------------------------------

    def pending(self) -> int:
        """Tasks that have not ended."""
        # The first is too many while results are taken, the second while the inbox is.
        return min(self._outstanding, len(self._book) + self._taken) + len(self._inbox)

    def counts(self, leased: int) -> Counts:
        """How many tasks have ended and how, and how many have not, of which `leased` are with managers."""
        return self._book.counts(self.pending(), leased)

    @property
    def unseen_failure(self) -> str:
        """The first failure, in words, if the program has asked for the error of no task; else empty."""
        return self._book.ends.unseen

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until no task is pending; False if it takes longer than the timeout in seconds.

        Raises:
            RunClosed: called in a callback of a future, where it would wait for itself.
        """
        if self.is_own_thread:
            raise RunClosed("A callback of a future cannot wait for the run's tasks, or close the run; it would hang.")
        with self._idle:
            self._idlers += 1  # first this, then the look at what is outstanding; `_settle_idle` the other way round
            try:
                return self._idle.wait_for(
                    lambda: self._has_ended or (not self._inbox and not self._outstanding), timeout
                )
            finally:
                self._idlers -= 1

    def _settle_idle(self) -> None:
        self._outstanding = len(self._book)
        if self._idlers and not self._outstanding:
            with self._idle:
                self._idle.notify_all()

    # ---- tasks that run in this program -----------------------------------------------------

    def submit_local(
        self, future: AppFuture[Any], work: LocalWork, needs: Sequence[Future[Any]], policy: Policy | None = None
    ) -> None:
        """Submit a task that runs in this program, once these futures have ended.

        Raises:
            RunClosed, InterchangeLost: the run takes no more tasks.
        """
        self.check_open()
        self.call(LocalSubmission(self._book, future, work, needs, policy))
        if self._closed is not None:  # meanwhile, and perhaps nobody looks into the inbox any more
            future.fail(self._closed)

    def run_body(self, future: AppFuture[Any], body: Callable[[], None]) -> None:
        """Call this for a task in a thread in which it may wait for others; from the loop's thread."""
        self._threads.run(body, lambda problem: self.fail_local(future, problem))

    def end_local(self, future: AppFuture[Any], value: Any) -> None:
        """A task that ran in this program has this result."""
        self._settle(lambda: self._book.end_local(future, value))

    def end_local_as(self, future: AppFuture[Any], other: AppFuture[Any]) -> None:
        """Its result is that of another task, which has ended well."""
        self._settle(lambda: self._book.end_local_as(future, other))

    def fail_local(self, future: AppFuture[Any], error: BaseException) -> None:
        """It has raised this, and may be tried again."""
        self._settle(lambda: self._book.fail_local(future, error))

    def wait_local(self, future: AppFuture[Any], needs: Sequence[Future[Any]]) -> None:
        """It ends when these futures have ended; its work begins once more then."""
        self._settle(lambda: self._book.wait_local(future, needs))

    def conclude(self, future: AppFuture[Any], end: tuple[Status, Packed] | BaseException) -> None:
        """A task that still waits for something need not run: it ends with this."""
        self.call(lambda: self._book.conclude(future, end))

    def _settle(self, action: Callable[[], None]) -> None:
        def act() -> None:
            action()
            self._settle_idle()

        self.call(act)

    # ---- cancels ----------------------------------------------------------------------------

    def may_cancel(self, future: AppFuture[Any]) -> bool:
        """Whether a task can be ended, should it be running."""
        return True

    def cancel(self, future: AppFuture[Any]) -> None:
        """End a task whose future was cancelled, running or not."""

        def end() -> None:
            self._book.end(future)
            self._settle_idle()

        self.call(end)

    def cancel_all(self) -> int:
        """Cancel every task that was submitted before this call, running or not; returns how many were cancelled."""
        count = [0]
        done = threading.Event()

        def end() -> None:
            count[0] = self._cancel_all()
            self._settle_idle()
            done.set()

        if self.is_own_thread:
            self._take_inbox()
            end()
        else:
            self.call(end)
            self._wait_for(done)
        return count[0]

    def _cancel_all(self) -> int:
        return self._book.cancel_all()

    def cancel_unstarted(self, futures: Sequence[AppFuture[Any]]) -> bool:
        """Cancel those tasks that have not started, and wait until that is known.

        Returns whether all of them are cancelled. In a callback of a future nothing can be waited
        for, and tasks whose state only the workers know count as started.
        """
        answer = Answer(futures)
        self.call(lambda: self._book.cancel_unstarted(answer))
        if not self.is_own_thread:
            self._wait_for(answer.done, CANCEL_TIMEOUT_S)
        return all(future.cancelled() for future in futures)

    def cancel_all_unstarted(self) -> None:
        """Cancel every task that has not started, and wait until that is known."""
        ready = threading.Event()
        found: list[AppFuture[Any]] = []

        def look() -> None:
            found.extend(self._book.graph.pending.values())
            ready.set()

        self.call(look)
        self._wait_for(ready, CANCEL_TIMEOUT_S)
        if found:
            self.cancel_unstarted(found)

    def _wait_for(self, done: threading.Event, timeout_s: float = float("inf")) -> None:
        """Wait for what the loop's thread does, as long as there is one."""
        end_at = time.monotonic() + timeout_s
        while not done.wait(1.0) and self._thread.is_alive() and time.monotonic() < end_at:
            pass
