"""Runs steps: starts their launcher, hands the ranks their call, watches, warns, kills, collects.

This is what a block's head agent (or the manager of a one-machine block) is made of. It has no loop of its own:
each `RunningStep` has a descriptor that becomes readable when the launcher has ended, and says when it wants to
be called again. All of it belongs to one thread, which must live as long as its steps: when it ends, they do.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.steps import Step
from pilotflow.names import ImportPath
from pilotflow.runtime import ranks_files
from pilotflow.runtime.link import Sit
from pilotflow.runtime.pythons import Python, this_python
from pilotflow.runtime.ranks import rank_argv
from pilotflow.runtime.ranks_files import CallFile
from pilotflow.runtime.ranks_result import StepEnd, StepOutcome
from pilotflow.runtime.ranks_running import Plan, RunningStep
from pilotflow.serialize import Packed

__all__ = ["RankCall", "RunningStep", "StepEnd", "StepOutcome", "StepRunner"]

GRACE_S: Final = 5.0
"""Seconds between the warning of a step's ranks and their end."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, kw_only=True)
class RankCall:
    """A Python function that all ranks of a step call.

    Attributes:
        name: the app's name, for messages.
        body: the function, see `pilotflow.bodies.pack_function`.
        arguments: its arguments as they came, results of other tasks joined to them.
        return_ranks: what the task's result is: what rank 0 returned, or the list of what all returned.
        path: the submitting program's, for the ranks'.
        max_bytes: largest result of one rank.
        task, attempt, seat: what `current_task` tells of the task.
    """

    name: str
    body: bytes
    arguments: Packed
    return_ranks: Literal["first", "all"] = "first"
    path: ImportPath = field(default_factory=ImportPath)
    max_bytes: int = 2 << 30
    task: int = 0
    attempt: int = 0
    seat: Sit | None = None


class StepRunner:
    """Starts steps, each in a directory of its own.

    Args:
        launcher: how ranks are started.
        directory: where the steps' directories go; all nodes must be able to reach it.
        environment: what the steps inherit; the caller's own environment as a rule.
        python: how Python is started on the nodes; by default as this one.
        grace_s: seconds between the warning and the end of a step that is ended.
    """

    def __init__(
        self,
        launcher: Launcher,
        directory: Path,
        environment: Mapping[str, str],
        *,
        python: Python | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._launcher = launcher
        self._directory = directory.absolute()
        self._environment = dict(environment)
        self._python = python or this_python()
        self._grace_s = grace_s
        self._child_setup = end_with_parent()

    def call(self, step: Step, call: RankCall, now: float) -> RunningStep:
        """Start a Python function on every rank.

        What the ranks print goes to `stdout` and `stderr` in the step's directory.

        Args:
            step: which ranks; it is given its directory here.
            call: what they do.
            now: monotonic clock, in seconds.

        Raises:
            ConfigError: this launcher cannot start the step, or its program is not here.
            OSError: the step's directory cannot be written.
        """
        step = self._prepare(step)
        folder = Path(step.directory or "")
        packed = call.arguments
        every_rank = call.return_ranks == "all"
        head = CallFile(
            name=call.name,
            body=call.body,
            payload=packed.payload,
            layout=packed.layout,
            sizes=ranks_files.sizes_of(packed),
            path=call.path,
            every_rank=every_rank,
            max_bytes=call.max_bytes,
            task=call.task,
            attempt=call.attempt,
            seat=call.seat,
        )
        ranks_files.write(folder / "call", head, packed.frames)
        argv = self._launcher.step(rank_argv(folder, self._python), step)
        environment = self._launcher.environment(step, self._environment)
        plan = Plan(
            step,
            call.name,
            argv,
            environment,
            self._launcher.warning,
            returns=range(step.ranks if every_rank else 1),
            as_list=every_rank,
        )
        return self._start(plan, now)

    def command(
        self,
        step: Step,
        command: Sequence[str],
        now: float,
        *,
        name: str = "",
        stdout: str | None = None,
        stderr: str | None = None,
    ) -> RunningStep:
        """Start a command as every rank.

        Args:
            step: which ranks; it is given its directory here.
            command: the argument list of one rank.
            now: monotonic clock, in seconds.
            name: what to call it in messages, instead of the first word of the command.
            stdout, stderr: files that all ranks' output is appended to, instead of files in the step's directory.

        Raises:
            ConfigError, OSError: as in `call`.
        """
        step = self._prepare(step)
        argv = self._launcher.step(command, step)
        environment = self._launcher.environment(step, self._environment)
        plan = Plan(step, name or command[0], argv, environment, self._launcher.warning, stdout, stderr)
        return self._start(plan, now)

    def _prepare(self, step: Step) -> Step:
        folder = self._directory / step.name
        self._directory.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        step = dataclasses.replace(step, directory=str(folder))
        ranks_files.write_text(folder / "hosts", step.hostfile_text)
        return step

    def _start(self, plan: Plan, now: float) -> RunningStep:
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(os.fdopen(_open(path), "wb")) for path in plan.outputs)
            try:
                process = subprocess.Popen(
                    plan.argv,
                    env=plan.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                    preexec_fn=self._child_setup,  # noqa: PLW1509  one system call, prepared before the fork
                )
            except (FileNotFoundError, PermissionError) as error:
                raise _not_started(plan, error) from None
        return RunningStep(plan, process, now, self._grace_s)


def end_with_parent() -> Callable[[], None]:
    """What a launcher does before it starts: it gets SIGTERM, and so ends all ranks, if we die."""
    prctl = ctypes.CDLL(None).prctl

    def setup() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    return setup


def _open(path: str) -> int:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


def _not_started(plan: Plan, error: OSError) -> ConfigError:
    program = plan.argv[0]
    return ConfigError(
        f"Step {plan.step.name} of '{plan.name}' cannot be started: {program}: {error.strerror}. Install it where the "
        "blocks run, load its module in the provider's worker_init, or set the executor's launcher to another."
    )
