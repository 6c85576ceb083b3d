"""What kind of file system a path is on."""

from __future__ import annotations

import os
from pathlib import Path


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
