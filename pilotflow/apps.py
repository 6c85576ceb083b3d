"""Apps: decorated functions whose calls are tasks.

@python_app                 the call's result is the function's
@bash_app                   the function returns a command, which is run; the result is 0
@join_app                   the function starts apps, and the result is theirs (see `joins`)

What the keywords may be is in `app_options`, what happens to calls with more than a function's own
arguments in `app_calls`.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

import msgspec

from pilotflow.app_calls import CALL_WORDS, PLAIN, Manner, parameters_of
from pilotflow.app_options import AppOptions, parse_options
from pilotflow.bodies import pack_function
from pilotflow.core.retry import Policy
from pilotflow.current import current_run
from pilotflow.errors import ConfigError, RunClosed, SerializationError
from pilotflow.futures import AppFuture
from pilotflow.ids import WORKER_VARIABLE
from pilotflow.notebook import table
from pilotflow.run import Run
from pilotflow.serialize import Packed, pack_call

if TYPE_CHECKING:
    from pilotflow.app_caching import AppCache
    from pilotflow.runtime.client import Client

R = TypeVar("R")

BULK: Final = 1000
"""So many calls of `map` are handed over at once."""


@dataclass(frozen=True)
class _Bound:
    """What an app is in one run."""

    run: Run
    fn: int
    cls: int
    policy: Policy | None


class _Numbers:
    """Under which numbers a function is known to a run, in each shape; shared by an app and its `options()`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._run: Run | None = None
        self._known: dict[tuple[int, bool], int] = {}

    def of(self, run: Run, manner: Manner, shape: int, options: AppOptions, name: str) -> int:
        """The number of the function in that shape; makes it known if it is not. Called with the lock held."""
        if self._run is not run:
            self._run, self._known = run, {}
        key = (shape, options.all_ranks)
        number = self._known.get(key)
        if number is None:
            run.edited.look(manner.function)
            body = pack_function(manner.wrapped(shape))
            number = self._known[key] = run.define_function(name, body, all_ranks=options.all_ranks, owner=self)
        return number


