"""Where commands of a worker write their stderr that have no file for it: a file that they share, one a worker."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Final

from pilotflow.context import RUNNING
from pilotflow.runtime.tails import TAIL_BYTES, last_lines
from pilotflow.runtime.worker_files import STDERR, of_worker


class OwnStderr:
    """A worker's file, opened with its first command and kept open: what one command has written is its end.

    So a failed command can say what it has written, which costs one that goes well next to nothing.

    Attributes:
        path: of the file; None before the first command, and if it cannot be made.
    """

    def __init__(self) -> None:
        self.path: str | None = None
        self._fd = -1
        self._start = 0
        self._refused = False

    def begin(self) -> int:
        """A command begins; returns what is to be its stderr, or -1 if that is the worker's."""
        if self._fd < 0:
            if self._refused:
                return -1
            self._open()
        if self._fd >= 0:
            self._start = os.lseek(self._fd, 0, os.SEEK_CUR)  # commands have moved it, by what they wrote
        return self._fd

    def tail(self) -> str:
        """The last lines that the command has written."""
        if self._fd < 0:
            return ""
        size = os.fstat(self._fd).st_size
        begun = self._start if self._start <= size else 0  # who has opened /dev/stderr to write has emptied it
        start = max(begun, size - TAIL_BYTES)
        return last_lines(os.pread(self._fd, TAIL_BYTES, start).decode(errors="replace"))

    def _open(self) -> None:
        running = RUNNING.get()
        if running is None or not running[2].run_directory:
            return
        path = of_worker(running[2].run_directory, STDERR, os.getpid())
        try:
            path.parent.mkdir(exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError:  # a full disk, say: then it goes where the worker's goes
            self._refused = True
            return
        self.path = str(path)


OWN_STDERR: Final[ContextVar[OwnStderr | None]] = ContextVar("pilotflow_own_stderr", default=None)
"""The worker's; None where commands write elsewhere: in threads of the program, in ranks of multi-node tasks."""
