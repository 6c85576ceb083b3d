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
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from pilotflow.core.beats import InterchangeWatch
from pilotflow.core.block_records import BlockInfo, Outlook
from pilotflow.core.retry import Policy
from pilotflow.errors import InterchangeLost, RunClosed, SerializationError
from pilotflow.future_errors import copied
from pilotflow.futures import AppFuture
from pilotflow.ids import VERSION
from pilotflow.messages.client import (
    Cancelled,
    CancelTasks,
    Close,
    Crashed,
    Hello,
    HelloAgain,
    Instruction,
    InterchangeAlive,
    Load,
    LookUp,
    ManagerDown,
    ManagerUp,
    Notice,
    Results,
    SetupFailed,
    Started,
    TaskView,
    Welcome,
)
from pilotflow.messages.records import ForgetFunctions, Refused, Task
from pilotflow.messages.views import ClientView
from pilotflow.own_pid import OWN_PID
from pilotflow.runtime import own_threads
from pilotflow.runtime.body_threads import BodyThreads
from pilotflow.runtime.client_calls import ClientCalls, LocalSubmission
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.definitions import Definitions
from pilotflow.runtime.local_book import LocalBook
from pilotflow.runtime.lookup import with_blocks
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.mailbox import Mailbox
from pilotflow.runtime.process_end import ProcessEnd
from pilotflow.runtime.store import Store
from pilotflow.serialize import Packed

Listener: TypeAlias = Callable[[Any], None]
_Submission: TypeAlias = tuple[AppFuture[Any], Task, tuple[Any, ...], "list[Future[Any]] | None", "Policy | None"]


