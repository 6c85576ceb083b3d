"""Threads of the user's program that run tasks: the executors of `ThreadExecutorConfig`.

A pool does what a manager and its workers do, without them: tasks come packed and go packed, so an app
means the same there as anywhere else.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import msgpack

from pilotflow.context import RUNNING
from pilotflow.errors import InfrastructureError
from pilotflow.messages.records import Result, Status, Task
from pilotflow.resources import Request
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.definitions import Definitions
from pilotflow.runtime.own_stderr import OWN_STDERR, OwnStderr
from pilotflow.runtime.own_threads import start_thread
from pilotflow.runtime.thread_calls import Running, ThreadCalls

CLOSE_S: Final = 1.0
"""Threads that have nothing to do are waited for so long when their run is over."""


@dataclass
class _Seat:
    """What a task has of the node: nothing that is its own."""

    request: Request
    run_directory: str
    scratch: str
    cores: tuple[int, ...] = ()
    gpus: tuple[int, ...] = ()
    runtime_s: float | None = None
    ends_at: float | None = None
    nodes: tuple[str, ...] = ()


class ThreadPool:
    """The threads of one executor. They are made when they are needed, and end with the run.

    Args:
        label: the executor's.
        max_threads: tasks that run at once.
        definitions: the functions.
        connection: the run's limits and directories.
        begin: called in a thread that has begun a task, with its number.
        done: called in a thread that has ended a task, with its result and payload frames.
    """

    def __init__(
        self,
        label: str,
        max_threads: int,
        definitions: Definitions,
        connection: Connection,
        begin: Callable[[int], None],
        done: Callable[[Result, Sequence[Any]], None],
    ) -> None:
        self._label = label
        self._max = max_threads
        self._definitions = definitions
        self._connection = connection
        self._begin = begin
        self._done = done
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._line: list[tuple[int, int, int]] = []  # minus priority, order, task
        self._queued: dict[int, tuple[Task, list[Any], Request]] = {}
        self._running: dict[int, Running] = {}
        self._threads = 0
        self._idle = 0
        self._closed = False

    @property
    def running(self) -> int:
        """How many tasks run."""
        return len(self._running)

    def submit(self, task: Task, frames: list[Any], request: Request) -> None:
        """Run a task as soon as a thread is free."""
        with self._changed:
            self._queued[task.id] = (task, frames, request)
            heapq.heappush(self._line, (-request.priority, next(self._order), task.id))
            if self._idle:
                self._changed.notify()
            elif self._threads < self._max:
                self._start(task)

    def _start(self, task: Task) -> None:
        """Start a thread for this task. If there can be none, those that are there will do it, or it ends with that."""
        try:
            start_thread(self._work, f"pilotflow-{self._label}-{self._threads + 1}")
        except InfrastructureError as error:
            if not self._threads:
                del self._queued[task.id]
                words = f"Executor '{self._label}' has no thread. {error}"
                self._done(Result(task.id, task.attempt, Status.UNSTARTABLE, msgpack.encode([words])), ())
        else:
            self._threads += 1

    def withdraw(self, id: int) -> bool:
        """Drop a task; False if it has begun."""
        return self._queued.pop(id, None) is not None

    def may_end(self, id: int) -> bool:
        """Whether a task can be ended, which follows: it has not begun and will not now, or is a command."""
        with self._changed:
            running = self._running.get(id)
            return self._queued.pop(id, None) is not None or running is None or running.may_end()

    def end(self, id: int) -> None:
        """Drop a task, or end its command."""
        with self._changed:
            self._queued.pop(id, None)
            running = self._running.get(id)
        if running is not None:
            running.end()

    def end_all(self) -> list[int]:
        """Drop all tasks and end all commands; those that go on, because they are functions and have begun."""
        with self._changed:
            self._queued.clear()
            running = list(self._running.items())
        for _, one in running:
            one.end()
        return [id for id, one in running if not one.can_end]

    def close(self) -> None:
        """All is over: threads end, those that are busy as soon as they can."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._threads <= len(self._running), CLOSE_S)

    def has(self, id: int) -> bool:
        """Whether a task runs or waits here."""
        with self._changed:
            return id in self._running or id in self._queued

    def where(self, id: int) -> tuple[str, bool] | None:
        """In words where a task is, and whether it runs; None if it is not here."""
        if id in self._running:
            return f"It runs in a thread of the program, on executor '{self._label}'.", True
        if id in self._queued:
            others = (
                f"All {self._max} threads of executor '{self._label}' are busy, and {len(self._queued):,} tasks wait"
            )
            return f"{others}; raise its max_threads to run more at once.", False
        return None

    def _work(self) -> None:
        calls, own = ThreadCalls(self._definitions.bodies, self._connection.max_message_bytes), OwnStderr()
        OWN_STDERR.set(own)
        while (found := self._next()) is not None:
            running, task, frames = found
            self._begin(task.id)
            result, payload = self._execute(calls, running, task, frames)
            with self._changed:
                del self._running[task.id]
            if running.begun:
                self._done(result, payload)
            del found, running, task, frames, result, payload
        own.close()
        with self._changed:
            self._threads -= 1
            self._changed.notify_all()

    def _execute(
        self, calls: ThreadCalls, running: Running, task: Task, frames: list[Any]
    ) -> tuple[Result, Sequence[Any]]:
        seat = _Seat(running.request, self._connection.directory, self._connection.scratch_here)
        started, cpu = time.time_ns(), time.thread_time_ns()
        task.attempt += 1
        RUNNING.set((task, started, seat, self._definitions.names))
        return _run(calls, running, task, frames, started, cpu)

    def _next(self) -> tuple[Running, Task, list[Any]] | None:
        with self._changed:
            while True:
                while self._line:
                    found = self._queued.pop(heapq.heappop(self._line)[2], None)
                    if found is not None:
                        task, frames, request = found
                        running = self._running[task.id] = Running(task.id, request)
                        return running, task, frames
                if self._closed:
                    return None
                self._idle += 1
                self._changed.wait()
                self._idle -= 1


def _run(
    calls: ThreadCalls, running: Running, task: Task, frames: list[Any], started: int, cpu: int
) -> tuple[Result, Sequence[Any]]:
    begun = time.perf_counter_ns()
    status, packed = calls.call_here(running, task, frames)
    duration_us = (time.perf_counter_ns() - begun) // 1000
    cpu_us = (time.thread_time_ns() - cpu) // 1000
    result = Result(
        task.id,
        task.attempt,
        status,
        packed.payload,
        packed.layout,
        duration_us,
        started // 1000,
        cpu_us,
        exit_code=calls.exit_code,
    )
    return result, packed.frames
