"""Tasks of several ranks in a manager: started by the launcher over the task's nodes, and watched until they end.

The manager of a task's first node runs its step. To the pool it is a task of one of the workers,
which idles meanwhile.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import time
from collections.abc import Callable, Sequence
from typing import Any

from pilotflow.core.orders import Worker
from pilotflow.core.pool import Pool
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.steps import Step
from pilotflow.messages.records import Result, Status, Task
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.head_agent import RankCall, RunningStep, StepEnd, StepOutcome, StepRunner
from pilotflow.runtime.link import Sit
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import Options
from pilotflow.serialize import Packed

_STATUS = {
    StepEnd.OK: Status.OK,
    StepEnd.ERROR: Status.ERROR,
    StepEnd.TIMEOUT: Status.ERROR,
    StepEnd.CANCELLED: Status.CRASHED,
    StepEnd.LOST: Status.CRASHED,
}


class Steps:
    """The steps of one manager.

    Args:
        loop: calls us when a launcher has ended.
        pool: the manager's mind.
        options, connection: the manager's.
        kill: ends a worker process, called for those whose step was ended on order.
        log: the manager's log.
    """

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        options: Options,
        connection: Connection,
        kill: Callable[[Worker], None],
        log: logging.Logger,
    ) -> None:
        self._loop = loop
        self._pool = pool
        self._options = options
        self._connection = connection
        self._kill = kill
        self._log = log
        self._runner: StepRunner | None = None
        self._running: dict[int, tuple[Worker, Task, RunningStep]] = {}  # by worker

    def has(self, worker: Worker) -> bool:
        """Whether the worker's task is a step."""
        return worker.id in self._running

    @property
    def any(self) -> bool:
        """Whether any step is there."""
        return bool(self._running)

    @property
    def due_at(self) -> float:
        """When `look` must be called again."""
        return min((step.due_at for _, _, step in self._running.values() if step.due_at is not None), default=math.inf)

    def start(self, worker: Worker, task: Task, frames: Sequence[Any]) -> None:
        """Start a task of several ranks."""
        now = time.monotonic()
        try:
            step = self._start(task, frames, now)
        except (ConfigError, OSError) as error:
            packed = pack_exception(error)
            self._ended(worker, task, Status.ERROR, packed, 0, 0, None)
            return
        self._log.info("task %d runs on several ranks as step %s", task.id, step.name)
        self._running[worker.id] = worker, task, step
        self._loop.add(step.fileno(), lambda: self._exited(worker.id))

    def stop(self, worker: Worker, words: str) -> None:
        """End the worker's step: its ranks are warned, then ended."""
        self._running[worker.id][2].stop(words, time.monotonic())

    def look(self, now: float) -> None:
        """Warn and end what is due."""
        for number in [number for number, (_, _, step) in self._running.items() if (step.due_at or now + 1) <= now]:
            self._advance(number, now)

    # ---- inside -----------------------------------------------------------------------------

    def _start(self, task: Task, frames: Sequence[Any], now: float) -> RunningStep:
        request = self._pool.room.request(task.cls)
        place = self._pool.places.get(task.id)
        nodes = tuple(place.nodes) if place is not None else (self._options.node,)
        local = self._options.local or len(nodes) == 1
        step = Step.of(f"task-{task.id}-{task.attempt}", request, nodes, local=local)
        function = self._pool.functions[task.fn]
        call = RankCall(
            name=function.name or f"task {task.id}",
            body=function.body,
            arguments=Packed(task.payload, task.layout, tuple(frames)),
            return_ranks="all" if function.all_ranks else "first",
            path=self._connection.path,
            max_bytes=self._connection.max_message_bytes,
            task=task.id,
            attempt=task.attempt,
            seat=Sit(
                (),
                (),
                None,
                {},
                request.limit_s,
                None,
                request,
                self._connection.directory,
                self._connection.scratch_here,
            ),
        )
        return self._made_runner().call(step, call, now)

    def _made_runner(self) -> StepRunner:
        if self._runner is None:
            self._runner = StepRunner(
                self._launcher(),
                self._options.directory / "steps",
                os.environ,
                python=self._options.python,
                grace_s=self._options.watch.grace_s,
            )
        return self._runner

    def _launcher(self) -> Launcher:
        path = self._options.launcher
        launcher = pickle.loads(path.read_bytes()) if path is not None else None
        if not isinstance(launcher, Launcher) or not launcher.starts_ranks:
            raise ConfigError(
                f"Executor '{self._options.executor}' cannot run tasks on several nodes or ranks: its launcher starts "
                "none. Give it an MpirunLauncher, or another one that does."
            )
        return launcher

    def _exited(self, number: int) -> None:
        self._loop.remove(self._running[number][2].fileno())  # it stays readable
        self._advance(number, time.monotonic())

    def _advance(self, number: int, now: float) -> None:
        worker, task, step = self._running[number]
        outcome = step.advance(now)
        if outcome is None:
            return
        self._loop.remove(step.fileno())
        del self._running[number]
        self._report(worker, task, outcome)
        step.close()

    def _report(self, worker: Worker, task: Task, outcome: StepOutcome) -> None:
        if worker.ending:  # on order; the worker's death says so
            self._kill(worker)
            return
        status = _STATUS[outcome.end]
        packed = outcome.packed
        if status is Status.CRASHED:
            packed = Packed(outcome.words.encode())
        self._ended(worker, task, status, packed, outcome.duration_us, outcome.started_us, outcome.exit_code)

    def _ended(
        self,
        worker: Worker,
        task: Task,
        status: Status,
        packed: Packed,
        duration_us: int,
        started_us: int,
        exit_code: int | None,
    ) -> None:
        result = Result(
            task.id, task.attempt, status, packed.payload, packed.layout, duration_us, started_us, exit_code=exit_code
        )
        if worker.seat is not None:
            result.cores, result.gpus = worker.seat.cores, worker.seat.gpus
        self._pool.on_result(worker, result, packed.frames, time.monotonic())
