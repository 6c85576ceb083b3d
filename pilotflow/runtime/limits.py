"""What each of our processes sees to first: its open-files limit."""

from __future__ import annotations

import logging
import platform
import resource
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.runtime.process_end import why_threads

READ_MAX: Final = 256
"""Messages taken from one socket before others have their turn."""
INTERCHANGE_FILES: Final = 200
"""Open files an interchange needs before any manager has joined."""
MANAGER_FILES: Final = 60
"""Open files a manager needs beside its workers..."""
FILES_PER_WORKER: Final = 4
"""...and for each of them: two ends of its link, and payloads on their way."""
WANTED_FILES: Final = 1 << 20
"""As far as we raise our soft limit, if the hard limit allows."""


def say_how_ends_are_seen(log: logging.Logger) -> None:
    """Tell the log if threads watch for the ends of processes here, see `process_end`."""
    reason = why_threads()
    if reason:
        log.info("Linux %s shows no end of a process here (%s): threads watch for them", platform.release(), reason)


def raise_open_files(need: int, who: str) -> int:
    """Raise the soft limit of open files as far as it goes; returns what it is then.

    Raises:
        ConfigError: if less than `need` can be had; says need, limit and remedy.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < need:
        raise ConfigError(
            f"Too few open files: {who} needs {need}, the hard limit here is {hard}. "
            f"Raise it (ulimit -Hn {need}, or nofile in /etc/security/limits.conf), or use fewer workers a node."
        )
    return WANTED_FILES if soft == resource.RLIM_INFINITY else soft
