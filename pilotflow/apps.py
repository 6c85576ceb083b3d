"""Apps: decorated functions whose calls are tasks.

@python_app                 the call's result is the function's
@bash_app                   the function returns a command, which is run; the result is 0
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeAlias, TypeVar, overload

from pilotflow.bodies import pack_function
from pilotflow.errors import ConfigError, RunClosed, SerializationError
from pilotflow.futures import AppFuture
from pilotflow.ids import WORKER_VARIABLE
from pilotflow.requests import parse_request
from pilotflow.resources import DEFAULT_REQUEST, Request
from pilotflow.run import Run, current_run
from pilotflow.runtime.tasks import AfterInputs, BashCall, Output, PythonCall
from pilotflow.serialize import Packed, pack_call
from pilotflow.units import nearest

R = TypeVar("R")


class _AutoLogName:
    """The type of `AUTO_LOGNAME`."""

    def __repr__(self) -> str:
        return "AUTO_LOGNAME"

    def __reduce__(self) -> str:
        return "AUTO_LOGNAME"


AUTO_LOGNAME: Final = _AutoLogName()
"""As `stdout` or `stderr`: a file in the run directory, `tasks/APP/LABEL.out` or `.err`."""

Target: TypeAlias = "str | os.PathLike[str] | tuple[str | os.PathLike[str], str] | _AutoLogName | None"

_REQUEST_WORDS = frozenset(
    ["num_cpus", "memory", "num_gpus", "num_nodes", "ranks_per_node", "runtime", "priority", "resources"]
)
_OTHER_WORDS = frozenset(["executors", "retries", "crash_limit", "stdout", "stderr", "label", "return_ranks"])
_CALL_WORDS = ("stdout", "stderr", "inputs", "label")
"""Keywords of a call that are ours unless the function has a parameter of that name; then both."""


_PLAIN, _WRAPPED, _WITH_INPUTS = 0, 1, 2
"""Shapes in which a function travels: bare, with its output redirected, with things to wait for."""


@dataclass(frozen=True)
class AppOptions:
    """What a decorator says about all calls of an app."""

    executors: tuple[str, ...] = ()
    request: Request = DEFAULT_REQUEST
    retries: int | None = None
    crash_limit: int | None = None
    stdout: Target = None
    stderr: Target = None
    label: str | None = None
    all_ranks: bool = False


@dataclass(frozen=True)
class _Bound:
    """What an app is in one run."""

    run: Run
    fn: int
    cls: int
    retries: int


class App(Generic[R]):
    """A decorated function. Calling it submits a task to the current run and returns its future.

    To type checkers a call takes anything: futures may stand for arguments, and there are `stdout`,
    `stderr`, `inputs` and `label`.
    """

    __name__: str

    def __init__(self, function: Callable[..., Any], bash: bool, options: AppOptions) -> None:
        functools.update_wrapper(self, function)
        self.__pilotflow_function__ = function
        self._bash = bash
        self._options = options
        self._name = getattr(function, "__name__", type(function).__name__)
        self._parameters = _parameters(function)
        self._defaults = {
            word: parameter.default
            for word in ("stdout", "stderr")
            if (parameter := self._parameters.get(word)) is not None and parameter.default is not parameter.empty
        }
        redirects = bool(options.stdout or options.stderr or any(self._defaults.values()))
        self._always_wrapped = bash or redirects
        self._bound: dict[int, _Bound] = {}
        self._lock = threading.Lock()

    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[R]:
        """Submit one call.

        Raises:
            RunClosed: there is no run; see `pilotflow.load`.
            InterchangeLost: the run has failed.
        """
        if self._always_wrapped or (kwargs and not kwargs.keys().isdisjoint(_CALL_WORDS)):
            return self._call_with_words(args, dict(kwargs))
        run = self._current_run()
        bound = self._bound.get(_PLAIN)
        if bound is None or bound.run is not run:
            bound = self._bind(run, _PLAIN)
        future: AppFuture[R] = AppFuture(run.client.new_id(), self._name, run.client, bound.fn)
        self._submit(bound, future, args, kwargs)
        return future

    def _submit(
        self,
        bound: _Bound,
        future: AppFuture[R],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ours: tuple[str, ...] = (),
    ) -> None:
        needs: list[Future[Any]] = []
        try:
            packed: Packed = pack_call(args, kwargs, needs, ours)
        except SerializationError as error:
            bound.run.client.check_open()
            future.fail(SerializationError(f"in a call of app '{self._name}': {error}").with_traceback(None))
            return
        bound.run.client.submit(future, bound.fn, bound.cls, packed, needs or None, bound.retries)

    def _current_run(self) -> Run:
        try:
            return current_run()
        except RunClosed:
            if WORKER_VARIABLE in os.environ:
                raise _inside_a_task(self._name) from None
            raise

    def _call_with_words(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AppFuture[R]:
        """A call with `stdout`, `stderr`, `inputs` or `label`, or of an app that has such."""
        run = self._current_run()
        given = {word: kwargs[word] for word in _CALL_WORDS if word in kwargs}
        for word in given:
            if word not in self._parameters:
                del kwargs[word]
        positional = list(self._parameters)[: len(args)]
        given.update((word, args[i]) for i, word in enumerate(positional) if word in ("stdout", "stderr", "label"))
        wrapped = self._always_wrapped or "stdout" in given or "stderr" in given
        extra = "inputs" in given and "inputs" not in self._parameters
        shape = (_WRAPPED if wrapped else _PLAIN) | (_WITH_INPUTS if extra else _PLAIN)
        bound = self._bound.get(shape)
        if bound is None or bound.run is not run:
            bound = self._bind(run, shape)
        future: AppFuture[R] = AppFuture(run.client.new_id(), self._name, run.client, bound.fn)
        ours: tuple[str, ...] = ()
        if wrapped:
            args, ours = self._redirect(run, future, given, args, kwargs), ("output",)
        if extra:  # only waited for: the worker drops them
            args, ours = (_listed(given["inputs"]), *args), ("inputs", *ours)
        self._submit(bound, future, args, kwargs, ours)
        return future

    def _redirect(
        self,
        run: Run,
        future: AppFuture[R],
        given: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, ...]:
        """The arguments with an `Output` before them, and paths where the function asks for them."""
        label = given.get("label", self._options.label)
        _check_label(label, "label")
        places: dict[str, tuple[str, str] | None] = {}
        for word, suffix in (("stdout", "out"), ("stderr", "err")):
            target = given.get(word, self._defaults.get(word) or getattr(self._options, word))
            place = _place(target, run.directory / "tasks" / self._name, future.task_id, label, suffix, word)
            places[word] = place
            if place is None or word not in self._parameters:
                continue
            at = list(self._parameters).index(word)
            if at < len(args):
                args = (*args[:at], place[0], *args[at + 1 :])
            else:
                kwargs[word] = place[0]
        output = Output(**places)
        future.stdout = output.stdout[0] if output.stdout else None
        future.stderr = output.stderr[0] if output.stderr else None
        return (output, *args)

    def _bind(self, run: Run, shape: int) -> _Bound:
        """Make the app known to a run, at its first call there."""
        with self._lock:
            bound = self._bound.get(shape)
            if bound is not None and bound.run is run:
                return bound
            function: Any = self.__pilotflow_function__
            if self._bash:
                function = BashCall(function, self._name)
            elif shape & _WRAPPED:
                function = PythonCall(function)
            if shape & _WITH_INPUTS:
                function = AfterInputs(function)
            bound = self._bound[shape] = self._known_to(run, function)
            return bound

    def _known_to(self, run: Run, function: Any) -> _Bound:
        options = self._options
        run.check_executors(options.executors, f"app '{self._name}'")
        limit = run.config.crash_limit if options.crash_limit is None else options.crash_limit
        fn = run.define_function(self._name, pack_function(function), all_ranks=options.all_ranks)
        cls = run.client.define_class(options.request, options.executors, limit)
        return _Bound(run, fn, cls, run.config.retries if options.retries is None else options.retries)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return functools.partial(self, instance)

    def __repr__(self) -> str:
        return f"<{'bash' if self._bash else 'python'}_app {self._name}>"

    def __reduce__(self) -> Any:
        return _Stub, (self._name,)


class _Stub:
    """What an app is inside a task: not to be called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: Any, **__: Any) -> None:
        raise _inside_a_task(self.name)


