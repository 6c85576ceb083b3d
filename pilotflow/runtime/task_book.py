"""What the client knows of its tasks: their futures, and who waits for whose result.

Used by the client loop's thread only. It settles futures and collects what must be said to the
interchange in `say`; the loop (`client.py`) sends it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from pilotflow.core.graph import Graph, Kept
from pilotflow.core.pace import Counts
from pilotflow.core.retry import Policy
from pilotflow.errors import ConfigError, SerializationError
from pilotflow.future_errors import copied, dependency_failed, failure_of, too_long
from pilotflow.futures import AppFuture
from pilotflow.memfile import keepable
from pilotflow.messages.client import Cancelled, CancelTasks
from pilotflow.messages.records import Result, ResultBatch, Status, Task
from pilotflow.messages.views import ClientView
from pilotflow.remote_errors import pack_as_value
from pilotflow.runtime.ends import Ends
from pilotflow.runtime.lookup import look_up
from pilotflow.runtime.store import TaskRow
from pilotflow.runtime.tries import Tries
from pilotflow.serialize import Packed, pack
from pilotflow.units import format_duration


class Answer:
    """A strict cancel of these tasks, which waits for the interchange's word."""

    def __init__(self, futures: Sequence[AppFuture[Any]]) -> None:
        self.futures = {future.task_id: future for future in futures}
        self.missing: set[int] = set(self.futures)
        self.done = threading.Event()


