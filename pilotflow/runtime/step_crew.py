"""The workers of a node far away: each task is a step of its own, started by srun, with one worker for one task.

To the pool they are workers like others, which are always ready: a place for one task, and no process while
there is none.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilotflow.core.orders import Give, Worker
from pilotflow.core.pool import Pool
from pilotflow.core.step_end import StepFate, StepVerdict, judge_step
from pilotflow.errors import ConfigError
from pilotflow.ids import STEP_VARIABLE, UNREACHABLE
from pilotflow.launchers.srun_task import TaskStep, task_argv
from pilotflow.memfile import buffer_of
from pilotflow.messages.records import Excess, Result, Status, Task
from pilotflow.node.environment import DEVICE_VARIABLES, THREAD_VARIABLES
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime import link, zygote
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.crew import Crew
from pilotflow.runtime.last_words import of_step
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import Options
from pilotflow.runtime.relay import relay_argv
from pilotflow.runtime.relay_link import FromRelay, Here, Over, Seen, Warned
from pilotflow.runtime.relays import Relays
from pilotflow.runtime.srun_process import SrunProcess
from pilotflow.runtime.steps import Steps

_NOT_FOR_STEPS: Final = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", *DEVICE_VARIABLES)
"""Variables of the batch script that are about its first node, or that srun would take for options."""


@dataclass(frozen=True)
class Start:
    """How steps are started, the same for all nodes of an allocation.

    Attributes:
        relays: where their relays connect to.
        options: further options of srun.
        environment: of srun, and so of the tasks.
        child_setup: what a child does before it becomes srun.
    """

    relays: Relays
    options: tuple[str, ...]
    environment: Mapping[str, str]
    child_setup: Callable[[], None]


def step_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of the sruns of tasks, from that of the batch script."""
    return {
        name: value
        for name, value in inherited.items()
        if name not in _NOT_FOR_STEPS and not name.startswith(("SLURM_STEP_", "SLURM_GPUS_ON_NODE"))
    }


@dataclass
class _Running:
    """A task's step, and what its relay has said."""

    name: str
    worker: Worker
    task: Task
    frames: Sequence[Any]
    began: float
    process: SrunProcess | None = None
    done: tuple[Result, Sequence[Any]] | None = None
    over: Over | None = None


