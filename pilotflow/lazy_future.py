"""`concurrent.futures.Future`s that are small and decode their result lazily.

A million of them must fit, so what most futures never need (a condition, lists of waiters and
callbacks) is made on first use. A result stays packed until somebody asks for it: one that only
feeds other tasks is never unpickled here.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as _TimeoutError  # the builtin since Python 3.11
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar

from pilotflow.errors import SerializationError
from pilotflow.future_errors import TaskFuture, failure_of
from pilotflow.messages.records import Status
from pilotflow.serialize import Packed, unpack
from pilotflow.typechecks import check_call

if TYPE_CHECKING:
    from pilotflow.runtime.client import Client

T = TypeVar("T")

LONGEST_S = 2_000_000.0
"""A wait for longer than these 23 days is one for ever: poll(2) counts milliseconds in 32 bits."""

_lock = threading.Lock()
"""Guards every state change of every future. Held for nanoseconds, never while user code runs."""
decoding = threading.RLock()
"""Held while a result is unpickled, so that each is unpickled once."""

_DONE = (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)


class LazyFuture(TaskFuture[T]):
    """The result of something that may not have run yet: waiting for it, and settling it.

    Args:
        task_id, name: see `TaskFuture`.
        client: whose task it is; forgotten when that has ended.
        fn: the task's function.
    """

    __slots__ = (
        "_bells",
        "_callbacks",
        "_client",
        "_cond",
        "_exception",
        "_packed",
        "_result",
        "_state",
        "_status",
        "_waiting",
        "fn",
        "name",
        "task_id",
    )

    def __init__(self, task_id: int, name: str, client: Client | None, fn: int = 0) -> None:
        # Future.__init__ makes a condition and two lists, most of its 1.7 KiB; here they are lazy.
        self.task_id = task_id
        self.name = name
        self.fn = fn
        self._client = client
        self._state = PENDING
        self._status = Status.OK
        self._packed: Packed | None = None
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._cond: threading.Condition | None = None
        self._waiting: list[Any] | None = None
        self._callbacks: list[Callable[[Future[T]], object]] | None = None
        self._bells: tuple[int, ...] = ()  # of those who wait: eventfds

    # What the standard library's wait() and as_completed() look at; attributes to type checkers,
    # as they are in the base class.
    if not TYPE_CHECKING:

        @property
        def _condition(self):
            condition = self._cond
            if condition is None:
                with _lock:
                    condition = self._cond
                    if condition is None:
                        condition = self._cond = threading.Condition()
            return condition

        @property
        def _waiters(self):
            if self._waiting is None:
                self._waiting = []
            return self._waiting

    # ---- for users --------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether it has ended, one way or another."""
        return self._state in _DONE

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state is CANCELLED_AND_NOTIFIED

    def running(self) -> bool:
        """Whether it is running; known about a second after its start."""
        return self._state is RUNNING

    def failed(self) -> bool:
        """Whether it has ended with an error, which need not be looked at for this."""
        return self._state is FINISHED and (self._status is not Status.OK or self._exception is not None)

    def result(self, timeout: float | None = None) -> T:
        """The task's result.

        Args:
            timeout: seconds to wait; for ever by default.

        Raises:
            ConfigError: the timeout is no number.
            TimeoutError: it is not there in time.
            CancelledError: the task was cancelled.
            BaseException: what the task raised; its `__cause__` is the remote traceback.
        """
        self._wait(timeout)
        error = self._decoded_error()
        if error is None:
            return self._result  # type: ignore[return-value]
        try:
            raise error
        finally:
            # No cycle with the frame in the traceback, as the standard library has it.
            self = error = None  # type: ignore[assignment]  # noqa: PLW0642

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None if it ended well; waits and raises as `result` does."""
        self._wait(timeout)
        return self._decoded_error()

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn(future)` once the task has ended, at once if it has."""
        with _lock:
            if self._state not in _DONE:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(fn)
                return
        self._call(fn)

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio  # it takes a while, and programs without an event loop do without it

        return asyncio.wrap_future(self).__await__()

    @property
    def state(self) -> str:
        """In a word how it is: pending, running, done, failed or cancelled."""
        if self._state is FINISHED:
            return "failed" if self.failed() else "done"
        return "cancelled" if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED) else self._state.lower()

    # ---- for the client loop ----------------------------------------------------------------

    def settle(self, status: Status, packed: Packed) -> bool:
        """The task has ended; False if it was cancelled before."""
        with _lock:
            if self._state in _DONE:
                return False
            if self._cond is not None or self._callbacks is not None:
                bells = None
            else:  # nobody to tell but those who sleep in `result`
                self._status = status
                self._packed = packed
                self._client = None
                self._state = FINISHED
                bells, self._bells = self._bells, ()
        if bells is None:
            return self._end(FINISHED, status, packed)
        _ring(bells)
        return True

    def give(self, value: T) -> bool:
        """The task has ended with this value, in this program; False if it was cancelled before."""
        self._result = value
        return self._end(FINISHED)

    def fail(self, error: BaseException) -> bool:
        """The task cannot end any more, because of this; False if it has ended."""
        return self._end(FINISHED, Status.ERROR, None, error)

    def begin(self) -> None:
        """The task is running."""
        with _lock:
            if self._state is PENDING:
                self._state = RUNNING

    def withdraw(self) -> bool:
        """Cancel without telling the client, which has ended the task; False if it has a result."""
        return self._end(CANCELLED_AND_NOTIFIED) or self._state is not FINISHED

    def packed_result(self) -> Packed | None:
        """The result as it came, if it was good and nobody has asked for it."""
        packed = self._packed
        return packed if self._status is Status.OK else None

    # ---- inside -----------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        if self._state not in _DONE:
            self._sleep(timeout)
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            raise CancelledError
        if self._state is not FINISHED:
            raise _TimeoutError(f"task {self.task_id} ({self.name}) has not ended within {timeout} s")

    def _sleep(self, timeout: float | None) -> None:
        """Wait until the task has ended, at most so many seconds."""
        if timeout is not None:
            check_call("result", "timeout", timeout, float)
        # With an eventfd instead of the condition: who rings it lets go of the interpreter at once, and
        # systems wake its reader on the same processor, where an idle one would have to be started first.
        try:
            bell = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError:  # this process has too many files
            with self._condition:
                self._condition.wait_for(lambda: self._state in _DONE, timeout)
            return
        poll = select.poll()
        poll.register(bell, select.POLLIN)
        listed = False
        rung: Any = None
        try:
            with _lock:
                if self._state not in _DONE:
                    self._bells = (*self._bells, bell)
                    listed = True
            if listed:
                rung = poll.poll(None if timeout is None or timeout > LONGEST_S else max(0.0, timeout) * 1e3)
        finally:
            if listed and not rung:
                with _lock:
                    taken = bell not in self._bells
                    self._bells = tuple(other for other in self._bells if other != bell)
                if taken:
                    poll.poll()  # it is being rung just now, and must be there until then
            os.close(bell)

    def _decoded_error(self) -> BaseException | None:
        if self._packed is not None:
            with decoding:
                self._decode()
        return self._exception

    def _decode(self) -> None:
        packed, status = self._packed, self._status
        if packed is None:
            return
        try:
            if status is Status.OK:
                self._result = unpack(*packed)
            else:
                self._exception = failure_of(self, status, packed)
        except SerializationError as error:
            self._exception = SerializationError(f"the result of '{self.name}' cannot be read here: {error}")
            self._exception.__cause__ = error.__cause__
        self._packed = None

    def _end(
        self, state: str, status: Status = Status.OK, packed: Packed | None = None, error: BaseException | None = None
    ) -> bool:
        """Take on an end state and tell everybody; False if it had ended before."""
        # The condition is held over the change and the news of it, as in the standard library:
        # as_completed() must not hear of a future twice.
        with self._condition:
            with _lock:
                if self._state in _DONE:
                    return False
                self._status = status
                self._packed = packed
                self._exception = error
                self._client = None
                self._state = state
                callbacks, self._callbacks = self._callbacks, None
                bells, self._bells = self._bells, ()
            for waiter in self._waiting or ():
                if state is CANCELLED_AND_NOTIFIED:
                    waiter.add_cancelled(self)
                elif status is Status.OK:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        _ring(bells)
        for fn in callbacks or ():
            self._call(fn)
        return True

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        """(done, cancelled, result, exception), as asyncio asks for them from Python 3.14 on."""
        if self._state is FINISHED:
            error = self._decoded_error()
            return True, False, self._result, error
        return self._state in _DONE, self._state in _DONE, None, None

    def _call(self, fn: Callable[[Future[T]], object]) -> None:
        try:
            fn(self)
        except BaseException as error:  # as the standard library's futures do: log, and go on
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                raise  # the program's end; elsewhere it would end the loop that all futures wait for
            import logging

            logging.getLogger("concurrent.futures").exception("exception calling callback for %r", self)


def _ring(bells: tuple[int, ...]) -> None:
    for bell in bells:
        os.eventfd_write(bell, 1)
