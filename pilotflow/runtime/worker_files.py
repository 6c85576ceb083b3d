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


def of_worker(run_directory: str | os.PathLike[str], kind: str, pid: int) -> Path:
    """Where a worker of this host, the process `pid`, has one of these."""
    return Path(run_directory, "tasks", f"worker-{socket.gethostname()}-{pid}.{kind}")


def remove_left(run_directory: str | os.PathLike[str], pid: int) -> None:
    """The worker is dead: remove what nobody wants, which is a stderr without a word, and the host file."""
    stderr, nodes = of_worker(run_directory, STDERR, pid), of_worker(run_directory, NODES, pid)
    with contextlib.suppress(OSError):  # as a rule there is none
        if stderr.stat().st_size == 0:
            stderr.unlink()
    if nodes.exists():
        import shutil  # only for a task on several nodes that was killed

        shutil.rmtree(nodes, ignore_errors=True)
