"""`join_app`: functions that start apps, and whose result is what those apps give.

The function runs in a thread of the user's program when all that it needs is there. What it returns
may hold futures; its own future ends when these have, with their results in their places. Nothing waits
in a thread for that, so joins may be nested to any depth.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from pilotflow.app_options import AppOptions, parse_options
from pilotflow.apps import App, decorated
from pilotflow.current import BODY_OF
from pilotflow.errors import ConfigError
from pilotflow.futures import AppFuture
from pilotflow.nested import filled, futures_in
from pilotflow.run import Run

if TYPE_CHECKING:
    from pilotflow.caching.memo import CachedFuture

R = TypeVar("R")

WORDS: Final = ("retries", "backoff", "retry_handler", "allow_failed", "cache", "ignore_for_cache", "version")
"""Keywords of a `join_app`."""


class JoinApp(App[R]):
    """A decorated function that starts apps. Calling it returns the future of what these give."""

    kind = "join_app"

    def __init__(self, function: Callable[..., Any], words: Mapping[str, Any], options: AppOptions) -> None:
        super().__init__(function, False, words, options)
        self._always_special = True  # so that each call of `map` comes here, too
        self._known_as: tuple[Run, int] | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> AppFuture[R]:
        """Submit one call; as a call of an app.

        Raises:
            RunClosed: there is no run; see `pilotflow.load`.
            InterchangeLost: the run has failed.
        """
        run = self._current_run()
        if self._known_as is None or self._known_as[0] is not run:
            self._known_as = run, run.client.definitions.local_function(self._name)
        waits = kwargs.pop("inputs", ()) if "inputs" not in self._manner.parameters else ()
        needs = futures_in((args, kwargs, waits))
        config = run.config
        policy = self._options.policy(config.retries, config.backoff_s, config.retry_handler)
        if self._cache is not None:
            keyed = self._cache.call(run, {"inputs": waits} if waits else {}, args, kwargs)
            cached: CachedFuture[R] = run.memo.new_future(
                run.client.new_id(), self._name, run.client, self._known_as[1]
            )
            join = _Join(run, cached, self.__pilotflow_function__, args, kwargs)
            run.memo.call(
                cached,
                keyed,
                lambda ticket: run.client.submit_local(cached, join, [*needs, *([ticket] if ticket else [])], policy),
            )
            return cached
        future: AppFuture[R] = AppFuture(run.client.new_id(), self._name, run.client, self._known_as[1])
        run.client.submit_local(future, _Join(run, future, self.__pilotflow_function__, args, kwargs), needs, policy)
        return future

    def options(self, **words: Any) -> JoinApp[R]:
        """As `App.options`, with the keywords of `join_app`."""
        merged = {**self._words, **words}
        return JoinApp(self.__pilotflow_function__, merged, _options(f"{self._name}.options", merged))


class _Join:
    """One call: first the function, then what it returned."""

    def __init__(
        self,
        run: Run,
        future: AppFuture[Any],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._run = run
        self._future = future
        self._function = function
        self._call = args, kwargs
        self._made: tuple[Any, list[Future[Any]]] | None = None
        self._cancelled = threading.Event()

    def begin(self) -> None:
        """All that it needs has ended: what was passed to the function, or what that has returned."""
        client, future = self._run.client, self._future
        if self._made is None:
            client.run_body(future, self._body)
            return
        value, _ = self._made
        self._made = None
        if isinstance(value, AppFuture):
            client.end_local_as(future, value)
        else:
            client.run_body(future, lambda: self._finish(value))

    def cancel(self) -> None:
        """Nobody wants the result: what the function has started is cancelled too."""
        self._cancelled.set()
        if self._made is not None:
            _cancel(self._made[1])

    def _body(self) -> None:
        if self._cancelled.is_set():
            return
        client, future = self._run.client, self._future
        try:
            args, kwargs = filled(self._call, _outcome)
            token = BODY_OF.set(self._run)
            try:
                value = self._function(*args, **kwargs)
                if inspect.iscoroutine(value):
                    import asyncio  # it takes a while, and only these need it

                    value = asyncio.run(value)
            finally:
                BODY_OF.reset(token)
            needs = futures_in(value)
        except BaseException as error:  # noqa: BLE001  whatever the user's function raises
            client.fail_local(future, error)
            return
        if needs:
            self._made = value, needs
            client.wait_local(future, needs)
            if self._cancelled.is_set():  # by now, or before `cancel` could see them
                _cancel(needs)
        else:
            client.end_local(future, value)

    def _finish(self, value: Any) -> None:
        try:
            whole = filled(value, lambda future: future.result(0))
        except BaseException as error:  # noqa: BLE001  a result that cannot be unpickled here, or be a key
            self._run.client.fail_local(self._future, error)
        else:
            self._run.client.end_local(self._future, whole)


def _outcome(future: Future[Any]) -> Any:
    """The result; the exception, of a failure that the join allows."""
    if future.cancelled():
        return CancelledError()
    error = future.exception(0)
    return future.result(0) if error is None else error


def _cancel(futures: list[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


@overload
def join_app(function: Callable[..., R]) -> JoinApp[Any]: ...
@overload
def join_app(**options: Any) -> Callable[[Callable[..., R]], JoinApp[Any]]: ...
def join_app(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Make a function that calls apps an app: its result is that of the futures which it returns.

    The function runs in a thread of your program when the futures in its arguments have ended. It returns a
    future, or lists, dictionaries and the like with futures in them, or a plain value.

    Args:
        function: what to decorate, when used bare.
        options: retries, backoff, retry_handler, allow_failed, cache, ignore_for_cache and version, as of `python_app`.

    Raises:
        ConfigError: a keyword or its value is wrong.

    Example:
        >>> @join_app
        ... def fibonacci(n): return add(fibonacci(n - 1), fibonacci(n - 2)) if n > 1 else n
    """
    parsed = _options("@join_app", options)
    return decorated(function, "join_app", lambda target: JoinApp(target, options, parsed))


def _options(who: str, words: Mapping[str, Any]) -> AppOptions:
    options = parse_options(who, words)
    for word in words:
        if word not in WORDS:
            problem = (
                f"{who} has no keyword '{word}': the function runs in your program, and starts apps that can have it."
            )
            raise ConfigError(f"{problem} Valid here: {', '.join(WORDS)}.")
    return options
