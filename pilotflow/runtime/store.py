"""The run store: an SQLite file with one writer, a thread that writes in batches.

Whoever has something to record appends it and goes on. A batch goes to SQLite in few statements of
many rows, so that the writer takes Python's lock seldom and holds it for moments only.
When the file cannot be written (a full disk, say), that is logged once and the run goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from pilotflow.core.pace import Counts
from pilotflow.errors import ConfigError
from pilotflow.messages.client import ManagerUp
from pilotflow.runtime import own_threads
from pilotflow.runtime.filesystems import close_database, is_local
from pilotflow.runtime.leftovers import mark

FLUSH_PERIOD_S = 0.5
"""Rows wait at most this long before they are written."""

TaskRow: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int | None, tuple[int, ...], tuple[int, ...]]
"""An ended attempt, in the order of the columns of `tasks`; cores and GPUs are lists of logical indices."""
EndRow: TypeAlias = tuple[int, int, str, str, float]
"""(task, function number, "failed" or "cancelled", in words why, Unix time)"""

_COLUMNS = (
    "task",
    "fn",
    "attempt",
    "status",
    "started_us",  # Unix time
    "duration_us",
    "manager",
    "cpu_us",
    "peak_bytes",
    "exit_code",  # of a command
    "cores",
    "gpus",
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS functions (fn INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE IF NOT EXISTS tasks (
    task INTEGER, fn INTEGER, attempt INTEGER, status INTEGER, started_us INTEGER, duration_us INTEGER,
    manager INTEGER, cpu_us INTEGER, peak_bytes INTEGER, exit_code INTEGER, cores TEXT, gpus TEXT
);
CREATE TABLE IF NOT EXISTS managers (
    manager INTEGER PRIMARY KEY, executor TEXT, block TEXT, node TEXT, cpus_milli INTEGER, memory_bytes INTEGER,
    gpus TEXT
);
CREATE TABLE IF NOT EXISTS labels (task INTEGER PRIMARY KEY, label TEXT);
CREATE TABLE IF NOT EXISTS ends (task INTEGER, fn INTEGER, how TEXT, words TEXT, time REAL);
CREATE TABLE IF NOT EXISTS events (time REAL, kind TEXT, subject TEXT, detail TEXT);
"""
_PATH_MAX_BYTES: Final = 504
"""SQLite's MAX_PATHNAME, 512, less the ending of its journal (sqlite3: os_unix.c)."""
_ROWS_AT_ONCE = (512, 64, 8, 1) if sqlite3.sqlite_version_info >= (3, 32) else (64, 8, 1)  # before: 999 values
_ROW = f"({', '.join('?' * len(_COLUMNS))})"
_INSERT_TASKS = {
    count: f"INSERT INTO tasks ({', '.join(_COLUMNS)}) VALUES {', '.join([_ROW] * count)}"  # noqa: S608  no data
    for count in _ROWS_AT_ONCE
}


