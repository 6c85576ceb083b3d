"""What a worker calls for tasks that are more than a plain function call."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pilotflow.context import SCRATCH_VARIABLE, scratch_directory
from pilotflow.errors import BashExitError, ConfigError, DependencyError, MissingOutputs, StagingError
from pilotflow.launchers.nesting import refuse_nested
from pilotflow.remote_errors import add_note
from pilotflow.runtime.own_stderr import OWN_STDERR, OwnStderr
from pilotflow.runtime.tails import tail

_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./ -]*")
"""A command without anything that a shell would interpret."""
_SHELL_WORDS = frozenset(
    "alias bg bind break builtin caller case cd command compgen complete compopt continue coproc declare "  # noqa: SIM905  a line a word would hide the code below
    "dirs disown do done echo elif else enable esac eval exec exit export fc fg fi for function getopts hash "
    "help history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return "
    "select set shift shopt source suspend test then time times trap type typeset ulimit umask unalias unset until "
    "wait while".split()
)
"""Builtins and reserved words of bash: a command that begins with one needs the shell."""


class Output(NamedTuple):
    """Where a task's output goes: (path, mode) for each stream, or None to leave it."""

    stdout: tuple[str, str] | None
    stderr: tuple[str, str] | None


class AsyncCall:
    """An `async def` function, called in an event loop of its own."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.function = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it to its end; raises what it raises."""
        import asyncio  # it takes a while, and only these need it

        return asyncio.run(self.function(*args, **kwargs))


class PythonCall:
    """A function whose printed output goes to files; its first argument is an `Output`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, output: Output, /, *args: Any, **kwargs: Any) -> Any:
        """Call it; raises what it raises."""
        with _redirected(output):
            return self.function(*args, **kwargs)


class BashCall:
    """A function that returns a command, and the command; its first argument is an `Output`."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function = function
        self.name = name

    def __call__(self, output: Output, /, *args: Any, **kwargs: Any) -> int:
        """Run the command; 0.

        Raises:
            ConfigError: the function did not return a command, or one that would start processes inside a step.
            BashExitError: the command failed.
            OSError: it cannot be started.
        """
        command = self.checked(self.function(*args, **kwargs))
        refuse_nested(self.name, command, os.environ)
        own = OWN_STDERR.get() if output.stderr is None else None
        try:
            code = run_command(command, output, own.begin() if own is not None else -1)
        except OSError as error:
            raise self.unstartable(command, error) from None
        if code:
            raise self.failure(code, output, own)
        if own is not None:
            own.end()
        return 0

    def failure(self, code: int, output: Output, own: OwnStderr | None) -> BashExitError:
        """The error of a command that has ended with this exit code.

        Args:
            code: not 0; minus the signal's number if a signal ended it.
            output: its files.
            own: what its stderr went to if it has no file for it.
        """
        if own is not None and own.path is not None:
            words = own.tail()
            own.end()
            return BashExitError(self.name, code, None, words, own.path)
        path = output.stderr[0] if output.stderr else None
        return BashExitError(self.name, code, path, tail(path) if path else "")

    def checked(self, command: Any) -> str:
        """What the function has returned, if it is a command.

        Raises:
            ConfigError: it is none.
        """
        if not isinstance(command, str):
            what = 'None. End its function with `return f"..."`' if command is None else type(command).__name__
            raise ConfigError(f"bash app '{self.name}' must return its command as a str, it returned {what}")
        if "\0" in command:
            raise ConfigError(
                f"the command of bash app '{self.name}' holds the character NUL, which ends texts. Write such data "
                "into a file, and name that in the command."
            )
        return command

    def unstartable(self, command: str, error: OSError) -> Exception:
        """The error of a command that cannot be started."""
        if error.errno != errno.E2BIG:
            return error
        return ConfigError(
            f"the command of bash app '{self.name}' has {len(command):,} characters, which with its environment is "
            "more than this machine starts. Write what is long into a file, and name that in the command."
        )


