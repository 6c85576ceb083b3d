"""`PilotExecutor`: a `concurrent.futures.Executor` over a run of its own."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from pilotflow.app_options import AppOptions
from pilotflow.bodies import pack_function
from pilotflow.errors import ConfigError, RunClosed, SerializationError
from pilotflow.futures import AppFuture
from pilotflow.names import importable_function
from pilotflow.requests import parse_request
from pilotflow.resources import DEFAULT_REQUEST, Request
from pilotflow.run import Run
from pilotflow.runtime.set_up import pack_setup, with_authkey
from pilotflow.runtime.tasks import invoke
from pilotflow.serialize import pack_call

if TYPE_CHECKING:
    from pilotflow.config.model import Config

T = TypeVar("T")

BY_VALUE_MAX = 1000
"""Functions sent by value whose bodies a pool keeps; later ones travel with each call."""


class PilotFuture(AppFuture[T]):
    """A future whose `cancel` is that of the standard library: it never ends a running call."""

    __slots__ = ()

    def cancel(self) -> bool:
        """Cancel the call if it has not started; asks the workers, so True means it never runs."""
        if self.done() or self.running():
            return self.cancelled()
        client = self._client
        return self.cancelled() if client is None else client.cancel_unstarted([self])

    def kill(self) -> bool:
        """End the call even if it is running; False if it has ended by itself."""
        return super().cancel()


class PilotExecutor(Executor):
    """A pool of worker processes, as `concurrent.futures` has it, on pilot blocks.

    Args:
        max_workers: workers on this machine; one per usable core by default.
        initializer, initargs: called in each worker before its first task; if it raises, the
            pool is broken.
        config: a whole configuration instead of `max_workers`.
        run_dir: where run directories go.

    Raises:
        ConfigError: the arguments are wrong.

    Example:
        >>> with PilotExecutor(max_workers=4) as ex:
        ...     print(list(ex.map(pow, range(10), range(10), chunksize=3)))
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        config: Config | None = None,
        run_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        from pilotflow.config.model import Config

        if config is not None and (max_workers is not None or run_dir is not None):
            raise ConfigError("PilotExecutor takes max_workers and run_dir, or config, which has both")
        if max_workers is not None and (type(max_workers) is not int or max_workers < 1):
            raise ConfigError(f"PilotExecutor(max_workers=...) takes a whole number from 1, not {max_workers!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if config is None:
            config = Config.for_this_machine(max_workers=max_workers)
            if run_dir is not None:
                import dataclasses

                config = dataclasses.replace(config, run_dir=str(run_dir))
        else:
            from pilotflow.config.here import within_policy

            config = within_policy(config)
        setup = None if initializer is None else pack_setup(initializer, initargs)
        if config.encrypted:
            setup = with_authkey(setup)
        setups = {} if setup is None else {executor.label: setup for executor in config.block_executors}
        self._run = Run(config, setups)
        self._shutdown = False
        self._lock = threading.Lock()
        self._numbers = _Numbers(self._run)
        self._default = self._class_of(DEFAULT_REQUEST)
        self._policy = AppOptions().policy(config.retries, config.backoff_s, config.retry_handler)
        # The program's end waits for pending calls. An executor that nobody holds any more ends when
        # its calls have, so nothing here may refer to it.
        self._closing = closing = _Closing(self._run)
        weakref.finalize(self, closing.start).atexit = False

    @property
    def run(self) -> Run:
        """The run under it: its directory, blocks and load."""
        return self._run

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> PilotFuture[T]:
        """Call `fn(*args, **kwargs)` in a worker; all keywords are the function's.

        Raises:
            RunClosed: the executor was shut down (a RuntimeError).
            BrokenExecutor: its initializer failed, or its interchange was lost.
        """
        return self._submit(self._default, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Results of `fn` over the zipped iterables, in order.

        Args:
            timeout: seconds from now in which each result must be there.
            chunksize: calls that travel as one task.
            buffersize: chunks submitted ahead of the consumer; None reads the iterables to
                their end at once, so give it for endless ones.

        Raises:
            TimeoutError: from the iterator.
        """
        return self._map(self._default, fn, iterables, timeout, chunksize, buffersize)

    def options(self, **request: Any) -> Requesting:
        """The same executor with a request for each call: `options(num_cpus=2).submit(f, x)`.

        Raises:
            ConfigError: a word or value of the request is wrong.
        """
        return Requesting(self, self._class_of(parse_request(**request)))

    def kill(self, future: Future[Any]) -> bool:
        """End a call even if it is running; False if it has ended by itself, True also if it was cancelled before.

        Raises:
            ConfigError: the future is not of a PilotExecutor.
        """
        if not isinstance(future, PilotFuture):
            raise ConfigError(f"kill takes a future of this executor, not {type(future).__name__}")
        return future.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and free everything once the pending ones are done.

        Args:
            wait: return when that is so, else at once.
            cancel_futures: cancel all calls that have not started.
        """
        with self._lock:
            self._shutdown = True
        if not self._run.is_open:
            return
        if cancel_futures:
            self._run.client.cancel_all_unstarted()
        if wait:
            self._closing.finish()
        else:
            self._closing.start()

    def __repr__(self) -> str:
        return f"<PilotExecutor of {self._run!r}>"

    # ---- inside -----------------------------------------------------------------------------

    def _class_of(self, request: Request) -> int:
        executors, _ = self._run.config.executors_for((), "the pool")
        return self._run.client.definitions.request_class(request, executors, self._run.config.crash_limit)

    def _submit(self, cls: int, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> PilotFuture[T]:
        if self._shutdown:
            raise RunClosed("cannot schedule new futures after shutdown")
        name = getattr(fn, "__name__", type(fn).__name__)
        number = self._numbers.of(fn, name)
        if number is None:
            return self._send(cls, self._numbers.invoke, name, (fn, *args), kwargs, ("function",))
        return self._send(cls, number, name, args, kwargs)

    def _send(
        self,
        cls: int,
        number: int,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        ours: tuple[str, ...] = (),
    ) -> PilotFuture[Any]:
        client = self._run.client
        future: PilotFuture[Any] = PilotFuture(client.new_id(), name, client, number)
        needs: list[Future[Any]] = []
        try:
            packed = pack_call(args, kwargs, needs, ours)
        except SerializationError as error:
            client.check_open()
            future.fail(SerializationError(f"in a call of '{name}': {error}").with_traceback(None))
            return future
        client.submit(future, number, cls, packed, needs or None, self._policy)
        return future

    def _map(
        self,
        cls: int,
        fn: Callable[..., T],
        iterables: tuple[Iterable[Any], ...],
        timeout: float | None,
        chunksize: int,
        buffersize: int | None,
    ) -> Iterator[T]:
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        submissions: Iterator[PilotFuture[Any]]
        if chunksize == 1:
            submissions = (self._submit(cls, fn, call, {}) for call in calls)
        else:
            chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
            submissions = (self._submit_chunk(cls, fn, chunk) for chunk in chunks)
        futures: deque[PilotFuture[Any]] = deque(itertools.islice(submissions, buffersize))
        results = _results(futures, submissions, end)
        return results if chunksize == 1 else _flattened(results)

    def _submit_chunk(self, cls: int, fn: Callable[..., Any], chunk: tuple[Any, ...]) -> PilotFuture[Any]:
        if self._shutdown:
            raise RunClosed("cannot schedule new futures after shutdown")
        name = getattr(fn, "__name__", type(fn).__name__)
        number = self._numbers.of_chunks(fn, name)
        if number is None:
            return self._send(cls, self._numbers.invoke, name, (_run_chunk, fn, chunk), {}, ("function", "function"))
        return self._send(cls, number, name, (chunk,), {})


class _Numbers:
    """Functions that a run knows, whose bodies travel once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._chunked: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._by_value = 0
        self.invoke = run.define_function("call", pack_function(invoke))

    def of(self, fn: Callable[..., Any], name: str) -> int | None:
        """The number of a plain function; None for other callables, which travel as arguments."""
        try:
            return self._known[fn]
        except (KeyError, TypeError):
            return self._define(self._known, fn, fn, name)

    def of_chunks(self, fn: Callable[..., Any], name: str) -> int | None:
        """The number of what runs a function on each call of a chunk."""
        try:
            return self._chunked[fn]
        except (KeyError, TypeError):
            return self._define(self._chunked, fn, partial(_run_chunk, fn), name)

    def _define(
        self, known: weakref.WeakKeyDictionary[Any, int], fn: Callable[..., Any], whole: Callable[..., Any], name: str
    ) -> int | None:
        if type(fn) is not FunctionType and type(fn) is not BuiltinFunctionType:
            return None
        if importable_function(fn) is None:
            self._by_value += 1
            if self._by_value > BY_VALUE_MAX:  # a program that makes a lambda for each call
                return None
        self._run.edited.look(fn)
        try:
            number = known[fn] = self._run.define_function(name, pack_function(whole))
        except (TypeError, SerializationError):  # as an argument it gets an error with its future
            return None
        return number


class _Closing:
    """Ends a run once its tasks have ended, whoever asks first; the program's end asks last."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._pid = os.getpid()
        self._lock = threading.Lock()
        atexit.register(self.finish)

    def start(self) -> None:
        """End it, without waiting for that."""
        if os.getpid() == self._pid:
            threading.Thread(target=self.finish, name="pilotflow-shutdown", daemon=True).start()

    def finish(self) -> None:
        """End it, and wait for that."""
        if os.getpid() != self._pid:  # a fork of the process that the run belongs to
            return
        with self._lock:
            self._run.close(wait=True)
        atexit.unregister(self.finish)


class Requesting:
    """A `PilotExecutor` with a request; see `PilotExecutor.options`."""

    def __init__(self, executor: PilotExecutor, cls: int) -> None:
        self._executor = executor
        self._cls = cls

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> PilotFuture[T]:
        """As `PilotExecutor.submit`."""
        return self._executor._submit(self._cls, fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As `PilotExecutor.map`."""
        return self._executor._map(self._cls, fn, iterables, timeout, chunksize, buffersize)


def _results(
    futures: deque[PilotFuture[Any]], submissions: Iterator[PilotFuture[Any]], end: float | None
) -> Iterator[Any]:
    """Results in order; each one taken lets one more call be submitted. Leaving cancels the rest."""
    try:
        while futures:
            yield _next_result(futures, submissions, end)
    finally:
        client = next((future._client for future in futures if future._client is not None), None)
        if client is not None:
            client.cancel_unstarted(futures)


def _next_result(futures: deque[PilotFuture[Any]], submissions: Iterator[PilotFuture[Any]], end: float | None) -> Any:
    """A function of its own, so that nothing refers to a result that has been handed out."""
    result = futures[0].result(None if end is None else end - time.monotonic())
    futures.popleft()
    futures.extend(itertools.islice(submissions, 1))
    return result


def _flattened(chunks: Iterator[list[T]]) -> Iterator[T]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def _run_chunk(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    return [fn(*call) for call in chunk]