class Store:
    """Records what happens in a run, without making anybody wait.

    Args:
        path: the SQLite file, made if it is not there.
        log: where to say that nothing can be recorded.

    Raises:
        sqlite3.Error: the file cannot be made.

    Attributes:
        without: what it means that something cannot be recorded.
    """

    without: ClassVar[str] = "the run goes on, its record has gaps"

    def __init__(self, path: Path, log: logging.Logger) -> None:
        self.path = path
        self._log = log
        self._tasks: list[TaskRow] = []
        self._others: list[tuple[str, tuple[Any, ...]]] = []
        self._lock = threading.Lock()  # over the two lists
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._broken = False
        self._writing = threading.Lock()
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=WAL" if is_local(path) else "PRAGMA journal_mode=DELETE")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("PRAGMA busy_timeout=10000")  # readers of other processes are quick
        self._database.executescript(_SCHEMA)
        self._thread = threading.Thread(target=self._run, name="pilotflow-store", daemon=True)
        own_threads.start(self._thread)

    @property
    def recording(self) -> bool:
        """Whether everything so far could be recorded."""
        return not self._broken

    def tasks(self, rows: list[TaskRow]) -> None:
        """Record ended attempts."""
        with self._lock:
            self._tasks += rows
        if not self._wake.is_set():
            self._wake.set()

    def ends(self, rows: list[EndRow]) -> None:
        """Record how tasks ended that did not end well."""
        self._add(*(("INSERT INTO ends VALUES (?, ?, ?, ?, ?)", row) for row in rows))

    def function(self, fn: int, name: str) -> None:
        """Record the name of a function's number."""
        self._add(("INSERT OR REPLACE INTO functions VALUES (?, ?)", (fn, name)))

    def label(self, task: int, label: str) -> None:
        """Record the label of a task."""
        self._add(("INSERT OR REPLACE INTO labels VALUES (?, ?)", (task, label)))

    def manager(self, up: ManagerUp) -> None:
        """Record a manager that has joined; rows of tasks name it by its number."""
        capacity = up.capacity
        gpus = msgspec.json.encode(capacity.gpus).decode()
        values = (up.manager, up.executor, up.block, up.node, capacity.cpus_milli, capacity.memory_bytes, gpus)
        self._add(("INSERT OR REPLACE INTO managers VALUES (?, ?, ?, ?, ?, ?, ?)", values))

    def fact(self, key: str, value: str) -> None:
        """Record something about the run as a whole."""
        self._add(("INSERT OR REPLACE INTO run VALUES (?, ?)", (key, value)))

    def begin(self, run_id: str, pid: int) -> None:
        """Record that this program begins the run."""
        for key, value in (("run_id", run_id), ("pid", pid), ("mark", mark(run_id, pid)), ("began", time.time())):
            self.fact(key, str(value))

    def end(self, counts: Counts) -> None:
        """Record that the program has closed the run, and how its tasks ended."""
        for key in ("done", "failed", "cancelled"):
            self.fact(key, str(getattr(counts, key)))
        self.fact("ended", str(time.time()))

    def event(self, kind: str, subject: str, detail: str) -> None:
        """Record a change of a block or manager."""
        self._add(("INSERT INTO events VALUES (?, ?, ?, ?)", (time.time(), kind, subject, detail)))

    def _add(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        with self._lock:
            self._others += statements
        self._wake.set()

    def commit(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Write something now: when this returns it is recorded, whole.

        Raises:
            sqlite3.Error: it is not, and nothing of it is.
        """
        with self._writing:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                work(self._database)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def close(self, timeout_s: float) -> bool:
        """Write what is left and close the file; whether that was done within the timeout."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            self._write()
            self._closing.wait(FLUSH_PERIOD_S)  # so that rows come together; nobody waits for them
        self._write()
        close_database(self._database, self.path)

    def _write(self) -> None:
        with self._lock:
            tasks, self._tasks = self._tasks, []
            others, self._others = self._others, []
        if not tasks and not others:
            return
        with self._writing:
            self._write_rows(tasks, others)

    def _write_rows(self, tasks: list[TaskRow], others: list[tuple[str, tuple[Any, ...]]]) -> None:
        try:
            self._database.execute("BEGIN")
            if tasks:
                self._insert(tasks)
            for statement, values in others:
                self._database.execute(statement, tuple(map(_encodable, values)))
            self._database.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  the writer's top: whatever cannot be written must not end it
            self._cannot_record(error)
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def _cannot_record(self, error: Exception) -> None:
        """Say so: once, if it is the disk or the file; a bug each time."""
        if not isinstance(error, sqlite3.Error):
            self._log.error("some of the record is lost because of a bug", exc_info=error)
        if not self._broken:
            self._broken = True
            text = f"cannot record in {self.path}: {error}; {self.without}"
            self._log.error("%s", text)
            sys.stderr.write(f"pilotflow: {text}\n")  # the log may be on the same full disk

    def _insert(self, rows: list[TaskRow]) -> None:
        """Insert rows of tasks, as many as possible with each statement: between two of them Python's lock is taken."""
        at = 0
        for count, statement in _INSERT_TASKS.items():
            while len(rows) - at >= count:
                values: list[Any] = []
                for row in rows[at : at + count]:
                    values += row[:-2]
                    values.append(_as_text(row[-2]))
                    values.append(_as_text(row[-1]))
                self._database.execute(statement, values)
                at += count


def _encodable(value: Any) -> Any:
    """The value; of a text with what is no character, as file names may have, one that shows what that was."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode()
    return value


@lru_cache(maxsize=1024)
def _as_text(indices: tuple[int, ...]) -> str:
    return msgspec.json.encode(indices).decode()


def open_store(path: Path, log: logging.Logger) -> Store:
    """A run's store; see `Store`.

    Raises:
        ConfigError: its file cannot be made; says why and what to do.
    """
    try:
        return Store(path, log)
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"{cannot_make(path, error)}, or load with store=False.") from None


def cannot_make(path: Path, error: Exception) -> str:
    """What is said of a store whose file cannot be made, without its last full stop."""
    length = len(os.fsencode(path.absolute()))
    remedy = "Free space there, or choose another run_dir"
    if length > _PATH_MAX_BYTES:
        remedy = (
            f"SQLite opens files whose path has at most {_PATH_MAX_BYTES} bytes, and this one has {length}: choose a "
            "run_dir with a shorter path"
        )
    return f"Cannot make the run store {path}: {error}. {remedy}"