class Setting(NamedTuple):
    """The surroundings that a task runs in, where they are not its worker's.

    Attributes:
        cwd: its working directory, or None for the worker's.
        env: variables to set, or with None to unset.
        outputs: paths of files that it promises to make.
        uploads: those of them that are to be stored elsewhere (`pilotflow.files.File`).
        scratch: whether it gets a directory of its own, which is also where it runs unless `cwd` says otherwise.
        streams: files of its stdout and stderr that are to be stored elsewhere, like `uploads`.
    """

    cwd: str | None = None
    env: tuple[tuple[str, str | None], ...] = ()
    outputs: tuple[str, ...] = ()
    uploads: tuple[Any, ...] = ()
    scratch: bool = False
    streams: tuple[Any, ...] = ()

    def keep_promise(self, name: str) -> None:
        """See that what was promised is there, and store what belongs elsewhere.

        Args:
            name: of the app.

        Raises:
            MissingOutputs: it is not there.
            StagingError: it cannot be stored where it belongs.
        """
        missing = [path for path in self.outputs if not os.path.exists(path)]
        if missing:
            raise MissingOutputs(name, missing, socket.gethostname())
        for file in self.uploads:
            file.store()

    @contextlib.contextmanager
    def with_streams_stored(self) -> Iterator[None]:
        """Store what was printed where it belongs, also if the task fails.

        Raises:
            StagingError: it cannot be stored; if the task fails as well, its exception has a note of that.
        """
        try:
            yield
        except BaseException as error:
            try:
                self._store_streams()
            except (StagingError, ConfigError) as problem:
                add_note(error, str(problem))
            raise
        self._store_streams()

    def _store_streams(self) -> None:
        for file in self.streams:
            if os.path.exists(file):  # else it could not be opened
                file.store()


class InSetting:
    """Calls a function in a `Setting`, its first argument; its second are values that were only waited for."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function = function
        self.name = name

    def __call__(self, setting: Setting, _: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call it; raises what it raises.

        Raises:
            ConfigError: its working directory cannot be entered.
            MissingOutputs: it has not made what it promised.
            StagingError: what it has made cannot be stored where it belongs.
        """
        if setting.scratch:
            with scratch_directory(self.name) as path:
                env = (*setting.env, (SCRATCH_VARIABLE, str(path)))
                return self(setting._replace(env=env, cwd=setting.cwd or str(path), scratch=False), _, *args, **kwargs)
        with setting.with_streams_stored():
            with _environment(setting.env), _directory(setting.cwd, self.name):
                value = self.function(*args, **kwargs)
            setting.keep_promise(self.name)
        return value


@contextlib.contextmanager
def _environment(variables: Sequence[tuple[str, str | None]]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name, _ in variables}
    _set_variables(variables)
    try:
        yield
    finally:
        _set_variables(before.items())


def _set_variables(variables: Iterable[tuple[str, str | None]]) -> None:
    for name, value in variables:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _directory(path: str | None, name: str) -> Iterator[None]:
    """The worker's working directory is that one, and its own again afterwards, even if the task has removed it."""
    if path is None:
        yield
        return
    back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.chdir(path)
        except OSError as error:
            raise ConfigError(
                f"the cwd of '{name}' cannot be entered on {socket.gethostname()}: {error}. Give a directory that is "
                "there on every node, or have the task make it."
            ) from None
        yield
    finally:
        os.fchdir(back)
        os.close(back)


class OtherForm:
    """Does in another way what a function does that is made for workers.

    Attributes:
        function: as it is made for workers.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def is_command(function: Any) -> bool:
    """Whether a task's function runs a command, and so has an exit code."""
    if isinstance(function, OtherForm):
        return is_command(function.function)
    return type(function) is BashCall or (type(function) is InSetting and type(function.function) is BashCall)


