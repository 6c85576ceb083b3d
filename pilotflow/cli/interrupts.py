"""Ctrl-C while nothing has begun: the command ends at once, without a word and without a traceback."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

INTERRUPTED: Final = 130
"""What a shell reports of a program that was interrupted."""


def leave_quietly() -> None:
    """From now on Ctrl-C ends this process. If it is to ignore Ctrl-C, it still does."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def interruptible() -> Iterator[None]:
    """Where there is something to end: Ctrl-C raises `KeyboardInterrupt`, as Python has it."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)