class TaskBook:
    """All pending tasks of a run.

    Args:
        say: adds a message to the next letter to the interchange.
        call: has the loop's thread do something, from any thread.
        max_bytes: the run's `max_message_bytes`.
        narrowed: the request class that is like another, with that many seconds left of the timeout.

    Attributes:
        graph: the pending tasks and their dependencies.
        rows: ended attempts, to be recorded.
        ends: those of tasks that have not ended well, in words.
        retried: attempts whose task was tried again.
        attempts: how many attempts have ended, counted before their futures end: who sees one end sees it counted.
        concluded: tasks that ended well without an attempt.
        tries: pauses before tasks are tried again.
    """

    def __init__(
        self,
        say: Callable[[Any], None],
        call: Callable[[Callable[[], None]], None],
        max_bytes: int | None = None,
        narrowed: Callable[[int, float], int] = lambda cls, _: cls,
    ) -> None:
        self._max_bytes = max_bytes
        self.graph: Graph[AppFuture[Any]] = Graph(max_bytes=max_bytes)
        self.rows: list[TaskRow] = []
        self.ends = Ends()
        self.retried = 0
        self.attempts = 0
        self.concluded = 0
        self._say = say
        self._call = call
        self.tries = Tries(lambda id, cls: call(lambda: self.graph.submit_again(id, cls)), narrowed)
        self._foreign_ids = itertools.count(-1, -1)
        self._foreign: dict[int, Future[Any]] = {}
        self._tokens = itertools.count(1)
        self._answers: dict[int, Answer] = {}

    def __len__(self) -> int:
        return len(self.graph.pending)

    def counts(self, pending: int, leased: int) -> Counts:
        """How many tasks have ended and how; from any thread, a moment old.

        Nothing is counted for this where each task passes.

        Args:
            pending: how many have not ended.
            leased: how many are with managers, by the last report.
        """
        ends, running = self.ends, min(leased, pending)
        done = self.attempts - self.retried - ends.by_result + self.concluded
        return Counts(max(0, done), ends.failed, ends.cancelled, running, pending - running)

    # ---- new tasks --------------------------------------------------------------------------

    def add(
        self,
        future: AppFuture[Any],
        task: Task,
        frames: tuple[Any, ...],
        needs: list[Future[Any]] | None,
        policy: Policy | None,
    ) -> None:
        """A task was submitted; `needs` are futures whose results it takes."""
        if future.done():  # cancelled before we saw it
            return
        if needs is None:
            self.graph.add(future, task, frames, policy=policy)
            return
        found: list[Packed | int] = []
        for need in needs:
            if not need.done():
                found.append(self._watch(need))
                continue
            packed = self._result_of(need, future, policy is not None and policy.allow_failed)
            if packed is None:
                return
            found.append(packed)
        self.graph.add(future, task, frames, needs=found, policy=policy)
        self._fail_oversized()

    def _watch(self, need: Future[Any]) -> int:
        """The number under which an unfinished dependency will supply its result."""
        if isinstance(need, AppFuture) and self.graph.pending.get(need.task_id) is need:
            return need.task_id
        number = next(self._foreign_ids)
        self._foreign[number] = need
        need.add_done_callback(lambda _: self._call(lambda: self._foreign_done(number)))
        return number

    def _foreign_done(self, number: int) -> None:
        need = self._foreign.pop(number)
        try:
            value = need.result(0)
            packed = pack(value if self.graph.feeds_workers(number) else None)
        except BaseException as error:  # noqa: BLE001  whatever that future's maker put into it
            self._fail_dependents(number, need, error)
        else:
            self.graph.supply(number, packed)
            self._fail_oversized()

    def _result_of(self, need: Future[Any], future: AppFuture[Any], allow_failed: bool) -> Packed | None:
        """The packed result of a finished dependency; None if it failed, and the future with it."""
        packed = need.packed_for(future) if isinstance(need, AppFuture) else None
        if packed is not None:
            return packed
        try:
            value = need.result(0)
        except BaseException as error:  # noqa: BLE001  whatever the task raised
            if allow_failed:
                return pack_as_value(error)
            future.fail(dependency_failed(need, future))
            self.ends.of(future)
            return None
        try:
            return pack(value)
        except SerializationError as error:
            future.fail(SerializationError(f"the result that '{future.name}' needs cannot be sent to it: {error}"))
            self.ends.of(future)
        return None

    def look_up(self, asked: str) -> ClientView:
        """What is known of the pending task with this number or name."""
        return look_up(asked, self.graph, self._foreign, self._here, self.tries.paused())

    def _here(self, id: int) -> tuple[str, bool]:
        """What this program does about a task, in words, and whether it runs it."""
        left_s, kept = self.tries.left_s(id), self.graph.kept(id)
        if left_s is None or kept is None:
            return "", False
        return f"Try {kept.tries - 1} of it has failed. It is tried again in {format_duration(left_s)}.", False

    # ---- results ----------------------------------------------------------------------------

    def take_results(self, batch: ResultBatch, frames: Sequence[Any], at: int) -> int:
        """Settle the futures of a batch, whose payload frames begin at `at`; returns where they end."""
        graph, rows = self.graph, self.rows
        self.attempts += len(batch.results)
        for result in batch.results:
            id, layout = result.id, result.layout
            parts: Sequence[Any] = ()
            if layout:
                n = sum(layout)
                parts = frames[at : at + n]
                at += n
            future = graph.pending.get(id)
            if future is None:
                self.attempts -= 1
                continue
            status = result.status
            rows.append(
                (
                    id,
                    future.fn,
                    result.attempt,
                    status,
                    result.started_us,
                    result.duration_us,
                    batch.manager,
                    result.cpu_us,
                    result.peak_bytes,
                    result.exit_code,
                    result.cores,
                    result.gpus,
                )
            )
            if status and self._again(future, result, parts):
                continue
            graph.finish(id)
            if graph.has_dependents(id):
                packed = Packed(result.payload, layout, tuple(parts)) if layout else Packed(result.payload)
                future.settle(status, packed)
                if status is Status.OK:
                    graph.supply(id, packed)
                    self._fail_oversized()
                else:
                    self._fail_dependents(id, future)
            elif layout:
                future.settle(status, Packed(result.payload, layout, tuple(map(keepable, parts))))
            else:
                future.settle(status, Packed(result.payload))
            if status:
                self.ends.of_result(future, status, Packed(result.payload, layout, tuple(parts)))
        return at

    def _again(self, future: AppFuture[Any], result: Result, parts: Sequence[Any]) -> bool:
        """Whether a task that has failed goes on, because it is tried again."""
        kept = self.graph.kept(result.id)
        if kept is None or kept.policy is None:
            return False
        packed = Packed(result.payload, result.layout, tuple(parts))
        try:
            pause = self.tries.pause_s(
                kept, kept.policy, future.name, result, lambda: failure_of(future, result.status, packed)
            )
        except ConfigError as error:
            self.graph.finish(result.id)
            future.fail(error)
            self.ends.of(future, by_result=True)
            self._fail_dependents(result.id, future)
            return True
        if pause is None:
            return False
        self._try_again(kept, result.attempt, pause)
        return True

    def _try_again(self, kept: Kept, attempt: int, pause: float) -> None:
        self.retried += 1
        self.graph.count_try(kept, attempt)
        self.tries.submit(kept, pause)

    def begin(self, tasks: Sequence[tuple[int, int]]) -> None:
        """These attempts are running."""
        for id, _ in tasks:
            future = self.graph.pending.get(id)
            if future is not None:
                future.begin()

    def _fail_dependents(self, id: int, need: Future[Any], error: BaseException | None = None) -> None:
        failed: list[tuple[int, Future[Any]]] = [(id, need)]
        while failed:
            id, need = failed.pop()
            if tolerant := self.graph.take_tolerant(id):
                self.graph.supply_to(tolerant, pack_as_value(_failure_of(need) or error or CancelledError()))
            for dependent in self.graph.abandon(id):
                future = self.graph.finish(dependent)
                if future is not None:
                    future.fail(dependency_failed(need, future, error, self._did(future)))
                    self._drop(dependent)
                    self.ends.of(future)
                    failed.append((dependent, future))

    # What `LocalBook` knows better, of tasks that run in this program.

    def _did(self, future: AppFuture[Any]) -> str:
        """What a task did whose dependency has failed."""
        return "did not run"

    def _is_here(self, id: int) -> bool:
        """Whether the interchange does not have the task."""
        return self.graph.is_waiting(id)

    def _drop(self, id: int) -> None:
        """A task has ended before it could end by itself."""

    def _fail_oversized(self) -> None:
        """Fail tasks whose arguments have become too long with the results that they need."""
        for task in self.graph.take_oversized():
            future = self.graph.finish(task.id)
            if future is not None:
                future.fail(too_long(future.name, task, self._max_bytes))
                self.ends.of(future)
                self._fail_dependents(task.id, future)

    def conclude(self, future: AppFuture[Any], end: tuple[Status, Packed] | BaseException) -> None:
        """A task that waits here ends with this, without having run."""
        if self.graph.pending.get(future.task_id) is not future:  # cancelled meanwhile
            return
        self.graph.finish(future.task_id)
        if isinstance(end, BaseException):
            future.fail(end)
        else:
            self.concluded += end[0] is Status.OK
            future.settle(*end)
            if end[0] is Status.OK:
                self.graph.supply(future.task_id, end[1])
                self._fail_oversized()
                return
        self.ends.of(future)
        self._fail_dependents(future.task_id, future)

    # ---- cancelling -------------------------------------------------------------------------

    def end(self, future: AppFuture[Any]) -> None:
        """A future was cancelled: end its task, running or not."""
        id = future.task_id
        if self.graph.pending.get(id) is not future:
            return
        here = self._is_here(id)
        self.graph.finish(id)
        self._drop(id)
        self.ends.of(future)
        self._fail_dependents(id, future)
        if not here:
            self._say(CancelTasks(0, [id], running=True))

    def cancel_all(self, spared: Sequence[int] = ()) -> int:
        """Cancel every task but these, running or not; returns how many were cancelled."""
        graph, count = self.graph, 0
        ask: list[int] = []
        pending = [(id, future) for id, future in graph.pending.items() if id not in spared]
        for id, _ in pending:
            if not self._is_here(id):
                ask.append(id)
            graph.finish(id)
        for id, future in pending:
            count += future.withdraw()
            self._drop(id)
            self.ends.of(future)
            graph.abandon(id)
        if ask:
            self._say(CancelTasks(0, ask, running=True))
        return count

    def cancel_unstarted(self, answer: Answer) -> None:
        """Cancel those of these tasks that have not started."""
        token = next(self._tokens)
        ask: list[int] = []
        for id, future in answer.futures.items():
            if self.graph.pending.get(id) is not future:
                continue
            if self._is_here(id):
                self._withdraw(id)
            else:
                ask.append(id)
        answer.missing = set(ask)
        if not ask:
            answer.done.set()
            return
        self._answers[token] = answer
        self._say(CancelTasks(token, ask, running=False))

    def take_cancelled(self, message: Cancelled) -> None:
        """The interchange's answer to `cancel_unstarted`, or part of it."""
        answer = self._answers.get(message.token)
        if answer is None:
            return
        for id in message.ended:
            self._withdraw(id)
        answer.missing.difference_update(message.ended, message.refused)
        if not answer.missing:
            del self._answers[message.token]
            answer.done.set()

    def _withdraw(self, id: int) -> None:
        future = self.graph.finish(id)
        if future is not None:
            future.withdraw()
            self._drop(id)
            self.ends.of(future)
            self._fail_dependents(id, future)

    # ---- the end ----------------------------------------------------------------------------

    def fail_all(self, error: BaseException, others: Sequence[AppFuture[Any]] = ()) -> None:
        """Nothing can end any more: fail every pending future, and these."""
        pending = [*self.graph.pending.values(), *others]
        self.graph = Graph(max_bytes=self._max_bytes)
        for future in pending:
            self._drop(future.task_id)
            future.fail(copied(error))
            self.ends.of(future)
        for answer in self._answers.values():
            answer.done.set()


def _failure_of(need: Future[Any]) -> BaseException | None:
    return None if need.cancelled() else need.exception(0)
