"""An index over the entries of a cache: one SQLite file for each host that uses it.

It serves questions, not hits, and holds nothing that the entries do not: when it is missing, damaged
or behind, it is brought up to date from them.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
import threading
import time
from typing import NamedTuple

import msgspec

from pilotflow.caching.entries import CacheFiles, Entry
from pilotflow.caching.keys import CallKey, Part
from pilotflow.runtime.filesystems import close_database, is_local

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, app TEXT, created REAL, parts BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_app ON entries (app, created);
CREATE TABLE IF NOT EXISTS directories (name TEXT PRIMARY KEY, changed_ns INTEGER);
"""
_BUSY_S = 10.0
_TICK_NS = 2_000_000_000
_LOOKED_AT = 2_000
"""Calls of an app, the latest ones, that the nearest is looked for among."""


class Nearest(NamedTuple):
    """The known call that has most in common with one that is not known.

    Attributes:
        created: when it ended, in seconds since 1970.
        parts: what its key is made of.
        calls: known calls of the app.
    """

    created: float
    parts: tuple[Part, ...]
    calls: int


class CacheIndex:
    """This host's index of a cache.

    Args:
        files: the cache's files.
    """

    def __init__(self, files: CacheFiles) -> None:
        self._files = files
        host = re.sub(r"[^A-Za-z0-9_.-]", "_", socket.gethostname())
        self._path = files.directory / f"index-{host}.db"
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None

    def add(self, rows: list[tuple[CallKey, Entry]]) -> None:
        """Take up new entries; those that it misses are found at the next question."""
        with contextlib.suppress(sqlite3.Error), self._lock:
            database = self._open()
            _insert(database, [(key.digest, entry) for key, entry in rows])

    def nearest(self, app: str, key: CallKey, before: float) -> Nearest | None:
        """The call of an app with most parts in common; None if there is none.

        Args:
            app: the app's name.
            key: the call to compare with.
            before: look at those that ended before this, in seconds since 1970.
        """
        with self._lock:
            try:
                return self._nearest(app, key, before)
            except sqlite3.DatabaseError:  # damaged: make it anew
                self._remove()
            try:
                return self._nearest(app, key, before)
            except sqlite3.Error:  # the directory cannot be written
                return None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._database is not None:
                close_database(self._database, self._path)
                self._database = None

    def _nearest(self, app: str, key: CallKey, before: float) -> Nearest | None:
        database = self._open()
        self._catch_up(database)
        asked = (app, before, key.digest)
        where = "FROM entries WHERE app = ? AND created < ? AND key != ?"
        count = database.execute(f"SELECT count(*) {where}", asked).fetchone()[0]
        rows = database.execute(
            f"SELECT created, parts {where} ORDER BY created DESC LIMIT {_LOOKED_AT}",
            asked,
        )
        mine = {(part.name, part.digest) for part in key.parts}
        best: Nearest | None = None
        most = -1
        for created, packed in rows:
            parts = tuple(msgspec.msgpack.decode(packed, type=list[Part]))
            common = len(mine & {(part.name, part.digest) for part in parts})
            if common > most:
                most, best = common, Nearest(created, parts, count)
        return best

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            try:
                self._path.chmod(0o600)
                database.execute("PRAGMA journal_mode=WAL" if is_local(self._path) else "PRAGMA journal_mode=DELETE")
                database.execute("PRAGMA synchronous=OFF")  # it can be made again
                database.executescript(_SCHEMA)
            except (sqlite3.Error, OSError):
                database.close()
                raise
            self._database = database
        return self._database

    def _remove(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        for suffix in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()

    def _catch_up(self, database: sqlite3.Connection) -> None:
        """Look at the directories in which something has changed since the last look."""
        seen = dict(database.execute("SELECT name, changed_ns FROM directories"))
        for name, changed_ns in self._files.changes().items():
            if seen.get(name) == changed_ns:
                continue
            low, high = bytes.fromhex(name), bytes.fromhex(name) + b"\xff" * 20
            known = {
                row[0] for row in database.execute("SELECT key FROM entries WHERE key BETWEEN ? AND ?", (low, high))
            }
            present = set(self._files.digests(name))
            new = [(digest, entry) for digest in present - known if (entry := self._files.header(digest)) is not None]
            _insert(database, new)
            database.executemany("DELETE FROM entries WHERE key = ?", [(digest,) for digest in known - present])
            if time.time_ns() - changed_ns > _TICK_NS:  # else more may come in the same tick of its clock
                database.execute("INSERT OR REPLACE INTO directories VALUES (?, ?)", (name, changed_ns))


def _insert(database: sqlite3.Connection, rows: list[tuple[bytes, Entry]]) -> None:
    database.execute("BEGIN")
    with database:  # commits, or rolls back
        database.executemany(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
            [(digest, entry.app, entry.created, msgspec.msgpack.encode(entry.parts)) for digest, entry in rows],
        )
