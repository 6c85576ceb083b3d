"""The client loop: one thread between the user's program and the interchange.

`submit` in the user's thread appends and wakes the loop; everything else happens here: the task
graph, the socket, the futures. A result that only feeds other tasks goes on as it came.
"""

from __future__ import annotations

import itertools
import logging
import os
import platform
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from pilotflow.core.graph import Graph
from pilotflow.core.post import Letter, Post
from pilotflow.errors import InterchangeLost, PilotflowError, RunClosed, SerializationError
from pilotflow.futures import AppFuture, dependency_failed
from pilotflow.ids import VERSION
from pilotflow.memfile import buffer_of
from pilotflow.messages import (
    AckResults,
    BadMessage,
    Cancelled,
    CancelTasks,
    ClientAlive,
    Close,
    DefineClass,
    DefineFunction,
    Hello,
    HelloAgain,
    InterchangeAlive,
    Load,
    ManagerDown,
    ManagerUp,
    Refused,
    ResultBatch,
    Results,
    SetupFailed,
    Started,
    Status,
    Submit,
    Task,
    Welcome,
    to_client,
)
from pilotflow.resources import Request
from pilotflow.runtime.channels import connect
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.store import Store, TaskRow
from pilotflow.serialize import Packed, digest, pack

SUBMIT_MAX = 2000
"""Tasks in one letter to the interchange: the first can start while the next are encoded."""
ACK_DELAY_S = 0.02
"""Acknowledgements of results wait this long for a letter that goes anyway..."""
ACKS_MAX = 64
"""...or until there are so many."""
CANCEL_TIMEOUT_S = 5.0
"""A strict cancel waits this long for the interchange's answer."""

_INTERCHANGE = "interchange"
Listener: TypeAlias = Callable[[Any], None]
_Submission: TypeAlias = tuple[AppFuture[Any], Task, tuple[Any, ...], "list[Future[Any]] | None", int]


