"""Every error pilotflow raises, in one tree.

    PilotflowError
    ├── ConfigError           your configuration or call is wrong; nothing was started
    │   ├── CacheKeyError         a call of a cached app cannot be told from others
    │   ├── RequestTooLarge       a task asks for more than any node of its executors has
    │   └── PolicyExceeded        a setting is beyond what the site's admins allow
    ├── TaskError             your code failed, in a way that pilotflow noticed
    │   ├── BashExitError         a command ended with a non-zero exit code
    │   ├── TaskTimeout           a task ran longer than it may
    │   ├── StagingError          a file cannot be fetched from a URL, or stored there
    │   ├── MissingOutputs        a task ended without the files it promised
    │   ├── DependencyError       a task that this one needs has failed
    │   └── SerializationError    a value cannot travel between processes
    ├── InfrastructureError   a process, a node or a block failed; not your code
    │   ├── WorkerLost            the worker running a task died, too often
    │   ├── InterchangeLost       the run's central process died
    │   ├── BlockStartError       blocks of an executor die before they can work
    │   └── RunClosed             the run (or executor) no longer takes tasks
    └── InternalError         a bug in pilotflow

The class says whose fault it is, the message what happened, to which thing, and what to do next.
All of them survive pickling with their attributes.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from typing import Any, Final

_LISTED_MAX: Final = 10
"""Paths that a message names."""


class PilotflowError(Exception):
    """Base of every error pilotflow raises on purpose. Never raised itself."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[PilotflowError], args: tuple[Any, ...], state: dict[str, Any]) -> PilotflowError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigError(PilotflowError, ValueError):
    """A configuration, a decorator or a call is wrong. Nothing was started or changed."""


class CacheKeyError(ConfigError):
    """A value cannot be part of a cached call's key.

    Attributes:
        problem: why not.
        where: where the value is in the argument, such as `[3].name`; long paths are cut.
        remedy: what to do about it, a sentence, where that is special.
    """

    def __init__(self, problem: str, where: str = "", remedy: str = "") -> None:
        text = f"at {where}: {problem}" if where else problem
        super().__init__(f"{text}. {remedy}" if remedy else text)
        self.problem = problem
        self.where = where
        self.remedy = remedy

    def inside(self, step: str) -> CacheKeyError:
        """The same error, seen from what contains the value."""
        return CacheKeyError(self.problem, step + (self.where if len(self.where) < 200 else "..."), self.remedy)


class RequestTooLarge(ConfigError):
    """A task asks for more than any node, or block, of its executors has; the message has both numbers."""


class PolicyExceeded(ConfigError):
    """A setting is beyond what the site's admins allow; the message has the limit and where both were set."""


class TaskError(PilotflowError):
    """A task's own code failed."""


class BashExitError(TaskError):
    """A command ended with a non-zero exit code.

    Attributes:
        app: name of the bash app.
        exit_code: the command's exit code; minus the signal's number if a signal ended it.
        stderr: path of the file with the command's stderr, or None if it has none of its own.
        stderr_tail: its last lines.
        shared_stderr: path of the file with that of all commands of its worker that have no file; None if there is none.
    """

    def __init__(
        self,
        app: str,
        exit_code: int,
        stderr: str | None = None,
        stderr_tail: str = "",
        shared_stderr: str | None = None,
    ) -> None:
        how = f"ended with exit code {exit_code}" if exit_code >= 0 else f"was ended by signal {_signal(-exit_code)}"
        how += {126: " (a file that cannot be executed)", 127: " (command not found)"}.get(exit_code, "")
        text = f"The command of bash app '{app}' {how}."
        if shared_stderr and stderr_tail:
            text += f" Its stderr (in {shared_stderr}, with that of other commands) ends with:\n{stderr_tail}"
        elif shared_stderr:
            text += " It wrote nothing to its stderr."
        elif stderr_tail:
            text += f" Its stderr ({stderr}) ends with:\n{stderr_tail}"
        elif stderr:
            text += f" Its stderr ({stderr}) is empty."
        else:
            text += " Its stderr went to that of its worker (the manager's log, or the program's); give stderr=pilotflow.AUTO_LOGNAME to keep it apart."
        super().__init__(text)
        self.app = app
        self.exit_code = exit_code
        self.stderr = stderr
        self.stderr_tail = stderr_tail
        self.shared_stderr = shared_stderr


def _signal(number: int) -> str:
    """A signal's number and name."""
    names = {one.value: one.name for one in signal.Signals}
    hint = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
    return f"{number} ({names[number]}{hint})" if number in names else str(number)