def invoke(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call something that travelled as an argument."""
    return function(*args, **kwargs)


def part(whole: Any, take: tuple[Callable[[Any, Any], Any], Any], name: str) -> Any:
    """A part of a result that an argument stands for; called on the worker.

    Raises:
        DependencyError: the result has no such part.
    """
    function, key = take
    try:
        return function(whole, key)
    except Exception as error:
        text = f"the argument '{name}' cannot be had of that result ({type(whole).__name__})"
        raise DependencyError(f"{text}: {type(error).__name__}: {error}", (f"'{name}'",)) from error


def second(_: Any, value: Any) -> Any:
    """The value, once there is a result."""
    return value


def described(function: Callable[..., Any] | OtherForm) -> tuple[str, tuple[str, ...]]:
    """The name of what a task calls, and names for the arguments that stand before those of its caller."""
    if isinstance(function, OtherForm):
        return described(function.function)
    if isinstance(function, InSetting):
        name, ours = described(function.function)
        return name, ("setting", "inputs", *ours)
    if isinstance(function, (PythonCall, BashCall)):
        return described(function.function)[0], ("output",)
    if isinstance(function, AsyncCall):
        return described(function.function)
    if function is invoke:
        return "call", ("function",)
    return getattr(function, "__name__", type(function).__name__), ()


def run_command(command: str, output: Output, stderr: int = -1) -> int:
    """Run a command in bash, or without it if it needs none; returns its exit code.

    The code is minus the signal's number if a signal ended it.

    Args:
        command: what to run.
        output: files for its streams.
        stderr: what else is to be its stderr, an open file; -1 for ours.

    Raises:
        ConfigError: an output file cannot be opened.
    """
    with opened(output) as files:
        actions = [(os.POSIX_SPAWN_DUP2, file, fd) for fd, file in files]
        if stderr >= 0:
            actions.append((os.POSIX_SPAWN_DUP2, stderr, 2))
        flush_output()
        argv = plain_argv(command)
        try:
            pid = _spawn(argv or in_bash(command), actions)
        except OSError:  # gone since it was looked up, or a script without a first line: bash knows what to do
            if argv is None:
                raise
            pid = _spawn(in_bash(command), actions)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_bash(command: str) -> list[str]:
    """The argument list that has bash run a command."""
    return ["/bin/bash", "-c", command]


def _spawn(argv: list[str], actions: list[tuple[int, int, int]]) -> int:
    return os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGINT])


def plain_argv(command: str) -> list[str] | None:
    """The argument list of a command that means the same with and without a shell, or None."""
    command = command.strip(" ")
    if not _PLAIN.fullmatch(command):
        return None
    argv = command.split()
    if argv[0] in _SHELL_WORDS or "=" in argv[0] or argv[0].startswith("-"):
        return None
    program = _program(argv[0], os.environ.get("PATH", os.defpath))
    return None if program is None else [program, *argv[1:]]


@lru_cache(maxsize=256)
def _program(name: str, path: str) -> str | None:
    import shutil  # it takes a while, and only commands need it

    return shutil.which(name, path=path)


def flush_output() -> None:
    """Bring what was printed to its file; a task may have closed or replaced the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue


@contextlib.contextmanager
def opened(output: Output) -> Iterator[list[tuple[int, int]]]:
    """(1 or 2, descriptor of its file) for each stream that has one; both may have the same.

    Raises:
        ConfigError: a file cannot be written to.
    """
    files: list[tuple[int, int]] = []
    by_path: dict[str, int] = {}
    try:
        for fd, target in ((1, output.stdout), (2, output.stderr)):
            if target is None:
                continue
            path, mode = target
            if path not in by_path:
                try:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    by_path[path] = os.open(path, _flags(mode), 0o666)
                except OSError as error:
                    raise ConfigError(
                        f"the task's {'stdout' if fd == 1 else 'stderr'} cannot go to {path} on {socket.gethostname()}: "
                        f"{error}. Name a file in a directory where every node can write, or use AUTO_LOGNAME."
                    ) from None
            files.append((fd, by_path[path]))
        yield files
    finally:
        for opened in by_path.values():
            os.close(opened)


@contextlib.contextmanager
def _redirected(output: Output) -> Iterator[None]:
    """Descriptors 1 and 2 go to files, so that C code and child processes write there too."""
    with opened(output) as files:
        flush_output()
        saved = [(fd, os.dup(fd)) for fd, _ in files]
        for fd, file in files:
            os.dup2(file, fd)
    try:
        yield
    finally:
        flush_output()
        for fd, copy in saved:
            os.dup2(copy, fd)
            os.close(copy)


def _flags(mode: str) -> int:
    return os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if mode.startswith("w") else os.O_APPEND)
