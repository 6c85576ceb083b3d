"""What kind of file system a path is on, and what has to be done in another way where it hangs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3


def is_local(path: Path) -> bool:
    """Whether a file is on a file system of this host: SQLite's WAL works there, and memory mappings need no network."""
    shared = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "fuse.sshfs", "ceph", "afs", "9p"}
    best, kind = "", ""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    where = os.path.realpath(path.parent)
    for line in mounts:
        _, point, fs, *_ = line.split(" ")
        if (where == point or where.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, fs
    return kind not in shared


def close_database(database: sqlite3.Connection, path: Path) -> None:
    """Close it. While its file system hangs this does not end, and stops no other thread.

    Python 3.10 keeps its lock while SQLite closes, which looks at the file; `os.stat` lets go of it.
    """
    with contextlib.suppress(OSError):
        os.stat(path)
    database.close()
