"""Where the Unix sockets of runs are on a host: a directory for each run, and what becomes of those of dead runs.

Run directories will not do: their paths are too long for sockets, and their file systems may not hold any. A run
removes its directory at its end; if its program and its interchange are killed, the next start of a run there does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import socket
import stat
import time
from itertools import islice
from pathlib import Path
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.runtime.filesystems import is_local
from pilotflow.units import counted

PREFIX: Final = "pilotflow-"
YOUNG_S: Final = 60.0
"""A directory that has changed within this time is left alone."""
INCOMPLETE_S: Final = 86400.0
"""So is one without all its sockets: its program may be stopped just now, before it listens."""
MOST: Final = 200
"""Directories that one start removes; others are left to the next, since a start is waited for."""
_LAST: Final = "control"
"""The socket that is made last, see `InterchangeProcess`."""
_SOCKETS: Final = frozenset({"client", "managers", _LAST})
_OURS: Final = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")
"""What `tempfile` makes of the prefix."""


def make() -> Path:
    """A new 0700 directory for a run's sockets, under XDG_RUNTIME_DIR or the temporary directory.

    Raises:
        ConfigError: it cannot be made.
    """
    import tempfile  # only the user's program needs it, and managers must start lean

    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base or not os.access(base, os.W_OK) or len(base) > 60:
        base = tempfile.gettempdir() if len(tempfile.gettempdir()) <= 60 else "/tmp"  # noqa: S108  mkdtemp makes it ours
    try:
        return Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    except OSError as error:
        text = f"Cannot make a directory for the run's sockets in {base}: {error.strerror}."
        raise ConfigError(f"{text} Name one that can be written in XDG_RUNTIME_DIR or TMPDIR.") from None


def make_again(directory: Path) -> Path:
    """A run's directory that somebody may have removed, as `make` has made it; or another one in its place.

    Raises:
        ConfigError: neither can be made.
    """
    with contextlib.suppress(OSError):
        directory.mkdir(0o700)
    try:
        status = directory.lstat()
    except OSError:
        return make()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == 0o700
    return directory if is_ours else make()  # somebody else may have taken its name


def remove(directory: Path) -> None:
    """Remove what `make` has made, with its sockets."""
    for path in directory.glob("*"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def remove_dead(base: Path, log: logging.Logger) -> int:
    """Remove our user's directories in `base` whose sockets nobody listens on any more; returns how many.

    Only real directories of the shape that runs make are looked at, and nothing is removed that is not a dead
    socket. On a file system that hosts share nothing can be known of the others' processes: nothing is removed.
    """
    try:
        found = [name for name in os.listdir(base) if _OURS.fullmatch(name)]
    except OSError:
        return 0
    if not found or not is_local(base / PREFIX):
        return 0
    now = time.time()
    gone = filter(None, (_remove_if_dead(base / name, now) for name in found))
    removed = sum(islice(gone, MOST))
    if removed:
        log.info("removed the sockets of %s that had been killed, in %s", counted(removed, "run"), base)
    return removed


def _remove_if_dead(directory: Path, now: float) -> bool:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # a link, a file, somebody else's, or gone
        return False
    try:
        names = os.listdir(fd)
        if not _may_go(os.fstat(fd), names, now) or not all(_is_dead(fd, name) for name in names):
            return False
        for name in names:
            os.unlink(name, dir_fd=fd)
        os.rmdir(directory)
    except OSError:  # another start does the same
        return False
    finally:
        os.close(fd)
    return True


def _may_go(status: os.stat_result, names: list[str], now: float) -> bool:
    """Whether a directory is a run's, of this user, and old enough that its sockets would be listened on."""
    is_ours = status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) == 0o700
    least_s = YOUNG_S if _LAST in names else INCOMPLETE_S
    return is_ours and _SOCKETS.issuperset(names) and now - status.st_mtime >= least_s


def _is_dead(directory: int, name: str) -> bool:
    """Whether this entry of an open directory is a socket that refuses connections."""
    if not stat.S_ISSOCK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.setblocking(False)
        return peer.connect_ex(f"/proc/self/fd/{directory}/{name}") == errno.ECONNREFUSED