class MemoryLimitExceeded(TaskError, MemoryError):
    """A task used more memory than it had asked for, or than there was.

    Attributes:
        requested: what it had asked for, in bytes; 0 if it had not said.
        peak: the most that it was seen to use, in bytes; 0 if it was too fast to be seen.
    """

    def __init__(self, message: str, requested: int = 0, peak: int = 0) -> None:
        super().__init__(message)
        self.requested = requested
        self.peak = peak


class TaskTimeout(TaskError, TimeoutError):
    """A task ran longer than its `runtime` or `timeout` and was ended."""


class WalltimeExceeded(TaskError, TimeoutError):
    """A task without a `runtime` was still running when its block ended, twice.

    Attributes:
        longest_s: the longest time that it got, in seconds.
    """

    def __init__(self, message: str, longest_s: float = 0.0) -> None:
        super().__init__(message)
        self.longest_s = longest_s


class MissingOutputs(TaskError):
    """A task ended without the files it promised.

    Attributes:
        app: its name.
        paths: of the files that are not there.
    """

    def __init__(self, app: str, paths: Sequence[str], where: str) -> None:
        listed = ", ".join(paths[:_LISTED_MAX]) + (f" and {len(paths) - _LISTED_MAX} more" * (len(paths) > _LISTED_MAX))
        super().__init__(
            f"'{app}' has ended on {where} without making what it promised in outputs: {listed}. See that it writes to "
            "these very paths; it gets them if it has a parameter named outputs."
        )
        self.app = app
        self.paths = tuple(paths)


class RankError(TaskError):
    """A task over several ranks failed; its `__cause__` has what the first failing rank raised.

    Attributes:
        rank: the rank that failed first, or None if that is not known.
        host: where it ran, or empty.
        failed: all ranks that failed by themselves, in order; others were ended because of them.
        exit_code: the exit code of the first, minus the signal's number if a signal ended it, or None if
            it raised an exception.
    """

    def __init__(
        self, message: str, rank: int | None, host: str, failed: tuple[int, ...], exit_code: int | None
    ) -> None:
        super().__init__(message)
        self.rank = rank
        self.host = host
        self.failed = failed
        self.exit_code = exit_code


class DependencyError(TaskError):
    """A task could not run because a task it needs has failed; `__cause__` is the first failure.

    Attributes:
        chain: the tasks between, nearest first, the one that failed last; long chains are cut in
            the middle.
        stderr: path of the file with the stderr of the task that failed first, or None if it had none.
        stderr_tail: its last lines, as far as they could be read.
    """

    def __init__(
        self, message: str, chain: tuple[str, ...] = (), stderr: str | None = None, stderr_tail: str = ""
    ) -> None:
        super().__init__(message)
        self.chain = chain
        self.stderr = stderr
        self.stderr_tail = stderr_tail


class StagingError(TaskError, OSError):
    """A file cannot be fetched from a URL, or stored there; the message has the URL, the node and the reason."""


class SerializationError(TaskError):
    """A value cannot be pickled or unpickled; the message names the argument or the result."""


class InfrastructureError(PilotflowError):
    """A process, a node, a block or a link failed. Not the fault of the task's code."""


class WorkerLost(InfrastructureError, BrokenExecutor):
    """The worker running a task died, as often as the task's crash limit allows.

    Attributes:
        attempts: one line for each attempt: where it ran and how it ended.
    """

    def __init__(self, message: str, attempts: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.attempts = attempts


class InterchangeLost(InfrastructureError, BrokenExecutor):
    """The run's interchange process died or stopped answering. The message names its log."""


class BlockStartError(InfrastructureError, BrokenExecutor):
    """Blocks of an executor end before a manager can work; the message has the block's own stderr."""


class InitializerFailed(InfrastructureError, BrokenExecutor):
    """The `initializer` given to `PilotExecutor` raised in a worker, or ended worker after worker: the pool is broken."""


class RunClosed(InfrastructureError, RuntimeError):
    """The run or executor is closed (or belongs to another process) and takes no more tasks."""


class InternalError(PilotflowError):
    """A bug in pilotflow. Please report it with the log that the message names."""


class RemoteTraceback(Exception):
    """The traceback of an exception as it was formatted where it was raised.

    It is the `__cause__` of exceptions that come back from workers.

    Args:
        text: the traceback.
        keep: what must live as long as the exception.
    """

    def __init__(self, text: str, keep: object = None) -> None:
        super().__init__(text)
        self.text = text
        self._keep = keep

    def append(self, line: str) -> None:
        """Have it show one more line."""
        self.text = f"{self.text.rstrip()}\n{line}\n"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.text,)

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'
