"""A step while it runs: a process of its launcher, watched, warned, ended, and asked for its outcome."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final

from pilotflow.errors import TaskError, TaskTimeout
from pilotflow.launchers.steps import Step
from pilotflow.providers import processes
from pilotflow.remote_errors import pack_exception
from pilotflow.runtime.process_end import ProcessEnd
from pilotflow.runtime.ranks_result import Ran, StepEnd, StepOutcome, outcome_of
from pilotflow.runtime.tails import last_lines
from pilotflow.units import format_duration

FORCE_S: Final = 10.0
"""A launcher that was told to end all ranks has so long before what is left on this host is killed."""
_END_BYTES: Final = 16 * 1024
"""So much of the output is looked at, when a step has ended."""
SWEEP_S: Final = 0.02
"""How often to look whether what was killed is gone."""


@dataclass(frozen=True)
class Plan:
    """What is started, and what is made of its end.

    Attributes:
        step: the step, with its directory.
        name: of the app or command, for messages.
        argv, environment: the launcher's command.
        warning: what makes the launcher warn its ranks.
        stdout, stderr: files for its output, instead of those in the directory.
        returns: ranks whose results are wanted; none for commands.
        as_list: the result is the list of them.
    """

    step: Step
    name: str
    argv: list[str]
    environment: Mapping[str, str]
    warning: signal.Signals
    stdout: str | None = None
    stderr: str | None = None
    returns: range = range(0)
    as_list: bool = False

    @property
    def folder(self) -> Path:
        """The step's directory."""
        return Path(self.step.directory or "")

    @property
    def outputs(self) -> tuple[str, str]:
        """Paths of the files for stdout and stderr."""
        return self.stdout or str(self.folder / "stdout"), self.stderr or str(self.folder / "stderr")


class _Stage(Enum):
    """How far the end of a step has come."""

    RUNNING = auto()
    WARNED = auto()
    FORCED = auto()
    KILLED = auto()


class RunningStep:
    """A step that was started. Made by `StepRunner`.

    Register `fileno()` for reading in an event loop, and call `advance` when it is readable, and when the time
    `due_at` has come (look at it again after each call). Once readable, the descriptor stays so: take it out of
    the loop then. `advance` gives the outcome once; then call `close`.
    """

    def __init__(self, plan: Plan, process: subprocess.Popen[bytes], now: float, grace_s: float) -> None:
        self._plan = plan
        self._process = process
        self._process_end = ProcessEnd(process.pid)
        self._grace_s = grace_s
        self._started = now
        self._started_us = time.time_ns() // 1000
        self._stage = _Stage.RUNNING
        self._reason: tuple[StepEnd, str] | None = None
        runtime_s = plan.step.runtime_s
        self.due_at: float | None = None if runtime_s is None else now + runtime_s
        self._known: dict[int, int] = {}  # process id: start time, of all that has to go
        self._given_up_at: float | None = None

    @property
    def name(self) -> str:
        """The step's name."""
        return self._plan.step.name

    def fileno(self) -> int:
        """A descriptor that is readable from the end of the launcher's process on."""
        return self._process_end.fileno()

    def stop(self, words: str, now: float) -> None:
        """Order the end of the step: warn its ranks, end them after the grace. Does not wait.

        Args:
            words: why; the exception says so.
            now: monotonic clock, in seconds.
        """
        self._end(StepEnd.CANCELLED, words, now)

    def kill(self, words: str, now: float) -> None:
        """As `stop`, without a warning: a node is lost. Open MPI takes two seconds for it, others none."""
        self._reason = self._reason or (StepEnd.CANCELLED, words)
        if self._stage in {_Stage.RUNNING, _Stage.WARNED}:
            self._force(now)

    def advance(self, now: float) -> StepOutcome | None:
        """Go on; the outcome, when the step and all its processes on this host are gone.

        Args:
            now: monotonic clock, in seconds.
        """
        if self._has_exited():
            return self._sweep(now)
        if self.due_at is not None and now >= self.due_at:
            match self._stage:
                case _Stage.RUNNING:
                    limit = format_duration(self._plan.step.runtime_s or 0.0)
                    words = f"'{self._plan.name}' ran longer than its runtime or timeout of {limit} and was ended."
                    self._end(StepEnd.TIMEOUT, words, now)
                case _Stage.WARNED:
                    self._force(now)
                case _Stage.FORCED | _Stage.KILLED:
                    self._kill(now)
        return None

    def close(self) -> None:
        """Remove the step's files, but what it has printed, and release the descriptor.

        To be called when the outcome is no longer needed from here, or when the step was given up.
        """
        if self._process_end.fileno() < 0:
            return
        self._process_end.close()
        folder = self._plan.folder
        printed = [path for path in map(Path, (folder / "stdout", folder / "stderr")) if _size(path)]
        if not printed:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for path in folder.iterdir():
            if path not in printed:
                path.unlink(missing_ok=True)

    # ---- ending ------------------------------------------------------------------------------

    def _end(self, end: StepEnd, words: str, now: float) -> None:
        if self._reason is not None:
            return
        self._reason = end, words
        self._stage, self.due_at = _Stage.WARNED, now + self._grace_s
        self._signal(self._plan.warning)

    def _force(self, now: float) -> None:
        self._remember()
        self._stage, self.due_at = _Stage.FORCED, now + FORCE_S
        self._signal(signal.SIGTERM)

    def _kill(self, now: float) -> None:
        self._stage, self.due_at = _Stage.KILLED, now + SWEEP_S
        self._kill_known()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process_end.send(number)

    def _has_exited(self) -> bool:
        """Whether the launcher has ended. It stays a zombie, so that its session's id is not given away."""
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _remember(self) -> None:
        self._known |= {pid: found.start for pid, found in processes.members(self._process.pid).items()}

    def _kill_known(self) -> bool:
        """Kill what is left of the step on this host; False if nothing is."""
        self._remember()
        left = [pid for pid, start in self._known.items() if processes.is_running(pid, start)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return bool(left)

    def _sweep(self, now: float) -> StepOutcome | None:
        if self._given_up_at is None:
            self._given_up_at = now + processes.STUBBORN_S
        if self._kill_known() and now < self._given_up_at:
            self.due_at = now + SWEEP_S
            return None
        self.due_at = None
        code = self._process.wait()
        outcome = self._outcome(code)
        duration_us = int((now - self._started) * 1e6)
        return dataclasses.replace(outcome, duration_us=duration_us, started_us=self._started_us)

    def _outcome(self, code: int) -> StepOutcome:
        plan = self._plan
        printed = _end_of(plan.outputs[1]) or _end_of(plan.outputs[0])
        if self._reason is not None:
            end, words = self._reason
            error = TaskTimeout(words) if end is StepEnd.TIMEOUT else TaskError(words)
            return StepOutcome(end, pack_exception(error), words, code, last_lines(printed))
        return outcome_of(Ran(plan.name, plan.folder, plan.step.ranks, code, printed, plan.returns, plan.as_list))


def _end_of(path: str) -> str:
    """The end of a file of text, or nothing if it cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
