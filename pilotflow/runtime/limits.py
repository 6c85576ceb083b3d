"""What each of our processes sets up first: that the kernel has what it needs, its open-files limit and its log."""

from __future__ import annotations

import errno
import logging
import os
import platform
import resource
from pathlib import Path
from typing import Final

from pilotflow.errors import ConfigError

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


def check_kernel() -> None:
    """See that the kernel shows ends of processes by descriptors, as Linux does from 5.3 on (pidfd_open(2)).

    Raises:
        ConfigError: it does not, or does not let us; says what this host has.
    """
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
        raise ConfigError(
            f"{platform.node()} has Linux {platform.release()}, which does not allow pidfd_open here ({error.strerror}). "
            "pilotflow needs Linux 5.3 or newer: run it on a host, or in a container, where `uname -r` says so and "
            "this call is not forbidden."
        ) from error


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


class LogFile(logging.FileHandler):
    """A log that is lost without noise when its disk is full: the run goes on, and the store says so."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the standard library's name
        """Do nothing."""


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
