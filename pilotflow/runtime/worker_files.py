"""What a worker has in the run directory for itself, named so that whoever buries it can remove what it has left."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Final

STDERR: Final = "err"
"""What its commands have written that have no file of their own."""
NODES: Final = "nodes"
"""The directory of its task's host file."""
MOST_BYTES: Final = 1 << 20
"""A longer file of stderr is cut, when the command that has made it so long has ended..."""
KEPT_BYTES: Final = 1 << 18
"""...to so much of its end."""


def of_worker(run_directory: str | os.PathLike[str], kind: str, pid: int) -> Path:
    """Where a worker of this host, the process or thread `pid`, has one of these."""
    return Path(run_directory, "tasks", f"worker-{socket.gethostname()}-{pid}.{kind}")


def open_to_append(path: str | os.PathLike[str], flags: int = 0) -> int:
    """A descriptor of a file of stderr: what it and others write goes to the file's end, wherever that is by then.

    Raises:
        OSError: there is no such file, or it cannot be had.
    """
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o666)


def shorten(fd: int) -> None:
    """Cut a file of stderr that is too long to its last lines.

    In place, so that a process in the background that has it open writes on behind them.

    Args:
        fd: from `open_to_append`.

    Raises:
        OSError: it cannot be read or written.
    """
    size = os.fstat(fd).st_size
    if size <= MOST_BYTES:
        return
    kept = os.pread(fd, KEPT_BYTES, size - KEPT_BYTES)
    kept = kept[kept.find(b"\n") + 1 :] + os.pread(fd, KEPT_BYTES, size)  # what has come meanwhile
    os.ftruncate(fd, 0)
    os.write(fd, b"[pilotflow has cut %d bytes here]\n" % max(0, size - len(kept)) + kept)


def shorten_left(run_directory: str | os.PathLike[str], pid: int) -> None:
    """Cut the stderr of a worker, dead or alive, if it is too long."""
    with contextlib.suppress(OSError):  # as a rule there is none
        fd = open_to_append(of_worker(run_directory, STDERR, pid))
        try:
            shorten(fd)
        finally:
            os.close(fd)


def remove_left(run_directory: str | os.PathLike[str], pid: int) -> None:
    """The worker is dead: remove what nobody wants, which is a stderr without a word or too much of it, and the host file."""
    stderr, nodes = of_worker(run_directory, STDERR, pid), of_worker(run_directory, NODES, pid)
    with contextlib.suppress(OSError):
        if stderr.stat().st_size == 0:
            stderr.unlink()
    shorten_left(run_directory, pid)
    if nodes.exists():
        import shutil  # only for a task on several nodes that was killed

        shutil.rmtree(nodes, ignore_errors=True)
