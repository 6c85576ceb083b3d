"""The log of a process: written by a thread, as soon as there is one, for which nobody waits long.

A file server that hangs then delays the messages of a manager or an interchange, and a program, once, by a moment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from pilotflow.errors import InfrastructureError
from pilotflow.runtime.own_threads import start_thread

MOST_WAITING: Final = 10_000
"""Lines that wait for a file server that hangs; what is too much is lost."""
PATIENCE_S: Final = 0.1
"""Who logs waits for its line so long, so that what has been done is in the log; and not at all while it hangs."""
FLUSH_S: Final = 1.0
"""The end of a process waits for its last lines so long."""


class LogFile(logging.FileHandler):
    """A log that is lost without noise when its disk is full: the run goes on, and the store says so."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._writer: LogWriter | None = None
        self._is_closed = False

    def leave_to(self, writer: LogWriter | None) -> None:
        """Have this write it from now on; without one it writes itself."""
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or have it written."""
        if self._writer is None or self.stream is None:
            super().emit(record)
        else:
            try:
                line = self.format(record)
            except Exception:  # noqa: BLE001  a mistake in a log line ends no manager, as with other handlers
                self.handleError(record)
            else:
                self._writer.put(self.stream.fileno(), f"{line}\n")

    def close(self) -> None:
        """Wait for the last lines, but not for long, and once: `logging` closes at exit what has been closed."""
        if self._writer is None:
            super().close()
        elif not self._is_closed:
            self._is_closed = True
            if self._writer.flush():
                super().close()
            else:
                self._writer.add(super().close)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the standard library's name
        """Do nothing."""


class LogWriter:
    """A thread that writes lines into files, in the order in which it gets them, and does what else may hang there.

    Raises:
        InfrastructureError: there can be no thread.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[tuple[int, bytes] | Callable[[], object] | None] = queue.SimpleQueue()
        self._late: threading.Event | None = None  # set when the lines are written that were waited for in vain
        self._given_up = False
        self._thread = start_thread(self._write, "pilotflow-log")

    def put(self, fd: int, line: str) -> None:
        """Have a line written into this file; as a rule it has been when this returns."""
        if self._lines.qsize() < MOST_WAITING:
            self._lines.put((fd, line.encode(errors="replace")))
            if self._late is None or self._late.is_set():
                self._late = self._written_in(PATIENCE_S)

    def add(self, work: Callable[[], object]) -> None:
        """Have this done after what is there to write. It raises nothing."""
        self._lines.put(work)

    def do(self, work: Callable[[], object], seconds: float) -> bool:
        """Have this done, and wait for it; whether it was, in this time."""
        self.add(work)
        return self._written_in(seconds) is None

    def flush(self) -> bool:
        """Whether everything has been written, soon."""
        if not self._given_up:
            self._given_up = self._written_in(FLUSH_S) is not None
        return not self._given_up

    def end(self, logs: Iterable[logging.Logger] = ()) -> None:
        """The thread ends when it has written what there is.

        Args:
            logs: which go on without it, since others have opened them too.
        """
        self._lines.put(None)
        if not self._given_up:
            self._thread.join(FLUSH_S)
        if not self._thread.is_alive():  # else it waits for a file system that hangs, as they would
            for handler in _files_of(logs):
                handler.leave_to(None)

    def _written_in(self, seconds: float) -> threading.Event | None:
        """None if all lines have been written in this time; else what tells when they are."""
        done = threading.Event()
        self._lines.put(done.set)
        return None if done.wait(seconds) else done

    def _write(self) -> None:
        while (found := self._lines.get()) is not None:
            if not isinstance(found, tuple):
                found()
                continue
            fd, line = found
            with contextlib.suppress(OSError):
                os.write(fd, line)


def log_to(path: Path, who: str, name: str = "pilotflow") -> logging.Logger:
    """The logger of this process, writing lines that name it to the file.

    Raises:
        OSError: the file cannot be written.
    """
    logger = logging.getLogger(name)
    handler = LogFile(path)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {who} %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def write_in_background(logs: Iterable[logging.Logger]) -> LogWriter | None:
    """Have a thread write these logs from now on; None if there can be no thread: then all is as without it.

    A process that forks afterwards has no such thread in its children, which must not write these logs.
    """
    try:
        writer = LogWriter()
    except InfrastructureError:
        return None
    for handler in _files_of(logs):
        handler.leave_to(writer)
    return writer


def _files_of(logs: Iterable[logging.Logger]) -> Iterator[LogFile]:
    for log in logs:
        yield from (handler for handler in log.handlers if isinstance(handler, LogFile))
