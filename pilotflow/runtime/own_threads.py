"""Threads of this process that do something for tasks, and words for when there can be none."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pilotflow.errors import InfrastructureError


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A thread that runs this, and does not keep the program from ending.

    Raises:
        InfrastructureError: the system gives this process no more threads.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    start(thread)
    return thread


def start(thread: threading.Thread) -> None:
    """Start this thread.

    Raises:
        InfrastructureError: the system gives this process no more threads.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise InfrastructureError(
            f"This program can start no thread besides its {threading.active_count()} ({error}). Raise its limits (ulimit "
            "-u, the pids and memory of its container), or let fewer functions wait at once."
        ) from None
