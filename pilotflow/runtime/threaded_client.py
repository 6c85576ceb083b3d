"""The client loop of a run with thread executors: tasks for threads stay here, all others go on as ever."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from pilotflow.context import RUNNING
from pilotflow.core.pace import Counts
from pilotflow.core.retry import Policy
from pilotflow.errors import RunClosed
from pilotflow.futures import AppFuture
from pilotflow.messages.client import Cancelled, CancelTasks
from pilotflow.messages.records import Result, ResultBatch, Task
from pilotflow.messages.views import ClientView
from pilotflow.runtime.client import Client
from pilotflow.runtime.thread_calls import give_streams_back
from pilotflow.runtime.threads import ThreadPool
from pilotflow.serialize import Packed


class ThreadedClient(Client):
    """A `Client` that has threads too.

    Args:
        threads: how many each thread executor has, by label.
        others: the same as of a `Client`.
    """

    def __init__(self, threads: Mapping[str, int], *others: Any) -> None:
        super().__init__(*others)
        self.definitions.keep_for(threads)
        self._ended: list[tuple[Result, Sequence[Any]]] = []
        self._ended_lock = threading.Lock()
        self._unwanted: set[int] = set()  # cancelled before the pools have heard of them
        self._claiming = threading.Lock()  # over that, and what comes into the pools
        self._pools = {
            label: ThreadPool(label, most, self.definitions, self._connection, self._begun, self._done)
            for label, most in threads.items()
        }

    # ---- for user threads -------------------------------------------------------------------

    def submit(
        self,
        future: AppFuture[Any],
        fn: int,
        cls: int,
        packed: Packed,
        needs: list[Future[Any]] | None = None,
        policy: Policy | None = None,
    ) -> None:
        """As `Client.submit`.

        Raises:
            RunClosed: called by a task in a thread: tasks cannot submit tasks, there as little as elsewhere.
        """
        _check_not_in_task(future)
        super().submit(future, fn, cls, packed, needs, policy)

    def submit_many(
        self,
        calls: Sequence[tuple[AppFuture[Any], Packed, list[Future[Any]] | None]],
        fn: int,
        cls: int,
        policy: Policy | None,
    ) -> None:
        """As `Client.submit_many`."""
        if calls:
            _check_not_in_task(calls[0][0])
        super().submit_many(calls, fn, cls, policy)

    def may_cancel(self, future: AppFuture[Any]) -> bool:
        """Whether the task can be ended: a function that runs in a thread cannot."""
        with self._claiming:
            pool = self._pool_of(future.task_id)
            if pool is None:
                self._unwanted.add(future.task_id)
        if pool is None or pool.may_end(future.task_id):
            return True
        self._log.warning(
            "not cancelled: what runs %s This goes on: task %s (%s)", _NOT_KILLED, future.task_id, future.name
        )
        return False

    def cancel(self, future: AppFuture[Any]) -> None:
        """As `Client.cancel`."""
        super().cancel(future)
        self.call(lambda: self._unwanted.discard(future.task_id))

    def counts(self, leased: int) -> Counts:
        """As `Client.counts`, with what runs in threads."""
        return super().counts(leased + sum(pool.running for pool in self._pools.values()))

    # ---- the loop ---------------------------------------------------------------------------

    def _hand_on(self, tasks: list[Task], frames: list[Any]) -> None:
        """Give threads what is theirs, and the others to the interchange."""
        rest: list[Task] = []
        rest_frames: list[Any] = []
        at = 0
        for task in tasks:
            end = at + sum(task.layout)
            parts, at = frames[at:end], end
            request, executors = self.definitions.meaning(task.cls)
            pool = self._pools.get(executors[0]) if executors else None
            if pool is not None:
                with self._claiming:  # a function that has begun cannot be ended any more
                    if task.id not in self._unwanted and task.id in self._book.graph.pending:
                        pool.submit(_copy(task), parts, request)
            else:
                rest.append(task)
                rest_frames += parts
        if rest:
            super()._hand_on(rest, rest_frames)

    def _pool_of(self, id: int) -> ThreadPool | None:
        return next((pool for pool in self._pools.values() if pool.has(id)), None)

    def _say_of_tasks(self, message: Any) -> None:
        self._mail_ready()
        if isinstance(message, CancelTasks):
            message = self._cancel_here(message)
        if message is not None:
            self._mail.add(message)

    def _cancel_here(self, message: CancelTasks) -> CancelTasks | None:
        """End what is in threads; what is left for the interchange to end."""
        left: list[int] = []
        ended: list[int] = []
        refused: list[int] = []
        for id in message.ids:
            pool = self._pool_of(id)
            if pool is None:
                left.append(id)
            elif message.running:
                pool.end(id)
            else:
                (ended if pool.withdraw(id) else refused).append(id)
        if message.running or not (ended or refused):
            return message if len(left) == len(message.ids) else _about(message, left)
        if left:
            self._mail.add(_about(message, left))
        self._book.take_cancelled(Cancelled(message.token, ended, refused))
        return None

    def _view(self, asked: str) -> ClientView:
        view = super()._view(asked)
        places = (pool.where(view.subject.task) for pool in self._pools.values())
        place = next((place for place in places if place is not None), None)
        return view if place is None else msgspec.structs.replace(view, here=place[0], runs_here=place[1])

    def _fail_all(self, error: BaseException) -> None:
        self._end_threads("ended")
        super()._fail_all(error)
        for pool in self._pools.values():
            pool.close()
        give_streams_back()

    def _end_threads(self, how: str) -> list[int]:
        """End all that threads have, but for functions that run: these go on, and that is said."""
        going_on = [id for pool in self._pools.values() for id in pool.end_all()]
        if going_on:
            pending = self._book.graph.pending
            named = (f"{id} ({pending[id].name})" for id in going_on if id in pending)
            self._log.warning("not %s: what runs %s These go on: task %s", how, _NOT_KILLED, ", ".join(named))
        return going_on

    def _cancel_all(self) -> int:
        self._mail_ready()
        return self._book.cancel_all(self._end_threads("cancelled"))

    # ---- from threads -----------------------------------------------------------------------

    def _begun(self, id: int) -> None:
        future = self._book.graph.pending.get(id)
        if future is not None:
            future.begin()

    def _done(self, result: Result, frames: Sequence[Any]) -> None:
        with self._ended_lock:
            self._ended.append((result, frames))
            first = len(self._ended) == 1
        if first:  # the loop takes all that are there
            self.call(self._take_ended)

    def _take_ended(self) -> None:
        with self._ended_lock:
            ended, self._ended = self._ended, []
        frames = [frame for _, parts in ended for frame in parts]
        self._book.take_results(ResultBatch(0, 0, [result for result, _ in ended]), frames, 0)
        self._settle_idle()


_NOT_KILLED: Final = (
    "in threads of the program cannot be killed. Bind what may have to be ended to an executor with processes "
    "(ExecutorConfig)."
)


def _check_not_in_task(future: AppFuture[Any]) -> None:
    if RUNNING.get() is not None:
        raise RunClosed(
            f"app '{future.name}' was called inside a task, and tasks cannot submit tasks. Call the plain function "
            "there, or return what the next app needs and call it in the program."
        )


def _about(message: CancelTasks, ids: list[int]) -> CancelTasks | None:
    return CancelTasks(message.token, ids, message.running) if ids else None


def _copy(task: Task) -> Task:
    """The graph may try a task again, and changes it then."""
    return Task(task.id, task.attempt, task.fn, task.cls, task.payload, task.layout)
