"""Where commands of a worker write their stderr that have no file for it: a file that they share, one a worker."""

from __future__ import annotations

import contextlib
import os
import threading
from contextvars import ContextVar
from typing import Final

from pilotflow.context import RUNNING
from pilotflow.runtime.tails import tail_of
from pilotflow.runtime.worker_files import MOST_BYTES, STDERR, of_worker, open_to_append, remove_left, shorten

LOOK_EVERY: Final = 100
"""After so many commands the file is looked at. Else only its position is, which costs no question to a file server."""


class OwnStderr:
    """A worker's file, opened with its first command and kept open: what one command has written is its end.

    So a failed command can say what it has written, which costs one that goes well next to nothing.
    The file stays short: what is too much is cut when the command has ended that has written it, or by
    others while it runs for long (`worker_files.shorten_left`).

    Attributes:
        path: of the file; None before the first command, and if it cannot be made.
    """

    def __init__(self) -> None:
        self.path: str | None = None
        self._directory = ""
        self._fd = -1
        self._start = 0
        self._unlooked = 0
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

    def end(self) -> None:
        """The command has ended."""
        if self._fd < 0:
            return
        self._unlooked += 1
        if os.lseek(self._fd, 0, os.SEEK_CUR) > MOST_BYTES or self._unlooked >= LOOK_EVERY:
            self._look()

    def tail(self) -> str:
        """The last lines that the command has written; to be asked before `end`."""
        if self._fd < 0:
            return ""
        self._unlooked = LOOK_EVERY
        return tail_of(self._fd, self._start) or self._why_nothing()

    def close(self) -> None:
        """There will be no more commands."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            remove_left(self._directory, threading.get_native_id())

    def _why_nothing(self) -> str:
        with contextlib.suppress(OSError):
            if not os.fstatvfs(self._fd).f_bavail:
                return "[The disk of the run directory is full: what it wrote, if anything, is lost.]"
        return ""

    def _look(self) -> None:
        """Cut the file, if it is too long, and have another, if it was removed and there can be one."""
        self._unlooked = 0
        links = 0
        with contextlib.suppress(OSError):  # a file system that is full, or gone
            shorten(self._fd)
            os.lseek(self._fd, 0, os.SEEK_END)  # commands that open /dev/stderr write elsewhere than at our position
            links = os.fstat(self._fd).st_nlink
        if not links:
            self._open()

    def _open(self) -> None:
        running = RUNNING.get()
        if running is None or not running[2].run_directory:
            return
        self._directory = running[2].run_directory
        path = of_worker(self._directory, STDERR, threading.get_native_id())
        try:
            path.parent.mkdir(exist_ok=True)
            fd = open_to_append(path, os.O_CREAT)
        except OSError:  # a full disk, say: then all goes where it went, to a file that was removed or the worker's own
            self._refused = True
            return
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd
        os.lseek(fd, 0, os.SEEK_END)  # behind what a worker has left that had this number
        self.path = str(path)


OWN_STDERR: Final[ContextVar[OwnStderr | None]] = ContextVar("pilotflow_own_stderr", default=None)
"""The worker's, or that of a thread of the program that runs tasks; None in ranks of multi-node tasks."""
