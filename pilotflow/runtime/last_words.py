"""What a worker that died has written last, which often says why, for the message about its task."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Final

from pilotflow.errors import InfrastructureError
from pilotflow.runtime.own_threads import start_thread
from pilotflow.runtime.tails import last_lines, tail
from pilotflow.runtime.worker_files import STDERR, of_worker

LINES: Final = 5
"""Lines of each file that are shown: they travel with the message."""
WAIT_S: Final = 1.0
"""A file system that does not answer is waited for so long, once until it does."""
EARLY_S: Final = 1.0
"""Clocks of files and of this host may differ by so much."""


class LastWords:
    """Reads the ends of files of stderr in a thread, since their file system may hang.

    Args:
        run_directory: where commands of workers write.
        block_directory: where the block does, and with it whatever else workers run.
        read: gives so many last lines of a file.
        wait_s: how long it may take.
    """

    def __init__(
        self,
        run_directory: str,
        block_directory: Path,
        read: Callable[[Path, int], str] = tail,
        wait_s: float = WAIT_S,
    ) -> None:
        self._tail = read
        self._wait_s = wait_s
        self._run_directory = run_directory
        self._block_stderr = block_directory / "stderr"
        self._reader: Thread | None = None

    def of(self, pid: int, ran_s: float) -> str:
        """What was written last while a worker ran its task for so long, and where; lines, none if it was nothing."""
        if self._reader is not None and self._reader.is_alive():
            return ""  # the last question has had no answer yet
        found: list[str] = []
        since = time.time() - ran_s - EARLY_S
        try:
            self._reader = start_thread(lambda: found.append(self._read(pid, since)), "pilotflow-last-words")
        except InfrastructureError:
            return ""
        self._reader.join(self._wait_s)
        return found[0] if found else ""

    def _read(self, pid: int, since: float) -> str:
        own = of_worker(self._run_directory, STDERR, pid)
        ends = (
            self._end(own, f"The stderr of its commands ({own}) ends with:", since),
            self._end(
                self._block_stderr,
                f"The stderr that the block's workers share ({self._block_stderr}) ends with:",
                since,
            ),
        )
        return "\n".join(filter(None, ends))

    def _end(self, path: Path, heading: str, since: float) -> str:
        try:
            if os.stat(path).st_mtime < since:
                return ""
        except OSError:  # as a rule there is none
            return ""
        lines = self._tail(path, LINES)
        return f"{heading}\n{lines}" if lines else ""


def of_step(printed: str) -> str:
    """The last words of a worker that was a step of the batch system, from what the step has printed."""
    lines = last_lines(printed, LINES)
    return f"The stderr of its step ends with:\n{lines}" if lines else ""
