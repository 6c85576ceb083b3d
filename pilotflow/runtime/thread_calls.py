"""Calls of tasks in threads of the user's program, which may not change what belongs to the whole program.

What is printed goes to a task's files by way of `sys.stdout` and `sys.stderr`; a command is a process of
its own, with its own directory, variables and limits, that can be ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import IO, Any, Final

from pilotflow.context import SCRATCH_VARIABLE, scratch_directory
from pilotflow.errors import ConfigError
from pilotflow.messages.records import Excess, Status, Task, encode_excess
from pilotflow.resources import Request
from pilotflow.runtime.calls import Calls
from pilotflow.runtime.commands import in_bash
from pilotflow.runtime.own_stderr import OWN_STDERR
from pilotflow.runtime.task_output import Output, opened
from pilotflow.runtime.tasks import BashCall, InSetting, OtherForm, PythonCall, Setting, described, is_command
from pilotflow.serialize import Packed

GRACE_S: Final = 5.0
"""Between the warning and the end of a command that has exceeded its limit."""


class Running:
    """A task that a thread runs.

    Args:
        task: its number.
        request: what it has asked for.

    Attributes:
        request: what it has asked for.
        excess: what it has taken too much of, once it was ended for that.
        begun: whether it is past the point where `end` has it not begin.
        can_end: whether it has not begun, or is a command.
    """

    def __init__(self, task: int, request: Request) -> None:
        self.task = task
        self.excess: Excess | None = None
        self.request = request
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = False
        self.begun = False
        self.can_end = True

    def begin(self, *, is_command: bool) -> bool:
        """It begins; False if it was ended before."""
        with self._lock:
            if not self._ending:
                self.begun, self.can_end = True, is_command
            return self.begun

    def may_end(self) -> bool:
        """Whether it can be ended; what has not begun does not then."""
        with self._lock:
            self._ending = self._ending or not self.begun
            return self.can_end

    def end(self) -> None:
        """End its command with everything that it has started, or have it not begin."""
        with self._lock:
            self._ending = True
            process = self._process
        if process is not None:
            _end_tree(process.pid, signal.SIGKILL)

    def run(self, argv: list[str], **how: Any) -> int:
        """Run a command to its end, or for as long as it may; its exit code, minus the signal's number if one ended it.

        Raises:
            OSError: it cannot be started.
        """
        begun = time.monotonic()
        with self._lock:
            if self._ending:
                return -signal.SIGKILL
            self._process = subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, **how)
        try:
            return self._process.wait(self.request.limit_s)
        except subprocess.TimeoutExpired:
            _end_tree(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        _end_tree(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        limit_s = self.request.limit_s or 0.0
        kind = "timeout" if limit_s == self.request.timeout_s else "runtime"
        where = f"a thread of the program on {socket.gethostname()}"
        self.excess = Excess(kind, limit_s, time.monotonic() - begun, where)
        return code


RUNNING_HERE: ContextVar[Running] = ContextVar("pilotflow_running_in_thread")
"""The task of this thread."""


class ThreadCalls(Calls):
    """The calls of one thread.

    Args:
        bodies: packed functions by number.
        max_bytes: largest result.
    """

    def __init__(self, bodies: dict[int, bytes], max_bytes: int) -> None:
        super().__init__(max_bytes, snapshot=True)
        self._bodies = bodies

    @property
    def exit_code(self) -> int | None:
        """That of the last task's command."""
        return self._exit_code

    def call_here(self, running: Running, task: Task, frames: list[Any]) -> tuple[Status, Packed]:
        """As `call`; a command that took too long has EXCEEDED, and what was ended before it began is CANCELLED."""
        RUNNING_HERE.set(running)
        command = False
        with contextlib.suppress(Exception):  # it will be raised again, and then it is the task's error
            command = is_command(self._functions.get(task.fn) or self._load(task.fn))
        if not running.begin(is_command=command):
            return Status.CANCELLED, Packed(b"")
        status, packed = self.call(task, frames)
        if running.excess is not None:
            return Status.EXCEEDED, Packed(encode_excess(running.excess))
        return status, packed

    def _load(self, fn: int) -> Callable[..., Any]:
        if len(self._functions) > 2 * len(self._bodies):
            for gone in [known for known in self._functions if known not in self._bodies]:  # they are forgotten
                del self._functions[gone]
        function = self._functions[fn] = InThread(super()._load(fn))
        return function


