"""What waits, in a thread, so that an event loop goes on; and futures in the order in which they end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as _TimeoutError  # the builtin since Python 3.11
from typing import Any, Final, TypeVar

F = TypeVar("F", bound="Future[Any]")

_AT_ONCE: Final = 100
"""Futures that are looked at before the event loop may do something else."""


async def in_thread(work: Callable[[], Any], undo: Callable[[], Any]) -> None:
    """Do something that waits. If the task is cancelled meanwhile, undo it, and wait until that is done too.

    Args:
        work: what to do, in a thread of its own.
        undo: ends what `work` does, so that it returns soon, and what it has done.
    """
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.to_thread(undo)
        await asyncio.gather(doing, return_exceptions=True)
        raise


async def as_they_end(futures: Sequence[F], timeout: float | None) -> AsyncIterator[F]:
    """Each future once it has ended.

    The loop is woken once for all futures that have ended meanwhile.

    Args:
        futures: any, each once.
        timeout: seconds from now in which all must have ended.

    Raises:
        TimeoutError: they have not.
    """
    loop, wake = asyncio.get_running_loop(), asyncio.Event()
    ended: deque[F] = deque()
    told = False
    deadline = None if timeout is None else time.monotonic() + timeout

    def note(future: Any) -> None:
        nonlocal told
        ended.append(future)
        if not told:
            told = True
            try:
                loop.call_soon_threadsafe(wake.set)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    for number, future in enumerate(futures, 1):
        future.add_done_callback(note)
        if not number % _AT_ONCE:
            await asyncio.sleep(0)
    for number in range(1, len(futures) + 1):
        while not ended:
            await _woken(wake, deadline, len(futures) - number + 1, len(futures))
            wake.clear()
            told = False
        yield ended.popleft()
        if not number % _AT_ONCE:
            await asyncio.sleep(0)


async def _woken(wake: asyncio.Event, deadline: float | None, missing: int, total: int) -> None:
    try:
        await asyncio.wait_for(wake.wait(), None if deadline is None else max(0.0, deadline - time.monotonic()))
    except (asyncio.TimeoutError, TimeoutError):
        raise _TimeoutError(f"{missing} (of {total}) futures unfinished") from None
