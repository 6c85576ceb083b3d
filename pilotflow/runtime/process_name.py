"""What `top`, `pstree` and `ps -o comm` call our processes, which are all called python otherwise."""

from __future__ import annotations

import contextlib
from pathlib import Path


def name_process(name: str) -> None:
    """Call this process so, where the system lets us; what it starts by `exec` has a name of its own again.

    Args:
        name: at most 15 characters; the kernel cuts what is longer.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)
