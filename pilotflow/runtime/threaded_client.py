"""The client loop of a run with thread executors: tasks for threads stay here, all others go on as ever."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from pilotflow.context import RUNNING
from pilotflow.core.pace import Counts
from pilotflow.core.retry import Policy
from pilotflow.errors import RunClosed
from pilotflow.futures import AppFuture
from pilotflow.messages import Cancelled, CancelTasks, Result, ResultBatch, Task
from pilotflow.questions import ClientView
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
        if all(pool.can_end(future.task_id) for pool in self._pools.values()):
            return True
        self._log.warning(
            "task %s (%s) was not cancelled: it runs in a thread of the program, and threads cannot be killed. "
            "Bind it to an executor with processes to be able to end it.",
            future.task_id,
            future.name,
        )
        return False

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
                pool.submit(_copy(task), parts, request)
            else:
                rest.append(task)
                rest_frames += parts
        if rest:
            super()._hand_on(rest, rest_frames)

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
            pool = next((pool for pool in self._pools.values() if pool.has(id)), None)
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
        going_on = sum(pool.end_all() for pool in self._pools.values())
        if going_on:
            self._log.warning(
                "%d tasks go on in threads of the program, which cannot be killed; their results are dropped", going_on
            )
        super()._fail_all(error)
        give_streams_back()

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