def _inside_a_task(name: str) -> RunClosed:
    return RunClosed(
        f"app '{name}' was called inside a task, and tasks cannot submit tasks. Call the plain function there, or "
        "return what the next app needs and call it in the program."
    )


def _listed(inputs: Any) -> list[Any]:
    try:
        return list(inputs)
    except TypeError:
        raise ConfigError(f"inputs=... takes a list of futures and values, not {type(inputs).__name__}") from None


@overload
def python_app(function: Callable[..., R]) -> App[R]: ...
@overload
def python_app(**options: Any) -> Callable[[Callable[..., R]], App[R]]: ...
def python_app(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function an app: its calls run on workers and return futures.

    Args:
        function: what to decorate, when used bare.
        options: executors (labels it is bound to), retries, crash_limit (attempts that may lose
            their worker; 1 means the task is never run twice), stdout and stderr (path,
            (path, mode) or AUTO_LOGNAME), label, return_ranks (of tasks of several ranks: "first" for
            what rank 0 returns, "all" for the list of what all do), and the request: num_cpus, memory,
            num_gpus, num_nodes, ranks_per_node, runtime, priority, resources.

    Raises:
        ConfigError: a keyword or its value is wrong; names the nearest valid one.

    Example:
        >>> @python_app
        ... def square(x): return x * x
    """
    return _decorator(function, False, options)


@overload
def bash_app(function: Callable[..., str]) -> App[int]: ...
@overload
def bash_app(**options: Any) -> Callable[[Callable[..., str]], App[int]]: ...
def bash_app(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function that returns a command an app: its calls run the command in bash.

    The function's body runs on the worker. The result is 0; another exit code is a
    `BashExitError`. A command that needs no shell is run without one. See `python_app` for the
    options.

    Example:
        >>> @bash_app
        ... def count(path, stdout=AUTO_LOGNAME): return f"wc -l {path}"
    """
    return _decorator(function, True, options)


def _decorator(function: Any, bash: bool, words: dict[str, Any]) -> Any:
    which = "bash_app" if bash else "python_app"
    options = _options(which, words)

    def decorate(target: Callable[..., Any]) -> App[Any]:
        if not callable(target):
            raise ConfigError(f"@{which} decorates a function, not {type(target).__name__}")
        return App(target, bash, options)

    return decorate if function is None else decorate(function)


def _options(which: str, words: dict[str, Any]) -> AppOptions:
    valid = _REQUEST_WORDS | _OTHER_WORDS
    for word in words:
        if word not in valid:
            close = nearest(word, sorted(valid))
            hint = f" Did you mean {close}?" if close else f" Valid here: {', '.join(sorted(valid))}."
            raise ConfigError(f"@{which} has no keyword '{word}'.{hint}")
    request_words = {word: value for word, value in words.items() if word in _REQUEST_WORDS}
    executors = words.get("executors", ())
    if isinstance(executors, str):
        executors = () if executors == "all" else (executors,)
    if not isinstance(executors, Sequence) or not all(isinstance(label, str) for label in executors):
        raise ConfigError(f"@{which}(executors=...) takes a list of executor labels, not {executors!r}")
    for word, least in (("retries", 0), ("crash_limit", 1)):
        value = words.get(word)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ConfigError(f"@{which}({word}=...) takes a whole number from {least}, not {value!r}")
    for word in ("stdout", "stderr"):
        _check_target(words.get(word), f"@{which}({word}=...)")
    _check_label(words.get("label"), f"@{which}(label=...)")
    if words.get("return_ranks", "first") not in ("first", "all"):
        raise ConfigError(f"@{which}(return_ranks=...) takes 'first' or 'all', not {words['return_ranks']!r}")
    return AppOptions(
        executors=tuple(executors),
        request=parse_request(**request_words) if request_words else DEFAULT_REQUEST,
        retries=words.get("retries"),
        crash_limit=words.get("crash_limit"),
        stdout=words.get("stdout"),
        stderr=words.get("stderr"),
        label=words.get("label"),
        all_ranks=words.get("return_ranks") == "all",
    )


def _parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # builtins without a signature
        return {}


def _check_label(label: Any, where: str) -> None:
    if label is not None and (not isinstance(label, str) or not label or "/" in label or label.startswith(".")):
        raise ConfigError(f"{where} takes a name for files, without '/' and not beginning with '.', not {label!r}")


def _check_target(target: Any, where: str) -> None:
    whole = isinstance(target, (str, os.PathLike, _AutoLogName)) or target is None
    pair = isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], (str, os.PathLike))
    if not whole and not (pair and target[1] in ("a", "a+", "w", "w+")):
        raise ConfigError(f"{where} takes a path, (path, 'a' or 'w'), or AUTO_LOGNAME, not {target!r}")


def _place(
    target: Any, directory: Path, task_id: int, label: str | None, suffix: str, word: str
) -> tuple[str, str] | None:
    _check_target(target, word)
    if target is None:
        return None
    if target is AUTO_LOGNAME:
        name = f"{task_id:06d}" if label is None else f"{label}-{task_id:06d}"
        return str(directory / f"{name}.{suffix}"), "a"
    if isinstance(target, tuple):
        return os.path.abspath(target[0]), target[1]
    return os.path.abspath(target), "a"
