"""`PilotExecutor`: a `concurrent.futures.Executor` over a run of its own."""

from __future__ import annotations

import atexit
import itertools
import os
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, TypeVar

from pilotflow.errors import ConfigError, RunClosed, SerializationError
from pilotflow.futures import AppFuture
from pilotflow.requests import parse_request
from pilotflow.resources import DEFAULT_REQUEST, Request
from pilotflow.run import Run
from pilotflow.runtime.tasks import invoke
from pilotflow.serialize import Packed, join, pack, pack_call, pack_function

if TYPE_CHECKING:
    from pilotflow.config.model import Config

T = TypeVar("T")


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
        """End the call even if it is running; False if it has ended."""
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
        if max_workers is not None and (not isinstance(max_workers, int) or max_workers < 1):
            raise ConfigError(f"PilotExecutor(max_workers=...) takes a whole number from 1, not {max_workers!r}")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if config is None:
            config = Config.for_this_machine(max_workers=max_workers)
            if run_dir is not None:
                import dataclasses

                config = dataclasses.replace(config, run_dir=str(run_dir))
        setups = {}
        if initializer is not None:
            setup = _packed_setup(initializer, initargs)
            setups = {executor.label: setup for executor in config.executors}
        self._run = Run(config, setups)
        self._shutdown = False
        self._lock = threading.Lock()
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._invoke = self._run.define_function("call", pack_function(invoke))
        self._default = self._class_of(DEFAULT_REQUEST)
        atexit.register(self._at_exit)

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

    def map(  # type: ignore[override]
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
        """End a call even if it is running; False if it has ended.

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
        if cancel_futures:
            self._run.client.cancel_all_unstarted()
        if wait:
            self._close()
        else:
            threading.Thread(target=self._close, name="pilotflow-shutdown", daemon=True).start()

    def __repr__(self) -> str:
        return f"<PilotExecutor of {self._run!r}>"

    # ---- inside -----------------------------------------------------------------------------

    def _close(self) -> None:
        self._run.close(wait=True)
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        self._close()

    def _class_of(self, request: Request) -> int:
        return self._run.client.define_class(request, (), self._run.config.crash_limit)

    def _submit(self, cls: int, fn: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> PilotFuture[T]:
        if self._shutdown:
            raise RunClosed("cannot schedule new futures after shutdown")
        client = self._run.client
        name = getattr(fn, "__name__", type(fn).__name__)
        number = self._number_of(fn, name)
        if number is None:
            number, args = self._invoke, (fn, *args)
        future: PilotFuture[T] = PilotFuture(client.new_id(), name, client, number)
        needs: list[Future[Any]] = []
        try:
            packed = pack_call(args, kwargs, needs)
        except SerializationError as error:
            client.check_open()
            future.fail(SerializationError(f"in a call of '{name}': {error}").with_traceback(None))
            return future
        client.submit(future, number, cls, packed, needs or None, self._run.config.retries)
        return future

    def _number_of(self, fn: Callable[..., Any], name: str) -> int | None:
        """The number of a plain function, whose body travels once; None for other callables."""
        if type(fn) is not FunctionType and type(fn) is not BuiltinFunctionType:
            return None
        try:
            number = self._known.get(fn)
            if number is None:
                number = self._known[fn] = self._run.define_function(name, pack_function(fn))
        except (TypeError, SerializationError):  # as an argument it gets an error with its future
            return None
        return number

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
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            submissions = (self._submit(cls, fn, call, {}) for call in calls)
        else:
            chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
            submissions = (self._submit(cls, partial(_run_chunk, fn), (chunk,), {}) for chunk in chunks)  # type: ignore[misc]
        futures: deque[PilotFuture[Any]] = deque(itertools.islice(submissions, buffersize))
        results = _results(futures, submissions, end)
        return results if chunksize == 1 else itertools.chain.from_iterable(results)  # type: ignore[arg-type]


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
            future = futures.popleft()
            result = future.result(None if end is None else end - time.monotonic())
            del future
            futures.extend(itertools.islice(submissions, 1))
            yield result
    finally:
        if futures:
            futures[0]._client and futures[0]._client.cancel_unstarted(list(futures))


def _run_chunk(fn: Callable[..., T], chunk: tuple[tuple[Any, ...], ...]) -> list[T]:
    return [fn(*call) for call in chunk]


def _packed_setup(initializer: Callable[..., object], initargs: tuple[Any, ...]) -> bytes:
    packed = join([pack(initargs)])
    whole = Packed(packed.payload, packed.layout, tuple(bytes(frame) for frame in packed.frames))
    return pickle.dumps((pack_function(initializer), tuple(whole)), 5)
