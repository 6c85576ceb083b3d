"""Files that a run has on a node: copies of what its tasks there have in common.

They lie under the node's temporary directory, in a directory that only we may enter, one for each
directory that is copied from. The run's managers remove it when they end; when they could not, the
next that needs one on that node does: a directory whose source is gone belongs to no run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SHARED: Final = "shared"
"""Name of the directory of shared values in a run directory."""
_SOURCE: Final = "source"
"""Name of the link to the directory that is copied from."""


def copied(source: Path) -> Path | None:
    """A copy of a file on this node, made if it is not there; None if this node has no room for it.

    Any number of processes may ask at once: one copies, and the others wait for it. A file is
    recognised by its name and directory, and so must not change.

    Raises:
        OSError: the source cannot be read.
    """
    size = source.stat().st_size
    try:
        home = home_for(source.parent)
        target = home / source.name
        if _is_whole(target, size):
            return target
        with _locked(home):
            if not _is_whole(target, size):
                _copy(source, target, size)
        return target
    except OSError:
        source.stat()  # if this fails, that is the reason
        return None


def home_for(source: Path) -> Path:
    """The directory on this node for files that come from one directory, and last as long as that.

    Raises:
        OSError: it cannot be made, or others may enter it.
    """
    source.mkdir(mode=0o700, exist_ok=True)
    base = _base()
    base.mkdir(mode=0o700, exist_ok=True)
    stat = base.lstat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077 or base.is_symlink():
        raise PermissionError(f"{base} is not ours alone")
    home = base / _name(source)
    home.mkdir(mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (home / _SOURCE).symlink_to(source)
    return home


def remove(source: Path) -> None:
    """Remove this node's copies of files of a directory; those that are in use stay until they are not."""
    with contextlib.suppress(OSError):
        shutil.rmtree(_base() / _name(source), ignore_errors=True)


def end(source: Path) -> None:
    """Remove a directory that is copied from, and this node's copies: its run is over."""
    shutil.rmtree(source, ignore_errors=True)
    remove(source)


def _is_whole(target: Path, size: int) -> bool:
    try:
        return target.stat().st_size == size
    except OSError:
        return False


def _copy(source: Path, target: Path, size: int) -> None:
    for left in target.parent.glob("*.part"):  # of processes that were killed: the lock is ours
        left.unlink()
    _sweep(target.parent.parent)
    if shutil.disk_usage(target.parent).free < size:
        raise OSError("no room for it")
    part = target.with_name(target.name + ".part")
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _sweep(base: Path) -> None:
    """Remove copies whose sources are gone."""
    for home in base.iterdir():
        source = home / _SOURCE
        if source.is_symlink() and not source.exists():
            shutil.rmtree(home, ignore_errors=True)
            continue
        for file in home.iterdir():
            if file.is_file() and file.suffix != ".part" and not (source / file.name).exists():
                with contextlib.suppress(OSError):
                    file.unlink()


def _base() -> Path:
    return Path(tempfile.gettempdir()) / f"pilotflow-node-{os.getuid()}"


def _name(source: Path) -> str:
    return hashlib.blake2b(os.fsencode(source), digest_size=16).hexdigest()


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the directory's lock, which a process that is killed gives back."""
    fd = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