class Client:
    """One run's loop, its thread, and what user threads may ask of it.

    Args:
        connection: where the interchange is.
        interchange_pid: its process, watched for its death.
        listener: called in the loop's thread with each `Load`, `ManagerUp`, `ManagerDown` and
            `SetupFailed`, and with the `InterchangeLost` that ended the run.
        store: where ended tasks are recorded, or None.
        log: the run's log.
    """

    def __init__(
        self,
        connection: Connection,
        interchange_pid: int,
        listener: Listener,
        store: Store | None,
        log: logging.Logger,
    ) -> None:
        self._connection = connection
        self._listener = listener
        self._store = store
        self._log = log
        self._ids = itertools.count(1)
        self._classes: dict[tuple[Request, tuple[str, ...], int], int] = {}
        self._functions = 0
        self._define_lock = threading.Lock()
        self._inbox: deque[_Submission | Callable[[], None]] = deque()
        self._asleep = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed: BaseException | None = None
        self._pid = os.getpid()
        self._graph: Graph[AppFuture[Any]] = Graph()
        self._foreign = itertools.count(-1, -1)
        self._foreign_names: dict[int, Future[Any]] = {}
        self._post = Post(time.time_ns())
        self._decode = to_client()
        self._letter = Letter()
        self._rows: list[TaskRow] = []
        self._acks: list[tuple[int, int]] = []
        self._acks_due = 0.0
        self._tokens = itertools.count(1)
        self._answers: dict[int, _Answer] = {}
        self.welcome = threading.Event()
        self.idle = threading.Condition()
        self._outstanding = 0
        self._heard = time.monotonic()
        self._beat_at = 0.0
        self._beat_s = max(0.05, connection.heartbeat_limit_s / 4)
        self._stopping = False
        keys = connection.keys
        self._loop = Loop()
        self._channel = connect(
            self._loop,
            connection.client[0],
            b"client",
            (keys.server_public, keys.client_public, keys.client_secret),
            connection.max_message_bytes,
            self._hear,
            lambda _: self._interchange_lost("it has hung up"),
        )
        self._loop.add(self._wake_fd, lambda: (os.eventfd_read(self._wake_fd), None)[1])
        self._pidfd = os.pidfd_open(interchange_pid)
        self._loop.add(self._pidfd, lambda: self._interchange_lost("its process has ended"))
        self._thread = threading.Thread(target=self._run, name="pilotflow-client", daemon=True)

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()

    # ---- for user threads -------------------------------------------------------------------

    def define_function(self, name: str, body: bytes) -> int:
        """Make a function known; returns its number."""
        with self._define_lock:
            self._functions += 1
            fn = self._functions
        self.say(DefineFunction(fn, digest(body), body))
        if self._store is not None:
            self._store.function(fn, name)
        return fn

    def define_class(self, request: Request, executors: tuple[str, ...], crash_limit: int) -> int:
        """Make a request class known; returns its number, the same for the same class."""
        key = (request, executors, crash_limit)
        with self._define_lock:
            cls = self._classes.get(key)
            if cls is None:
                cls = self._classes[key] = len(self._classes) + 1
                self.say(DefineClass(cls, request, executors, crash_limit))
        return cls

    def new_id(self) -> int:
        """A number for a task."""
        return next(self._ids)

    def submit(
        self,
        future: AppFuture[Any],
        fn: int,
        cls: int,
        packed: Packed,
        needs: list[Future[Any]] | None = None,
        retries: int = 0,
    ) -> None:
        """Submit a task. Its future fails if its arguments are too big.

        Raises:
            RunClosed, InterchangeLost: the run takes no more tasks.
        """
        if self._closed is not None or os.getpid() != self._pid:
            self.check_open()
        limit = self._connection.max_message_bytes
        if packed.layout and packed.nbytes > limit:
            text = f"the arguments of '{future.name}' have {packed.nbytes} bytes, more than max_message_bytes={limit}"
            future.fail(SerializationError(f"{text}; raise that limit, or pass them as a file"))
            return
        task = Task(future.task_id, 0, fn, cls, packed.payload, packed.layout)
        self._inbox.append((future, task, packed.frames, needs, retries))
        if self._asleep:
            self._wake()

    @property
    def failure(self) -> BaseException | None:
        """Why it takes no more tasks, if so."""
        return self._closed

    def check_open(self) -> None:
        """See that tasks can be submitted.

        Raises:
            RunClosed, InterchangeLost, InitializerFailed: why they cannot.
        """
        if self._closed is not None:
            raise self._closed
        if os.getpid() != self._pid:
            raise RunClosed("This process was forked from the one that started the run; start another run here.")

    def break_with(self, error: BaseException) -> None:
        """Take no more tasks and fail those that are pending; called in the loop's thread."""
        self._closed = error
        ids = list(self._graph.pending)
        if ids:
            self._letter.messages.append(CancelTasks(0, ids, running=True))
        self._fail_all(error)

    def say(self, message: Any) -> None:
        """Send the interchange a message."""
        self.call(lambda: self._letter.messages.append(message))

    def call(self, action: Callable[[], None]) -> None:
        """Have the loop's thread do this."""
        self._inbox.append(action)
        if self._asleep:
            self._wake()

    def cancel(self, future: AppFuture[Any]) -> None:
        """End a task whose future was cancelled, running or not."""
        self.call(lambda: self._end(future))

    def cancel_unstarted(self, futures: Sequence[AppFuture[Any]]) -> bool:
        """Cancel those tasks that have not started, and wait until that is known.

        Returns whether all of them are cancelled.
        """
        answer = _Answer(futures)
        self.call(lambda: self._ask(answer))
        answer.done.wait(CANCEL_TIMEOUT_S)
        return all(future.cancelled() for future in futures)

    def cancel_all_unstarted(self) -> None:
        """Cancel every task that has not started, and wait until that is known."""
        ready = threading.Event()
        found: list[AppFuture[Any]] = []

        def look() -> None:
            found.extend(self._graph.pending.values())
            ready.set()

        self.call(look)
        ready.wait(CANCEL_TIMEOUT_S)
        if found:
            self.cancel_unstarted(found)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until no task is pending; False if it takes longer than the timeout in seconds."""
        with self.idle:
            return self.idle.wait_for(lambda: not self._inbox and not self._outstanding, timeout)

    def pending(self) -> int:
        """Tasks that have not ended."""
        return self._outstanding + len(self._inbox)

    def close(self, reason: BaseException, timeout_s: float) -> None:
        """End the run: pending futures fail with the reason; the interchange is told to stop."""
        if not self._thread.is_alive():
            self._fail_all(reason)
            return
        self.call(lambda: self._stop(reason))
        self._thread.join(timeout_s)

    # ---- the loop ---------------------------------------------------------------------------

    def _wake(self) -> None:
        self._asleep = False
        os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        self._letter.messages.append(
            Hello(VERSION, platform.python_version(), os.getpid(), self._connection.run_id, self._connection.epoch)
        )
        try:
            while not self._stopping:
                now = time.monotonic()
                self._take_inbox()
                self._dispatch(now)
                self._beat(now)
                self._asleep = True
                if self._inbox:
                    self._asleep = False
                    continue
                self._loop.turn((min(self._beat_at, self._acks_due) if self._acks else self._beat_at) - now)
                self._asleep = False
        except Exception as error:  # noqa: BLE001  the loop's top: everything pending must still end
            self._log.exception("the client loop ends because of a bug")
            self._fail_all(InterchangeLost(f"pilotflow's client loop failed: {error!r}; its log has more"))
        finally:
            self._take_inbox()
            self._fail_all(self._closed or RunClosed("the run was closed"))
            self._close_sockets()

    def _take_inbox(self) -> None:
        inbox, add = self._inbox, self._graph.add
        for _ in range(len(inbox)):
            item = inbox.popleft()
            if type(item) is not tuple:
                item()  # type: ignore[operator]
                continue
            future, task, frames, needs, retries = item
            if future._state != "PENDING":  # cancelled before we saw it
                continue
            if needs is None:
                add(future, task, frames, retries)
            else:
                self._add_with_needs(future, task, frames, needs, retries)
        self._outstanding = len(self._graph.pending)

    def _add_with_needs(
        self, future: AppFuture[Any], task: Task, frames: tuple[Any, ...], needs: list[Future[Any]], retries: int
    ) -> None:
        found: list[Packed | int] = []
        for need in needs:
            if not need.done():
                found.append(self._watch(need))
                continue
            packed = self._result_of(need, future)
            if packed is None:
                return
            found.append(packed)
        self._graph.add(future, task, frames, retries, found)

    def _watch(self, need: Future[Any]) -> int:
        """The number under which an unfinished dependency will supply its result."""
        if isinstance(need, AppFuture) and self._graph.pending.get(need.task_id) is need:
            return need.task_id
        number = next(self._foreign)
        self._foreign_names[number] = need
        need.add_done_callback(lambda _: self.call(lambda: self._foreign_done(number)))
        return number

    def _foreign_done(self, number: int) -> None:
        need = self._foreign_names.pop(number)
        try:
            packed = pack(need.result(0))
        except BaseException:  # noqa: BLE001  whatever that future's maker put into it
            self._fail_dependents(number, need)
        else:
            self._graph.supply(number, packed)

    def _result_of(self, need: Future[Any], future: AppFuture[Any]) -> Packed | None:
        """The packed result of a finished dependency; None if it failed, and the future with it."""
        packed = need.packed_result() if isinstance(need, AppFuture) else None
        if packed is not None:
            return packed
        try:
            return pack(need.result(0))
        except SerializationError as error:
            future.fail(SerializationError(f"the result that '{future.name}' needs cannot be sent to it: {error}"))
        except BaseException:  # noqa: BLE001  whatever the task raised
            future.fail(dependency_failed(need, future.name))
        return None

    def _dispatch(self, now: float) -> None:
        ready = self._graph.take_ready()
        if ready.tasks:
            self._letter_tasks(ready.tasks, ready.frames)
        if self._letter.messages or (self._acks and (len(self._acks) >= ACKS_MAX or now >= self._acks_due)):
            self._send_letter()
        elif resend := self._post.send({}):
            for _, header, frames in resend:
                self._channel.send(header, frames)
        if self._rows:
            if self._store is not None:
                self._store.tasks(self._rows)
            self._rows = []

    def _letter_tasks(self, tasks: list[Task], frames: list[Any]) -> None:
        at = 0
        for start in range(0, len(tasks), SUBMIT_MAX):
            part = tasks[start : start + SUBMIT_MAX]
            self._letter.messages.append(Submit(part))
            if frames:
                end = at + sum(sum(task.layout) for task in part)
                self._letter.frames += frames[at:end]
                at = end
            if start + SUBMIT_MAX < len(tasks):
                self._send_letter()

    def _send_letter(self) -> None:
        letter, self._letter = self._letter, Letter()
        if self._acks:
            letter.messages.append(AckResults(self._acks))
            self._acks = []
        for _, header, frames in self._post.send({_INTERCHANGE: letter}):
            self._channel.send(header, frames)

    def _beat(self, now: float) -> None:
        if now < self._beat_at:
            return
        late = now - self._beat_at > self._beat_s  # this process was stopped: hear first, then judge
        self._beat_at = now + self._beat_s
        if self.welcome.is_set():
            self._channel.send(self._post.sign_of_life(_INTERCHANGE, [ClientAlive()]), ())
            if not late and now - self._heard > self._connection.heartbeat_limit_s:
                self._interchange_lost(f"it has not answered for {now - self._heard:.0f} s")

    # ---- from the interchange ---------------------------------------------------------------

    def _hear(self, _: Hashable, header: Any, frames: Sequence[Any]) -> None:
        try:
            envelope = self._decode(header)
        except BadMessage as error:
            self._log.warning("dropped a message that is not ours: %s", error)
            return
        self._heard = time.monotonic()
        for messages, parts in self._post.receive(_INTERCHANGE, envelope, frames) or ():
            for one in messages:
                self._take(one, parts)

    def _take(self, message: Any, frames: Sequence[Any]) -> None:
        if isinstance(message, Results):
            at = 0
            for batch in message.batches:
                at = self._take_results(batch, frames, at)
            self._settle_idle()
        elif isinstance(message, Started):
            for id, _ in message.tasks:
                future = self._graph.pending.get(id)
                if future is not None:
                    future.begin()
        elif isinstance(message, Cancelled):
            self._take_cancelled(message)
        elif isinstance(message, (Load, ManagerUp, ManagerDown, SetupFailed)):
            self._listener(message)
        elif isinstance(message, Welcome):
            self.welcome.set()
        elif isinstance(message, Refused):
            self._interchange_lost(message.reason)
        elif isinstance(message, HelloAgain):
            self._interchange_lost("it has lost its memory")
        else:
            assert isinstance(message, InterchangeAlive)

    def _take_results(self, batch: ResultBatch, frames: Sequence[Any], at: int) -> int:
        graph, rows = self._graph, self._rows
        for result in batch.results:
            id, layout = result.id, result.layout
            parts: Sequence[Any] = ()
            if layout:
                n = sum(layout)
                parts = frames[at : at + n]
                at += n
            status = result.status
            future = graph.pending.get(id)
            if future is None:
                continue
            rows.append((id, future.fn, result.attempt, status, result.started_us, result.duration_us))
            if status is Status.ERROR and graph.retry(id, result.attempt):
                continue
            graph.finish(id)
            if graph.has_dependents(id):
                packed = Packed(result.payload, layout, tuple(parts)) if layout else Packed(result.payload)
                self._settle_with_dependents(id, future, status, packed)
            elif layout:  # mapped at once: descriptors are few, and futures may be many
                future.settle(status, Packed(result.payload, layout, tuple(map(buffer_of, parts))))
            else:
                future.settle(status, Packed(result.payload))
        if batch.manager:
            if not self._acks:
                self._acks_due = self._heard + ACK_DELAY_S
            self._acks.append((batch.manager, batch.seq))
        return at

    def _settle_with_dependents(self, id: int, future: AppFuture[Any], status: Status, packed: Packed) -> None:
        future.settle(status, packed)
        if status is Status.OK:
            self._graph.supply(id, packed)
        else:
            self._fail_dependents(id, future)

    def _fail_dependents(self, id: int, need: Future[Any]) -> None:
        failed: list[tuple[int, Future[Any]]] = [(id, need)]
        while failed:
            id, need = failed.pop()
            for dependent in self._graph.abandon(id):
                future = self._graph.finish(dependent)
                if future is not None:
                    future.fail(dependency_failed(need, future.name))
                    failed.append((dependent, future))

    def _settle_idle(self) -> None:
        self._outstanding = len(self._graph.pending)
        if not self._outstanding:
            with self.idle:
                self.idle.notify_all()

    # ---- cancelling -------------------------------------------------------------------------

    def _end(self, future: AppFuture[Any]) -> None:
        id = future.task_id
        if self._graph.pending.get(id) is not future:
            return
        waiting = self._graph.is_waiting(id)
        self._graph.finish(id)
        self._fail_dependents(id, future)
        if not waiting:
            self._letter.messages.append(CancelTasks(0, [id], running=True))
        self._settle_idle()

    def _ask(self, answer: _Answer) -> None:
        token = next(self._tokens)
        ask: list[int] = []
        for id, future in answer.futures.items():
            if self._graph.pending.get(id) is not future:
                continue
            if self._graph.is_waiting(id):
                self._graph.finish(id)
                future.withdraw()
                self._fail_dependents(id, future)
            else:
                ask.append(id)
        answer.missing = set(ask)
        if not ask:
            answer.done.set()
            return
        self._answers[token] = answer
        self._letter.messages.append(CancelTasks(token, ask, running=False))

    def _take_cancelled(self, message: Cancelled) -> None:
        answer = self._answers.get(message.token)
        if answer is None:
            return
        for id in message.ended:
            future = self._graph.finish(id)
            if future is not None:
                future.withdraw()
                self._fail_dependents(id, future)
        answer.missing.difference_update(message.ended, message.refused)
        if not answer.missing:
            del self._answers[message.token]
            answer.done.set()
        self._settle_idle()

    # ---- the end ----------------------------------------------------------------------------

    def _stop(self, reason: BaseException) -> None:
        self._closed = self._closed or reason
        self._letter.messages.append(Close())
        self._dispatch(time.monotonic())
        self._stopping = True

    def _interchange_lost(self, why: str) -> None:
        if self._stopping:
            return
        text = f"The run's interchange is lost: {why}. Its log is {self._connection.directory}/pilotflow.log."
        error = InterchangeLost(f"{text} Tasks that were pending have failed; a new run can be loaded.")
        self._closed = error
        self._stopping = True
        self._log.error("%s", text)
        self._listener(error)

    def _fail_all(self, error: BaseException) -> None:
        self._closed = self._closed or error
        pending = list(self._graph.pending.values())
        self._graph = Graph()
        while self._inbox:
            item = self._inbox.popleft()
            if type(item) is tuple:
                pending.append(item[0])
        for future in pending:
            future.fail(_copy(error))
        for answer in self._answers.values():
            answer.done.set()
        self.welcome.set()
        self._settle_idle()
        if self._rows and self._store is not None:
            self._store.tasks(self._rows)
            self._rows = []

    def _close_sockets(self) -> None:
        self._channel.close()
        self._loop.close()
        os.close(self._pidfd)


class _Answer:
    """A strict cancel that waits for the interchange."""

    def __init__(self, futures: Sequence[AppFuture[Any]]) -> None:
        self.futures = {future.task_id: future for future in futures}
        self.missing: set[int] = set(self.futures)
        self.done = threading.Event()


def _copy(error: BaseException) -> BaseException:
    """One for each future, so that their tracebacks do not grow together."""
    if isinstance(error, PilotflowError):
        return type(error)(*error.args)
    return error
