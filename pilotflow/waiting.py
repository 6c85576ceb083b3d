"""`progress` and `as_completed`: wait for futures, and see how far they are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from concurrent.futures import as_completed as futures_as_completed
from typing import Any, Final, Generic, TypeVar, cast

from pilotflow.core.pace import Counts
from pilotflow.current import current_run
from pilotflow.display import Display, Look, TerminalSurface, surface
from pilotflow.errors import ConfigError, RunClosed
from pilotflow.futures import AppFuture
from pilotflow.units import counted, show

F = TypeVar("F", bound="Future[Any]")

_SHARE: Final = 20
"""Counting many futures takes time: it is done in at most one part in so many of it."""


def progress(futures: Iterable[F], title: str = "") -> list[F]:
    """These futures, once all of them have ended; until then one live line shows how far they are.

    In a notebook the line is in the cell's output. Where nobody looks (output is no terminal), it
    only waits. While it shows, the run's own line does not.

    Args:
        futures: of apps, or of anything else.
        title: what they are, in a word or two.

    Returns:
        The futures in the order in which they were given. They may have failed: ask each for its
        `result()`.

    Raises:
        ConfigError: something else than a future is among them.

    Example:
        >>> results = [future.result() for future in progress(square.map(range(1000)), "squares")]
    """
    given = _checked(futures, "progress")
    tally = _Tally(given)
    with _shown(title or counted(len(given), "task"), tally):
        tally.wait()
    return given


class as_completed(Generic[F]):  # noqa: N801  as its name is in the standard library
    """These futures in the order in which they end, for `for` and for `async for`.

    Args:
        futures: of apps, or of anything else; each comes once.
        timeout: seconds from the loop's start in which all must have ended.

    Raises:
        ConfigError: something else than a future is among them.
        TimeoutError: from the loop.

    Example:
        >>> async for future in as_completed(square.map(range(1000))):
        ...     print(await future)
    """

    def __init__(self, futures: Iterable[F], timeout: float | None = None) -> None:
        self._futures = list(dict.fromkeys(_checked(futures, "as_completed")))
        self._timeout = timeout

    def __iter__(self) -> Iterator[F]:
        return cast("Iterator[F]", futures_as_completed(self._futures, self._timeout))

    def __aiter__(self) -> AsyncIterator[F]:
        from pilotflow.aio import as_they_end  # asyncio takes a while, and only this needs it

        return as_they_end(self._futures, self._timeout)


def _checked(futures: Iterable[F], who: str) -> list[F]:
    try:
        given = list(futures)
    except TypeError:
        raise ConfigError(f"{who}(futures) takes several futures, not {type(futures).__name__}.") from None
    for future in given:
        if not isinstance(future, Future):
            raise ConfigError(f"{who}(futures) takes futures, and {show(future)} is {type(future).__name__}.")
    return given


class _Tally:
    """Counts futures by asking those that had not ended when it last asked."""

    def __init__(self, futures: Sequence[Future[Any]]) -> None:
        self._left = list(futures)
        self._ended = Counts()
        self._last = Look(Counts(waiting=len(self._left)))
        self._next = 0.0

    def wait(self) -> None:
        """Wait until all have ended."""
        for future in reversed(list(self._left)):
            if not future.done():
                wait([future])

    def look(self) -> Look:
        """How many have ended, run and wait."""
        begun = time.monotonic()
        if begun >= self._next or not self._left:
            self._last = Look(self._count())
            self._next = begun + _SHARE * (time.monotonic() - begun)
        return self._last

    def _count(self) -> Counts:
        done = failed = cancelled = running = 0
        left: list[Future[Any]] = []
        for future in self._left:
            if not future.done():
                running += future.running()
                left.append(future)
            elif future.cancelled():
                cancelled += 1
            elif has_failed(future):
                failed += 1
            else:
                done += 1
        self._left = left
        self._ended += Counts(done, failed, cancelled)
        return self._ended + Counts(running=running, waiting=len(left) - running)

    def finish(self) -> None:
        """Let the next look count at once."""
        self._next = 0.0


def has_failed(future: Future[Any]) -> bool:
    """Whether a future that has ended has an error; what a task returned or raised is not unpickled."""
    return future.failed() if isinstance(future, AppFuture) else future.exception() is not None


@contextlib.contextmanager
def _shown(title: str, tally: _Tally) -> Iterator[None]:
    """While it lasts, the tally is shown where somebody looks."""
    place = surface()
    if place is None:
        yield
        return
    display = _display_of_run() if isinstance(place, TerminalSurface) else None
    with contextlib.ExitStack() as shown:
        if display is not None:  # a terminal has one line only
            shown.enter_context(display.instead(title, tally.look))
        else:
            shown.callback(Display(place, title, tally.look).close)
        shown.callback(tally.finish)
        yield


def _display_of_run() -> Display | None:
    try:
        return current_run().display
    except RunClosed:
        return None
