"""Control groups with a memory limit, where this machine lets tests make one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import until

VERSIONS = (
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness"),
    ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
)
"""Of each version: where groups are, and the files for the limit and for swapping, which would put off the kill."""


@contextmanager
def memory_group(nbytes: int) -> Iterator[Path]:
    """A group that may use so much; its processes are ended, and it is removed, after the body."""
    for root, file, swap in VERSIONS:
        group = Path(root) / f"pilotflow-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / file).write_text(str(nbytes))
            (group / swap).write_text("0")
        except OSError:
            if group.exists():
                group.rmdir()
            continue
        break
    else:
        pytest.skip("no control group with a memory limit can be made here")
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        until(lambda: not (group / "cgroup.procs").read_text().strip(), what="the end of the group's processes")
        group.rmdir()
