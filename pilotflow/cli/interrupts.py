"""Ctrl-C while nothing has begun: the command ends at once, without a word and without a traceback.

Imported before everything else, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130
"""What a shell reports of a program that was interrupted."""


def leave_quietly() -> None:
    """From now on Ctrl-C ends this process. If it is to ignore Ctrl-C, it still does."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_again() -> bool:
    """From now on Ctrl-C raises `KeyboardInterrupt`, as Python has it; False if nothing had to be changed."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        return False
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return True


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)