class InThread(OtherForm):
    """Does in a thread what a function in its wrappers does in a process of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._in_setting = isinstance(function, InSetting)
        call: Any = function.function if isinstance(function, InSetting) else function
        self._command = call if isinstance(call, BashCall) else None
        self._with_output = isinstance(call, (BashCall, PythonCall))
        self._function: Callable[..., Any] = call.function if self._with_output else call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it; raises what it raises."""
        if self._in_setting:
            setting, _, *rest = args
            if setting.scratch:
                with scratch_directory(self._name) as path:
                    env = (*setting.env, (SCRATCH_VARIABLE, str(path)))
                    return self._in(setting._replace(env=env, cwd=setting.cwd or str(path)), tuple(rest), kwargs)
            return self._in(setting, tuple(rest), kwargs)
        return self._in(Setting(), args, kwargs)

    def _in(self, setting: Setting, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = Output(None, None)
        if self._with_output:
            output, *rest = args
            args = tuple(rest)
        with setting.with_streams_stored():
            if self._command is not None:
                value = self._run(self._command, setting, output, self._function(*args, **kwargs))
            else:
                with printed_to(output):
                    value = self._function(*args, **kwargs)
            setting.keep_promise(self._name)
        return value

    @property
    def _name(self) -> str:
        return described(self.function)[0]

    def _run(self, call: BashCall, setting: Setting, output: Output, command: Any) -> int:
        text = call.checked(command)
        environment = {**os.environ, **{name: value for name, value in setting.env if value is not None}}
        for name, value in setting.env:
            if value is None:
                environment.pop(name, None)
        running = RUNNING_HERE.get()
        own = OWN_STDERR.get() if output.stderr is None else None
        fallback = own.begin() if own is not None else -1
        with opened(output) as files:
            streams = {("stdin", "stdout", "stderr")[fd]: file for fd, file in files}
            if fallback >= 0:
                streams["stderr"] = fallback
            try:
                code = running.run(in_bash(text), cwd=setting.cwd, env=environment, **streams)
            except OSError as error:
                if setting.cwd is None or error.filename != setting.cwd:
                    raise call.unstartable(text, error) from None
                raise ConfigError(f"the cwd of '{call.name}' cannot be entered: {error}") from None
        if code:
            raise call.failure(code, output, own)
        if own is not None:
            own.end()
        return 0


def _end_tree(pid: int, number: int) -> None:
    """Send a signal to a process that leads its session, and to all it has started, whatever session they are in."""
    import psutil  # only when something is ended

    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        children = []
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
    for child in children:
        with contextlib.suppress(psutil.Error):
            child.send_signal(number)


# ---- what is printed ------------------------------------------------------------------------


class _Printed(threading.local):
    """Where what a thread prints goes, by the stream's name; elsewhere it goes where it always does."""

    def __init__(self) -> None:
        self.files: dict[str, IO[str]] = {}


_printed = _Printed()


class _ByThread:
    """A stream of the program; of a thread whose task has a file, what it writes goes there."""

    def __init__(self, name: str, stream: Any) -> None:
        self._name = name
        self.stream = stream

    def write(self, text: str) -> int:
        return int(_printed.files.get(self._name, self.stream).write(text))

    def writelines(self, lines: Any) -> None:
        for text in lines:
            self.write(text)

    def flush(self) -> None:
        _printed.files.get(self._name, self.stream).flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def printed_to(output: Output) -> Iterator[None]:
    """What this thread prints goes to these files; what C code and child processes write does not."""
    if output.stdout is None and output.stderr is None:
        yield
        return
    with opened(output) as files, contextlib.ExitStack() as stack:
        for fd, opened_fd in files:
            name = ("stdin", "stdout", "stderr")[fd]
            if not isinstance(getattr(sys, name), _ByThread):
                setattr(sys, name, _ByThread(name, getattr(sys, name)))
            file = open(os.dup(opened_fd), "w", encoding="utf-8", errors="replace", buffering=1)  # noqa: SIM115  below
            _printed.files[name] = stack.enter_context(file)
        try:
            yield
        finally:
            _printed.files.clear()


def give_streams_back() -> None:
    """The program's streams are its own again."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, _ByThread):
            setattr(sys, name, stream.stream)