class StepCrew(Crew):
    """Workers that are steps of the batch system.

    Args:
        loop: calls us when a step has ended, or says something.
        pool: the mind of the node's manager.
        start: how steps are started.
        options, connection: the manager's.
        started: when the block began, by the monotonic clock.
        log: the manager's log.
    """

    def __init__(
        self,
        loop: Loop,
        pool: Pool,
        start: Start,
        options: Options,
        connection: Connection,
        started: float,
        log: logging.Logger,
    ) -> None:
        super().__init__(loop, pool, options, connection, started, log)
        self._start = start
        self._running: dict[int, _Running] = {}  # by worker
        self._steps = Steps(loop, pool, options, connection, self._gone, log)  # of tasks of several ranks
        self._woken = False
        self._threads = {name for name in THREAD_VARIABLES if name not in start.environment}

    @property
    def any(self) -> bool:
        """See `Crew.any`."""
        return bool(self._running) or self._steps.any

    @property
    def due_at(self) -> float:
        """See `Crew.due_at`."""
        if self._woken:
            return 0.0
        return self._next_look(self._steps.due_at)

    def look(self, now: float) -> None:
        """See `Crew.look`."""
        self._woken = False
        self._steps.look(now)
        if self._pool.busy:
            self._keep_to_runtimes(now)

    def kill_all(self) -> None:
        """See `Crew.kill_all`."""
        for running in self._running.values():
            if running.process is not None:
                running.process.end()

    # ---- orders -----------------------------------------------------------------------------

    def _give(self, order: Give) -> None:
        worker, task = order.worker, order.task
        if self._pool.has_ranks(task.cls):
            self._steps.start(worker, task, order.frames)
            self._woken = True  # it may have failed at once
            return
        name = f"task-{task.id}-{task.attempt}"
        running = self._running[worker.id] = _Running(name, worker, task, order.frames, time.monotonic())
        self._pool.on_placed(worker)
        self._start.relays.expect(name, lambda message, frames: self._hear(running, message, frames))
        command = relay_argv(self._options.python, self._options.connection, self._start.relays.endpoint, name)
        argv = task_argv(command, self._step(task), self._start.options)
        try:
            running.process = SrunProcess(
                self._loop,
                argv,
                self._start.environment,
                self._start.child_setup,
                lambda: self._settle(running),
            )
        except OSError as error:
            words = f"srun cannot be started on {self._options.host}: {error.strerror}."
            self._fail(
                running, ConfigError(f"{words} Tasks of executor '{self._options.executor}' are steps of Slurm.")
            )

    def _step(self, task: Task) -> TaskStep:
        request = self._pool.room.request(task.cls)
        function = self._pool.functions[task.fn]
        free = self._pool.capacity.depth_limited
        label = "".join(char if char.isalnum() or char in "_.-" else "-" for char in function.name[:40]) or "task"
        return TaskStep(
            name=f"{label}-{task.id}",
            node=self._options.node,
            cpus=None if free else max(1, request.cpus_milli // 1000),
            memory_bytes=0 if free else request.memory_bytes,
            gpus=0 if free else request.gpus_milli // 1000,
            runtime_s=self._pool.limit_s(task.cls),
            grace_s=self._options.watch.grace_s,
        )

    def _kill(self, worker: Worker) -> None:
        running = self._running.get(worker.id)
        if self._steps.has(worker):
            self._steps.stop(worker, "it was cancelled")
        elif running is None or running.process is None:
            self._gone(worker)
        else:
            running.process.end()

    def _spawn(self, worker: Worker) -> None:
        self._pool.on_ready(worker)
        self._woken = True  # the pool has something to think about

    def _recall(self, worker: Worker) -> None:
        self._pool.on_recalled(worker, ())  # its task has been started

    def _warn(self, worker: Worker) -> None:
        if (running := self._running.get(worker.id)) is not None:
            self._start.relays.send(running.name, Warned())

    def _gone(self, worker: Worker) -> None:
        self._pool.on_death(worker, "was ended", self._where)
        self._woken = True

    # ---- news -------------------------------------------------------------------------------

    def _hear(self, running: _Running, message: FromRelay, frames: Sequence[Any]) -> None:
        if isinstance(message, Here):
            self._hand_over(running, message)
        elif isinstance(message, link.TaskDone):
            running.done = message.result, frames
        elif isinstance(message, link.SetupRaised):
            self._pool.on_setup_failed(bytes(buffer_of(frames[0])))
        elif isinstance(message, link.IsSetUp):
            self._pool.on_set_up(running.worker)
        elif isinstance(message, Over):
            running.over = message
            self._start.relays.send(running.name, Seen())

    def _hand_over(self, running: _Running, here: Here) -> None:
        """The step has started: everything that its one task needs."""
        task, worker, send = running.task, running.worker, self._start.relays.send
        if running.done is not None or worker.seat is None:
            return
        self._pool.on_begun(worker, time.monotonic())
        if self._setup:
            worker.setting_up = True
            send(running.name, link.Setup(), (self._setup,))
        request = self._pool.room.request(task.cls)
        environ = {STEP_VARIABLE: running.name} | dict.fromkeys(self._threads, str(max(1, request.cpus_milli // 1000)))
        if self._pool.capacity.gpus and not request.gpus_milli:
            environ |= {"CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""}
        seat = self._seat_of(task.cls, worker.seat.cores, here.gpus or worker.seat.gpus, environ)
        send(running.name, seat)
        function = self._pool.functions[task.fn]
        send(running.name, link.GiveFunction(task.fn, function.name), (function.body,))
        send(running.name, link.GiveTask(task), running.frames)

    def _settle(self, running: _Running) -> None:
        """The step is over, for Slurm too: what it had is free."""
        assert running.process is not None
        now, worker, task = time.monotonic(), running.worker, running.task
        verdict = judge_step(running.process.exit_code, running.process.printed)
        self._start.relays.forget(running.name)
        del self._running[worker.id]
        self._woken = True
        if running.over is not None:
            self._pool.on_peak(worker, running.over.peak_bytes)
        oom = verdict.fate is StepFate.OUT_OF_MEMORY
        ordered = worker.ending
        if running.done is not None:
            result, frames = running.done
            result.duration_us = int((now - running.began) * 1e6)  # what it costs to place such a task
            self._pool.on_result(worker, result, frames, now, result.status is not Status.OK and oom)
            if ordered:
                self._gone(worker)
        elif verdict.fate is StepFate.REFUSED and not ordered:
            self._fail(running, self._refusal(verdict))
        else:
            how, excess = self._how(running, verdict), None
            runtime_s = self._pool.limit_s(task.cls)
            if verdict.fate is StepFate.TIME_LIMIT and runtime_s is not None:
                excess = Excess("runtime", runtime_s, now - running.began, f"a step {self._where}", by_system=True)
            if not ordered:
                self._log.warning("the step of task %d %s", task.id, how)
            its_own = verdict.fate is StepFate.ITSELF  # else what srun has said is in `how`
            last_words = of_step(running.process.printed) if its_own else ""
            self._pool.on_death(worker, how, self._where, oom, excess, last_words)

    def _how(self, running: _Running, verdict: StepVerdict) -> str:
        if verdict.fate is StepFate.ITSELF and running.over is not None:
            return zygote.in_words(running.over.status)
        if running.process is not None and running.process.exit_code == UNREACHABLE and running.over is None:
            return (
                f"started a step that could not reach {self._options.host} at {self._start.relays.endpoint}; set `address` "
                f"of executor '{self._options.executor}' to the interface or network that connects the nodes"
            )
        if verdict.fate is StepFate.NOT_STARTED:
            return f"could not be started by srun: {verdict.words}"
        return verdict.words

    def _refusal(self, verdict: StepVerdict) -> ConfigError:
        return ConfigError(
            f"Slurm has no place for the step of this task on {self._options.node}: {verdict.words}. The node has "
            f"{self._pool.capacity.cpus_milli // 1000} CPUs of this allocation. Ask for less, or for larger nodes in "
            f"the provider of executor '{self._options.executor}'."
        )

    def _fail(self, running: _Running, error: ConfigError) -> None:
        """It is the task's, or the configuration's, fault."""
        self._running.pop(running.worker.id, None)
        self._start.relays.forget(running.name)
        packed = pack_exception(error)
        result = Result(running.task.id, running.task.attempt, Status.ERROR, packed.payload, packed.layout)
        self._pool.on_result(running.worker, result, packed.frames, time.monotonic())
        self._woken = True


def inherited() -> dict[str, str]:
    """The environment of the sruns of this process's tasks."""
    from pilotflow.launchers.steps import without_foreign

    return step_environment(without_foreign(os.environ))
