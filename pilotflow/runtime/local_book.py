"""Tasks that run in the user's program itself: they wait for others, are tried again and cancelled as all tasks are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol

from pilotflow.core.graph import LOCAL
from pilotflow.core.retry import Policy
from pilotflow.errors import ConfigError, SerializationError
from pilotflow.future_errors import dependency_failed
from pilotflow.futures import AppFuture
from pilotflow.messages.records import Result, Status
from pilotflow.runtime.task_book import TaskBook
from pilotflow.serialize import Packed, pack
from pilotflow.units import format_duration

_NOTHING: Final = Packed(b"")
"""Stands for a result that only tasks in this program wait for, who look at its future."""


class LocalWork(Protocol):
    """What a task in the user's program does. Called in the client loop's thread; must not wait."""

    def begin(self) -> None:
        """All that it needs has ended; called once more after each `wait_local`."""

    def cancel(self) -> None:
        """Nobody wants its result any more."""


class LocalBook(TaskBook):
    """A task book that also has tasks which run in this program."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._local: dict[int, LocalWork] = {}
        self._begun: dict[int, float] = {}

    def add_local(
        self, future: AppFuture[Any], work: LocalWork, needs: Sequence[Future[Any]], policy: Policy | None
    ) -> None:
        """A task was submitted that runs here once all these have ended."""
        if future.done():
            return
        found = self._unfinished(future, needs, policy is not None and policy.allow_failed)
        if found is not None:
            self._local[future.task_id] = work
            self.graph.add_local(future, future.task_id, found, policy)

    def begin_local(self, ids: Sequence[int]) -> None:
        """These have all that they need."""
        for id in ids:
            future, work = self.graph.pending.get(id), self._local.get(id)
            if future is not None and work is not None:
                self._begun.setdefault(id, time.monotonic())
                future.begin()
                work.begin()

    # ---- how they end -----------------------------------------------------------------------

    def wait_local(self, future: AppFuture[Any], needs: Sequence[Future[Any]]) -> None:
        """It has run, and ends when these have; then its work is told again."""
        id = future.task_id
        if self.graph.pending.get(id) is not future:
            return
        found = self._unfinished(future, needs, False)
        if found is None:
            self._close(id)
            self._fail_dependents(id, future)
        else:
            self.graph.wait_again(id, found)

    def end_local(self, future: AppFuture[Any], value: Any) -> None:
        """It has this result."""
        id = future.task_id
        if self.graph.pending.get(id) is not future:
            return
        self._record(future, Status.OK)
        self._close(id)
        future.give(value)
        if not self.graph.has_dependents(id):
            return
        try:
            packed = pack(value) if self.graph.feeds_workers(id) else _NOTHING
        except SerializationError as error:
            self._fail_dependents(id, future, error)
        else:
            self.graph.supply(id, packed)
            self._fail_oversized()

    def end_local_as(self, future: AppFuture[Any], other: AppFuture[Any]) -> None:
        """Its result is that of another task, which has ended well; it goes on as it came."""
        packed = other.packed_result()
        if packed is None:
            self.end_local(future, other.result(0))
            return
        id = future.task_id
        if self.graph.pending.get(id) is not future:
            return
        self._record(future, Status.OK)
        self._close(id)
        future.settle(Status.OK, packed)
        self.graph.supply(id, packed)
        self._fail_oversized()

    def fail_local(self, future: AppFuture[Any], error: BaseException) -> None:
        """It has raised this."""
        id = future.task_id
        if self.graph.pending.get(id) is not future:
            return
        result = self._record(future, Status.ERROR)
        kept = self.graph.kept(id)
        if kept is not None and kept.policy is not None:
            try:
                pause = self.tries.pause_s(kept, kept.policy, future.name, result, lambda: error)
            except ConfigError as problem:
                error, pause = problem, None
            if pause is not None:
                self._begun.pop(id, None)
                self._try_again(kept, result.attempt, pause)
                return
        self._close(id)
        future.fail(error)
        self.ends.of(future, by_result=True)
        self._fail_dependents(id, future)

    def conclude(self, future: AppFuture[Any], end: tuple[Status, Packed] | BaseException) -> None:
        """As `TaskBook.conclude`; what it would have done is not done."""
        if self.graph.pending.get(future.task_id) is future:
            self._local.pop(future.task_id, None)
        super().conclude(future, end)

    # ---- inside -----------------------------------------------------------------------------

    def _unfinished(self, future: AppFuture[Any], needs: Sequence[Future[Any]], allow_failed: bool) -> list[int] | None:
        """The numbers of those that have not ended; None if one has failed, and the future with it."""
        found = []
        for need in needs:
            if not need.done():
                found.append(self._watch(need))
            elif not allow_failed and (need.cancelled() or need.exception(0) is not None):
                future.fail(dependency_failed(need, future, did=self._did(future)))
                self.ends.of(future)
                return None
        return found

    def _here(self, id: int) -> tuple[str, bool]:
        if id in self._begun and not self.graph.is_waiting(id):
            taken = format_duration(time.monotonic() - self._begun[id])
            return f"Its function runs in a thread of the program, for {taken} so far.", True
        return super()._here(id)

    def _did(self, future: AppFuture[Any]) -> str:
        return "has no result" if future.task_id in self._begun else super()._did(future)

    def _is_here(self, id: int) -> bool:
        return id in self._local or super()._is_here(id)

    def _drop(self, id: int) -> None:
        work = self._local.pop(id, None)
        self._begun.pop(id, None)
        if work is not None:
            work.cancel()

    def _close(self, id: int) -> None:
        self.graph.finish(id)
        self._local.pop(id, None)
        self._begun.pop(id, None)

    def _record(self, future: AppFuture[Any], status: Status) -> Result:
        """Note the end of an attempt."""
        kept = self.graph.kept(future.task_id)
        duration_us = int((time.monotonic() - self._begun.get(future.task_id, time.monotonic())) * 1e6)
        started_us = time.time_ns() // 1000 - duration_us
        result = Result(
            future.task_id,
            1 if kept is None else kept.tries,
            status,
            b"",
            duration_us=duration_us,
            started_us=started_us,
        )
        self.attempts += 1
        self.rows.append(
            (result.id, future.fn, result.attempt, status, started_us, duration_us, LOCAL, 0, 0, None, (), ())
        )
        return result