class App(Generic[R]):
    """A decorated function. Calling it submits a task to the current run and returns its future.

    To type checkers a call takes anything: futures may stand for arguments, and there are `stdout`,
    `stderr`, `inputs`, `outputs` and `label`.
    """

    __name__: str
    kind = "python_app"

    def __init__(self, function: Callable[..., Any], bash: bool, words: Mapping[str, Any], options: AppOptions) -> None:
        functools.update_wrapper(self, function)
        self.__pilotflow_function__ = function
        self._bash = bash
        if bash:
            self.kind = "bash_app"
        self._words = words
        self._options = options
        self._name = getattr(function, "__name__", type(function).__name__)
        self._manner = Manner(function, self._name, bash, options)
        self._cache = _cache_of(function, self._name, self.kind, options)
        self._always_special = self._manner.always_special or self._cache is not None
        self._numbers = _Numbers()
        self._bound: dict[int, _Bound] = {}

    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[R]:
        """Submit one call.

        Raises:
            RunClosed: there is no run; see `pilotflow.load`.
            InterchangeLost: the run has failed.
        """
        if self._always_special or (kwargs and not kwargs.keys().isdisjoint(CALL_WORDS)):
            return self._call_specially(args, dict(kwargs))
        run = self._current_run()
        bound = self._bound.get(PLAIN)
        if bound is None or bound.run is not run:
            bound = self._bind(run, PLAIN)
        future: AppFuture[R] = AppFuture(run.client.new_id(), self._name, run.client, bound.fn)
        self._submit(bound, future, args, kwargs)
        return future

    def options(self, **words: Any) -> App[R]:
        """The same app with other keywords, for one call or many: `square.options(memory="2g")(4)`.

        Args:
            words: the keywords of the decorator. They replace those that it was given, None takes one back.

        Raises:
            ConfigError: a keyword or its value is wrong; names the nearest valid one.
        """
        merged = {**self._words, **words}
        app: App[R] = App(
            self.__pilotflow_function__, self._bash, merged, parse_options(f"{self._name}.options", merged)
        )
        app._numbers = self._numbers
        return app

    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> list[AppFuture[R]]:
        """Submit a call for each item, or for each group of items of several iterables; their futures, in order.

        It ends with the shortest iterable, as the builtin `map` does.

        Args:
            iterables: of arguments by position.
            kwargs: given to each call.

        Raises:
            ConfigError: there is no iterable, or something is none.

        Example:
            >>> futures = add.map(range(1000), range(1000))
        """
        if not iterables:
            raise ConfigError(f"{self._name}.map takes at least one iterable of arguments")
        for i, iterable in enumerate(iterables):
            if not isinstance(iterable, Iterable):
                raise ConfigError(f"{self._name}.map takes iterables, and number {i + 1} is {type(iterable).__name__}")
        groups = zip(*iterables, strict=False)
        if self._always_special or (kwargs and not kwargs.keys().isdisjoint(CALL_WORDS)):
            return [self(*args, **kwargs) for args in groups]
        return self._map_plainly(groups, kwargs)

    def _map_plainly(self, groups: Iterator[tuple[Any, ...]], kwargs: dict[str, Any]) -> list[AppFuture[R]]:
        """Plain calls, handed to the client loop many at a time."""
        run = self._current_run()
        bound = self._bound.get(PLAIN)
        if bound is None or bound.run is not run:
            bound = self._bind(run, PLAIN)
        client, name, fn = run.client, self._name, bound.fn
        futures: list[AppFuture[R]] = []
        while some := list(itertools.islice(groups, BULK)):
            calls: list[tuple[AppFuture[R], Packed, list[Future[Any]] | None]] = []
            for args in some:
                future: AppFuture[R] = AppFuture(client.new_id(), name, client, fn)
                futures.append(future)
                needs: list[Future[Any]] = []
                try:
                    calls.append((future, pack_call(args, kwargs, needs), needs or None))
                except SerializationError as error:
                    self._cannot_travel(client, future, error)
            client.submit_many(calls, fn, bound.cls, bound.policy)
        return futures

    def _submit(
        self,
        bound: _Bound,
        future: AppFuture[R],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ours: tuple[str, ...] = (),
        ticket: Future[None] | None = None,
    ) -> None:
        needs: list[Future[Any]] = [] if ticket is None else [ticket]
        client = bound.run.client
        try:
            packed = pack_call(args, kwargs, needs, ours)
        except SerializationError as error:
            self._cannot_travel(client, future, error)
            return
        client.submit(future, bound.fn, bound.cls, packed, needs or None, bound.policy)

    def _cannot_travel(self, client: Client, future: AppFuture[R], error: SerializationError) -> None:
        client.check_open()
        future.fail(SerializationError(f"in a call of app '{self._name}': {error}").with_traceback(None))

    def _current_run(self) -> Run:
        try:
            return current_run()
        except RunClosed:
            if WORKER_VARIABLE in os.environ:
                raise _inside_a_task(self._name) from None
            raise

    def _call_specially(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AppFuture[R]:
        """A call that is more than a function and its arguments, see `app_calls`."""
        run = self._current_run()
        shape, given = self._manner.shape_of(args, kwargs)
        bound = self._bound.get(shape)
        if bound is None or bound.run is not run:
            bound = self._bind(run, shape)
        if self._cache is not None:
            return self._call_cached(self._cache, bound, shape, given, args, kwargs)
        future: AppFuture[R] = AppFuture(run.client.new_id(), self._name, run.client, bound.fn)
        call = self._manner.arguments(run, future, shape, given, args, kwargs)
        self._submit(bound, future, call.args, call.kwargs, call.ours)
        return future

    def _call_cached(
        self,
        cache: AppCache,
        bound: _Bound,
        shape: int,
        given: dict[str, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> AppFuture[R]:
        """A call whose result may be known, see `caching.memo`."""
        run = bound.run
        keyed = cache.call(run, given, args, kwargs)
        future = run.memo.new_future(run.client.new_id(), self._name, run.client, bound.fn)
        call = self._manner.arguments(run, future, shape, given, args, kwargs)
        future.files = cache.files_of(future, given)
        run.memo.call(
            future, keyed, lambda ticket: self._submit(bound, future, call.args, call.kwargs, call.ours, ticket)
        )
        return future

    def _bind(self, run: Run, shape: int) -> _Bound:
        """Make the app known to a run, at its first call there."""
        with self._numbers.lock:
            bound = self._bound.get(shape)
            if bound is not None and bound.run is run:
                return bound
            options = self._options
            executors, in_threads = run.config.executors_for(options.executors, f"app '{self._name}'")
            if in_threads:
                options.check_for_threads(self._name, executors[0], is_command=self._bash)
            fn = self._numbers.of(run, self._manner, shape, options, self._name)
            limit = run.config.crash_limit if options.crash_limit is None else options.crash_limit
            request = options.request
            if options.timeout_s is not None:
                request = msgspec.structs.replace(request, timeout_s=options.timeout_s)
            cls = run.client.definitions.request_class(request, executors, limit)
            config = run.config
            policy = options.policy(config.retries, config.backoff_s, config.retry_handler)
            bound = self._bound[shape] = _Bound(run, fn, cls, policy)
            return bound

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else BoundApp(self, instance)

    def __repr__(self) -> str:
        words = "".join(f", {word}={value!r}" for word, value in self._words.items())
        return f"<{self.kind} {self._name}{words}>"

    def _repr_html_(self) -> str:
        doc = (self.__doc__ or "").strip().partition("\n")[0]
        return table(f"{self.kind} {self._name}", [("says", doc), *self._words.items()])

    def __reduce__(self) -> Any:
        return _Stub, (self._name,)


class BoundApp(Generic[R]):
    """An app that is a method, with the object it belongs to, which is the first argument of each call."""

    def __init__(self, app: App[R], instance: Any) -> None:
        functools.update_wrapper(self, app.__pilotflow_function__)
        self.__self__ = instance
        self._app = app

    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[R]:
        """As a call of the app."""
        return self._app(self.__self__, *args, **kwargs)

    def options(self, **words: Any) -> BoundApp[R]:
        """As `App.options`."""
        return BoundApp(self._app.options(**words), self.__self__)

    def map(self, *iterables: Iterable[Any], **kwargs: Any) -> list[AppFuture[R]]:
        """As `App.map`."""
        if not iterables:
            return self._app.map()
        return self._app.map(itertools.repeat(self.__self__), *iterables, **kwargs)

    def __repr__(self) -> str:
        return f"<{self._app!r} of {self.__self__!r}>"

    def __reduce__(self) -> Any:
        return self._app.__reduce__()


def _cache_of(function: Callable[..., Any], name: str, kind: str, options: AppOptions) -> AppCache | None:
    if not options.cache:
        return None
    from pilotflow.app_caching import AppCache  # most programs and workers do without it

    return AppCache(function, name, kind, parameters_of(function), options)


class _Stub:
    """What an app is inside a task: not to be called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *_: Any, **__: Any) -> None:
        raise _inside_a_task(self.name)


def _inside_a_task(name: str) -> RunClosed:
    return RunClosed(
        f"app '{name}' was called inside a task, and tasks cannot submit tasks. Call the plain function there, or "
        "make the task's function a join_app, which runs in the program and may call apps."
    )


@overload
def python_app(function: Callable[..., Coroutine[Any, Any, R]]) -> App[R]: ...
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
            num_gpus, num_nodes, ranks_per_node, runtime, priority, resources; cwd and env, the working directory
            and variables of the environment that tasks run with; cache=True (a call whose result is known is not
            run), ignore_for_cache (arguments that do not count for that), version (stands for the code).

    Raises:
        ConfigError: a keyword or its value is wrong; names the nearest valid one.

    Example:
        >>> @python_app
        ... def square(x): return x * x
    """
    return _decorator(function, False, options)


@overload
def bash_app(function: Callable[..., str | Coroutine[Any, Any, str]]) -> App[int]: ...
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
    options = parse_options(f"@{which}", words)
    return decorated(function, which, lambda target: App(target, bash, words, options))


def decorated(function: Any, which: str, make: Callable[[Callable[..., Any]], App[Any]]) -> Any:
    """What a decorator returns: the app, or what makes one if it was given keywords first.

    Raises:
        ConfigError: that cannot be an app.
    """

    def decorate(target: Any) -> App[Any]:
        if not callable(target):
            hint = f" Keywords have names: @{which}(executors=...)." if isinstance(target, (str, list, tuple)) else ""
            raise ConfigError(f"@{which} decorates a function, not {type(target).__name__}.{hint}")
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            name = getattr(target, "__name__", "it")
            raise ConfigError(
                f"@{which} cannot decorate '{name}', which yields: a generator cannot travel. Return a list of all "
                "values, or make an app of what gives one of them."
            )
        return make(target)

    return decorate if function is None else decorate(function)
