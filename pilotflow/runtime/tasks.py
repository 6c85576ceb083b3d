"""What a worker calls for tasks that are more than a plain function call."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pilotflow.context import SCRATCH_VARIABLE, scratch_directory
from pilotflow.errors import BashExitError, ConfigError, DependencyError, MissingOutputs, StagingError
from pilotflow.launchers.nesting import refuse_nested
from pilotflow.remote_errors import add_note
from pilotflow.runtime.commands import run_command
from pilotflow.runtime.own_stderr import OWN_STDERR, OwnStderr
from pilotflow.runtime.tails import tail
from pilotflow.runtime.task_output import Output, redirected


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
        with redirected(output):
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
