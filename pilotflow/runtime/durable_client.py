"""The client loop of a durable run: results are acknowledged when they are recorded, not when they come."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pilotflow.futures import AppFuture
from pilotflow.messages.client import Crashed, Results, Started
from pilotflow.messages.records import Task
from pilotflow.runtime.client import Client, Listener
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.durable import Journal
from pilotflow.serialize import Packed


class DurableClient(Client):
    """See `Client`; a journal hears of everything and says what is recorded."""

    def __init__(
        self, connection: Connection, interchange_pid: int, listener: Listener, log: logging.Logger, journal: Journal
    ) -> None:
        super().__init__(connection, interchange_pid, listener, None, log)
        self._journal = journal
        self._unrecorded: list[tuple[int, int]] = []

    def submit_try(self, future: AppFuture[Any], fn: int, cls: int, packed: Packed, attempt: int) -> None:
        """Submit a task of which attempts up to `attempt` are over.

        Raises:
            RunClosed, InterchangeLost: the run takes no more tasks.
        """
        self.check_open()
        task = Task(future.task_id, attempt, fn, cls, packed.payload, packed.layout)
        self._inbox.append((future, task, packed.frames, None, None))
        if self._asleep:
            self._wake()

    def submit_again(self, tasks: Sequence[tuple[AppFuture[Any], int, int, Packed, int]]) -> None:
        """Submit tasks that a program which is gone has submitted before, and that may be running.

        Args:
            tasks: of each its future, function, class, arguments, and the last of its attempts that is over.
        """

        def add() -> None:
            self._mail_ready()
            again, frames = [], list[Any]()
            for future, fn, cls, packed, attempt in tasks:
                self._book.graph.pending[future.task_id] = future
                again.append(Task(future.task_id, attempt, fn, cls, packed.payload, packed.layout))
                frames += packed.frames
            self._mail.add_tasks(again, frames, again=True)

        self.call(add)

    def acknowledge(self, batches: Sequence[tuple[int, int]]) -> None:
        """These batches of results are recorded."""

        def tell() -> None:
            for manager, seq in batches:
                self._mail.acknowledge(manager, seq)

        self.call(tell)

    def _record(self) -> None:
        book = self._book
        if book.rows or self._unrecorded:
            self._journal.ended(book.rows, self._unrecorded)
            book.rows, self._unrecorded = [], []
        book.ends.rows = []

    def _take(self, message: Any, frames: Sequence[Any]) -> None:
        if isinstance(message, Results):
            at = 0
            for batch in message.batches:
                at = self._book.take_results(batch, frames, at)
                if batch.manager:
                    self._unrecorded.append((batch.manager, batch.seq))
            self._settle_idle()
            return
        super()._take(message, frames)
        if isinstance(message, Started):
            self._journal.begun(message.tasks)
        elif isinstance(message, Crashed):
            self._journal.crashed(message.attempts)
