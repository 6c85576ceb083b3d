"""`progress`: wait for futures, and see how far they are."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Final, TypeVar

from pilotflow.core.pace import Counts
from pilotflow.display import Display, Look, TerminalSurface, surface
from pilotflow.errors import ConfigError, RunClosed
from pilotflow.futures import AppFuture
from pilotflow.run import current_run
from pilotflow.units import show

F = TypeVar("F", bound="Future[object]")

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
    given = list(futures)
    for future in given:
        if not isinstance(future, Future):
            raise ConfigError(f"progress(futures) takes futures, and {show(future)} is {type(future).__name__}.")
    tally = _Tally(given)
    with _shown(title or f"{len(given):,} tasks", tally):
        tally.wait()
    return given


class _Tally:
    """Counts futures by asking those that had not ended when it last asked."""

    def __init__(self, futures: Sequence[Future[object]]) -> None:
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
        left: list[Future[object]] = []
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


def has_failed(future: Future[object]) -> bool:
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