class Client(ClientCalls):
    """One run's loop, its thread, and what user threads may ask of it.

    Args:
        connection: where the interchange is.
        interchange_pid: its process, watched for its death.
        listener: called in the loop's thread with each `Load`, `ManagerUp`, `ManagerDown`, `SetupFailed`
            and `LookUp` (which it must `answer`), and last with the `InterchangeLost` that ended the run.
        store: where ended tasks are recorded, or None.
        log: the run's log.

    Attributes:
        definitions: functions and request classes that tasks name by number.
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
        self.definitions = Definitions(self.say, store, lambda fns: self.call(lambda: self._forget(fns)))
        self._inbox: deque[_Submission | Callable[[], None]] = deque()
        self._asleep = False
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closed: BaseException | None = None
        self._lost: InterchangeLost | None = None
        self._pid = OWN_PID.value
        weakref.finalize(self, os.close, self._wake_fd)
        self.welcome = threading.Event()
        self._idle = threading.Condition()
        self._idlers = 0  # threads that wait for that
        self._outstanding = 0
        self._taken = 0  # out of the inbox, perhaps not in the book yet
        self._has_ended = False  # the loop; nobody looks into the inbox any more
        self._watch = InterchangeWatch(connection.heartbeat_limit_s)
        self._stopping = False
        self._loop = Loop()
        self._mail = Mailbox(self._loop, connection, self._take, lambda: self._interchange_lost("it has hung up"), log)
        limit = connection.max_message_bytes
        self._book = LocalBook(self._say_of_tasks, self.call, limit, self.definitions.narrowed)
        self._threads = BodyThreads(log)
        self._loop.add_bell(self._wake_fd)
        self._interchange_end = ProcessEnd(interchange_pid)
        self._loop.add(self._interchange_end.fileno(), lambda: self._interchange_lost("its process has ended"))
        self._thread = threading.Thread(target=self._run, name="pilotflow-client", daemon=True)

    def start(self) -> None:
        """Start the loop's thread."""
        own_threads.start(self._thread)

    # ---- for user threads -------------------------------------------------------------------

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
        policy: Policy | None = None,
    ) -> None:
        """Submit a task. Its future fails if its arguments are too big.

        Raises:
            RunClosed, InterchangeLost: the run takes no more tasks.
        """
        if self._closed is not None or OWN_PID.value != self._pid:
            self.check_open()
        limit = self._connection.max_message_bytes
        if packed.layout and packed.nbytes > limit:
            text = f"the arguments of '{future.name}' have {packed.nbytes} bytes, more than max_message_bytes={limit}"
            future.fail(SerializationError(f"{text}; raise that limit, or pass them as a file"))
            return
        task = Task(future.task_id, 0, fn, cls, packed.payload, packed.layout)
        self._inbox.append((future, task, packed.frames, needs, policy))
        if self._asleep:
            self._wake()
        if self._closed is not None:  # meanwhile, and perhaps nobody looks into the inbox any more
            future.fail(self._closed)

    def submit_many(
        self,
        calls: Sequence[tuple[AppFuture[Any], Packed, list[Future[Any]] | None]],
        fn: int,
        cls: int,
        policy: Policy | None,
    ) -> None:
        """Submit calls of one function, as `submit` does: future, arguments and needs of each."""
        self.check_open()
        small: list[_Submission] = []
        for future, packed, needs in calls:
            if packed.layout:  # these keep their turn
                self._inbox.extend(small)
                small.clear()
                self.submit(future, fn, cls, packed, needs, policy)
            else:
                small.append((future, Task(future.task_id, 0, fn, cls, packed.payload), (), needs, policy))
        self._inbox.extend(small)
        if self._asleep:
            self._wake()
        if self._closed is not None:
            for future, _, _ in calls:
                future.fail(self._closed)

    @property
    def failure(self) -> BaseException | None:
        """Why it takes no more tasks, if so."""
        return self._closed

    def check_open(self) -> None:
        """See that tasks can be submitted.

        Raises:
            RunClosed, InterchangeLost, InitializerFailed: why they cannot.
        """
        if isinstance(self._closed, RunClosed):
            raise RunClosed(f"run {self._connection.run_id} is closed and takes no more tasks: start another run")
        if self._closed is not None:
            raise copied(self._closed)
        if OWN_PID.value != self._pid:
            raise RunClosed("This process was forked from the one that started the run; start another run here.")

    def break_with(self, error: BaseException) -> None:
        """Take no more tasks and fail those that are pending; called in the loop's thread."""
        self._closed = error
        ids = list(self._book.graph.pending)
        if ids:
            self._mail.add(CancelTasks(0, ids, running=True))
        self._fail_all(error)

    def say(self, message: Any) -> None:
        """Send the interchange a message."""
        self.call(lambda: self._mail.add(message))

    def _forget(self, fns: list[int]) -> None:
        """Nobody submits tasks of these functions any more: those of which none is pending are forgotten everywhere."""
        gone = self.definitions.drop(fns, {future.fn for future in self._book.graph.pending.values()})
        if gone:
            self._mail.add(ForgetFunctions(sorted(gone)))

    def answer(self, question: LookUp, blocks: Sequence[BlockInfo], outlooks: Sequence[Outlook]) -> None:
        """Say what is known of a task, of these blocks and of what becomes of them; called in the loop's thread."""
        self._take_inbox()  # it may be about a task that was submitted just now
        try:
            view = with_blocks(self._view(question.task), blocks, outlooks, time.monotonic())
        except Exception:  # noqa: BLE001  a question must not end the run; without an answer it is said that there is none
            self._log.exception("cannot tell what is known of task %s", question.task)
        else:
            self._say_of_tasks(TaskView(question.token, view))

    def _view(self, asked: str) -> ClientView:
        return self._book.look_up(asked)

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
        run_id, epoch = self._connection.run_id, self._connection.epoch
        self._mail.add(Hello(VERSION, platform.python_version(), os.getpid(), run_id, epoch, os.urandom(16)))
        try:
            while not self._stopping:
                now = time.monotonic()
                self._take_inbox()
                self._dispatch(now)
                self._beat(now)
                if now >= self._book.tries.due_at:
                    self._book.tries.resume(now)
                if now >= self._threads.due_at:
                    self._threads.grow(now)
                self._asleep = True
                if self._inbox:
                    self._asleep = False
                    continue
                due_at = min(self._watch.due_at, self._mail.due_at, self._book.tries.due_at, self._threads.due_at)
                self._loop.turn(due_at - now)
                self._asleep = False
        except BaseException as error:  # noqa: BLE001  the loop's top: everything pending must still end
            self._log.exception("the client loop ends because of a bug")
            self._lost = InterchangeLost(f"pilotflow's client loop failed: {error!r}; its log has more")
            self._closed = self._closed or self._lost
        try:
            self._take_inbox()
            self._fail_all(self._closed or RunClosed("the run was closed"))
            self._close_sockets()
        finally:
            with self._idle:
                self._has_ended = True
                self._idle.notify_all()
            if self._lost is not None:  # told last: what was heard before has been recorded
                self._listener(self._lost)

    def _take_inbox(self) -> None:
        inbox, add = self._inbox, self._book.add
        count = len(inbox)
        self._outstanding = len(self._book) + count  # never too small, for those who wait until idle
        self._taken = count
        for _ in range(count):
            item = inbox.popleft()
            if type(item) is tuple:
                add(*item)
            else:
                item()  # type: ignore[operator]
        self._taken = 0
        self._settle_idle()

    def _dispatch(self, now: float) -> None:
        self._mail_ready()
        self._mail.send(now)
        self._record()

    def _mail_ready(self) -> None:
        ready = self._book.graph.take_ready()
        while ready.local:
            self._book.begin_local(ready.local)
            if ready.tasks:
                self._hand_on(ready.tasks, ready.frames)
            ready = self._book.graph.take_ready()
        if ready.tasks:
            self._hand_on(ready.tasks, ready.frames)

    def _hand_on(self, tasks: list[Task], frames: list[Any]) -> None:
        self._mail.add_tasks(tasks, frames)

    def _say_of_tasks(self, message: Any) -> None:
        """Send a message about tasks: after the tasks, which may be as new as it is."""
        self._mail_ready()
        self._mail.add(message)

    def _record(self) -> None:
        rows = self._book.rows
        if rows:
            if self._store is not None:
                self._store.tasks(rows)
            self._book.rows = []
        ends = self._book.ends.rows
        if ends:
            if self._store is not None:
                self._store.ends(ends)
            self._book.ends.rows = []

    def _beat(self, now: float) -> None:
        if self._outstanding:
            self._watch.hurry(now)
        if now < self._watch.due_at:
            return
        silent_s = self._watch.ask(now, self._mail.heard_at, at_stake=self._outstanding > 0)
        if self.welcome.is_set():
            self._mail.send_sign_of_life()
            if silent_s:
                self._interchange_lost(f"it has not answered for {silent_s:.0f} s")

    # ---- from the interchange ---------------------------------------------------------------

    def _take(self, message: Any, frames: Sequence[Any]) -> None:
        if isinstance(message, Results):
            at = 0
            for batch in message.batches:
                at = self._book.take_results(batch, frames, at)
                if batch.manager:
                    self._mail.acknowledge(batch.manager, batch.seq)
            self._settle_idle()
        elif isinstance(message, Started):
            self._book.begin(message.tasks)
        elif isinstance(message, Crashed):
            for crash in message.attempts:
                self._book.graph.crashed(*crash)
        elif isinstance(message, Cancelled):
            self._book.take_cancelled(message)
            self._settle_idle()
        elif isinstance(message, (Load, ManagerUp, ManagerDown, SetupFailed, Notice, LookUp, Instruction)):
            self._listener(message)
        elif isinstance(message, Welcome):
            self.welcome.set()
        elif isinstance(message, Refused):
            self._interchange_lost(message.reason)
        elif isinstance(message, HelloAgain):
            self._interchange_lost("it has lost its memory")
        else:
            assert isinstance(message, InterchangeAlive)

    # ---- the end ----------------------------------------------------------------------------

    def _stop(self, reason: BaseException) -> None:
        self._closed = self._closed or reason
        self._mail.add(Close())
        self._dispatch(time.monotonic())
        self._stopping = True

    def _interchange_lost(self, why: str) -> None:
        if self._stopping:
            return
        text = f"The run's interchange is lost: {why}. Its log is {self._connection.directory}/pilotflow.log."
        error = InterchangeLost(f"{text} Tasks that were pending have failed; a new run can be loaded.")
        self._closed = self._lost = error
        self._stopping = True
        self._log.error("%s", text)

    def _fail_all(self, error: BaseException) -> None:
        self._closed = self._closed or error
        waiting: list[AppFuture[Any]] = []
        while self._inbox:
            item = self._inbox.popleft()
            if type(item) is tuple:
                waiting.append(item[0])
            elif isinstance(item, LocalSubmission):
                waiting.append(item.future)
        self._book.fail_all(error, waiting)
        self.welcome.set()
        self._settle_idle()
        self._record()

    def _close_sockets(self) -> None:
        self._threads.close()
        self._mail.close()
        self._loop.close()
        self._interchange_end.close()
