"""The store of a workflow's run: its jobs, their attempts, what has fired. What is committed is true.

It is the run store (`pilotflow.runtime.store`) with more tables. One process writes it, in whole
transactions; any process of the host may read it (`pilotflow.workflow.history`).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from pilotflow.core.block_records import KnownBlock
from pilotflow.core.job_states import JobState
from pilotflow.errors import ConfigError
from pilotflow.resources import Request
from pilotflow.runtime.store import Store
from pilotflow.workflow.records import Job, Workflow
from pilotflow.workflow.rows import FILE, JobRow, ResultRow

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS definition (part TEXT PRIMARY KEY, content BLOB);
CREATE TABLE IF NOT EXISTS stages (stage INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE IF NOT EXISTS jobs (
    job INTEGER PRIMARY KEY, name TEXT, stage INTEGER, state INTEGER, attempt INTEGER, failures INTEGER,
    wire INTEGER, script TEXT, code INTEGER, changed REAL
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, stage);
CREATE INDEX IF NOT EXISTS jobs_by_name ON jobs (name);
CREATE TABLE IF NOT EXISTS results (
    job INTEGER, attempt INTEGER, how TEXT, exit_code INTEGER, started_us INTEGER, duration_us INTEGER,
    cpu_us INTEGER, peak_bytes INTEGER, manager INTEGER, cores TEXT, gpus TEXT, cause TEXT, words TEXT, at REAL,
    PRIMARY KEY (job, attempt)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS user_data (number INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS actions (number INTEGER PRIMARY KEY, fired REAL, ended REAL, words TEXT);
CREATE TABLE IF NOT EXISTS inputs (job INTEGER PRIMARY KEY, digest TEXT);
CREATE TABLE IF NOT EXISTS requests (place INTEGER PRIMARY KEY, job INTEGER, request BLOB, why TEXT);
CREATE TABLE IF NOT EXISTS blocks (name TEXT PRIMARY KEY, executor TEXT, batch_id TEXT);
CREATE TABLE IF NOT EXISTS places (block TEXT, node TEXT, PRIMARY KEY (block, node)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lives (
    life INTEGER PRIMARY KEY, epoch INTEGER, pid INTEGER, host TEXT, began REAL, ended REAL, how TEXT
);
"""
_NO_PLACE: Final = "DELETE FROM places WHERE block = ? AND node = ?"


@dataclass
class Changes:
    """What one transaction writes. `places` says of block and node whether a manager is there."""

    jobs: list[JobRow] = field(default_factory=list)
    results: list[ResultRow] = field(default_factory=list)
    user_data: list[tuple[int, str]] = field(default_factory=list)
    fired: list[tuple[int, float]] = field(default_factory=list)
    inputs: list[tuple[int, str]] = field(default_factory=list)
    requests: list[tuple[int, bytes, str]] = field(default_factory=list)
    places: dict[tuple[str, str], bool] = field(default_factory=dict)

    def __bool__(self) -> bool:
        jobs = (self.jobs, self.results, self.user_data, self.inputs, self.requests)
        return any((*jobs, self.fired, self.places))


class JobStore(Store):
    """The store of one workflow's run, for the one process that writes it. See `Store`."""

    without = "what it says of managers and blocks has gaps"

    def __init__(self, directory: Path, log: logging.Logger) -> None:
        super().__init__(directory / FILE, log)
        self.commit(_each(_SCHEMA))

    def create(self, workflow: Workflow, facts: Iterable[tuple[str, str]]) -> None:
        """Record a workflow of which nothing has run."""

        def write(database: sqlite3.Connection) -> None:
            self._define(database, workflow)
            rows = [(job.index, job.name, job.stage) for job in workflow.jobs]
            database.execute("DELETE FROM jobs")
            database.executemany("INSERT INTO jobs VALUES (?, ?, ?, 0, 0, 0, 0, NULL, NULL, NULL)", rows)
            database.executemany("INSERT OR REPLACE INTO run VALUES (?, ?)", facts)
            given = [(number, data.data) for number, data in enumerate(workflow.user_data) if data.given]
            encode = msgspec.json.encode
            values = [(number, encode(value).decode()) for number, value in given]
            database.executemany("INSERT OR REPLACE INTO user_data VALUES (?, ?)", values)

        self.commit(write)

    def redefine(self, workflow: Workflow, work: Callable[[sqlite3.Connection], None]) -> None:
        """Another definition of the same run; `work` brings the jobs into accord with it."""

        def write(database: sqlite3.Connection) -> None:
            self._define(database, workflow)
            work(database)

        self.commit(write)

    def _define(self, database: sqlite3.Connection, workflow: Workflow) -> None:
        database.execute("DELETE FROM definition")
        database.executemany("INSERT INTO definition VALUES (?, ?)", encode_definition(workflow))
        database.execute("DELETE FROM stages")
        database.executemany("INSERT INTO stages VALUES (?, ?)", enumerate(workflow.stages))

    def begin_life(self, epoch: int, pid: int, host: str) -> int:
        """Record that this process now has the run; returns the life's number."""
        found: list[int] = []

        def write(database: sqlite3.Connection) -> None:
            number = database.execute("SELECT COALESCE(MAX(life), 0) + 1 FROM lives").fetchone()[0]
            database.execute("INSERT INTO lives VALUES (?, ?, ?, ?, ?, NULL, NULL)", (number, epoch, pid, host, _now()))
            found.append(number)

        self.commit(write)
        return found[0]

    def end_life(self, life: int, how: str) -> None:
        """Record that this process is done with the run."""
        self.commit(
            lambda d: void(d.execute("UPDATE lives SET ended = ?, how = ? WHERE life = ?", (_now(), how, life)))
        )

    def apply(self, changes: Changes) -> None:
        """Commit what has happened to jobs."""

        def write(database: sqlite3.Connection) -> None:
            if changes.results:
                marks = ", ".join("?" * len(ResultRow._fields))
                database.executemany(f"INSERT OR REPLACE INTO results VALUES ({marks})", changes.results)  # noqa: S608  no data
            if changes.jobs:
                database.executemany(
                    "UPDATE jobs SET state = ?, attempt = ?, failures = ?, wire = ?, script = ?, code = ?, changed = ? "
                    "WHERE job = ?",
                    changes.jobs,
                )
            database.executemany("INSERT OR REPLACE INTO user_data VALUES (?, ?)", changes.user_data)
            database.executemany("INSERT OR IGNORE INTO actions VALUES (?, ?, NULL, NULL)", changes.fired)
            database.executemany("INSERT OR REPLACE INTO inputs VALUES (?, ?)", changes.inputs)
            database.executemany("INSERT INTO requests (job, request, why) VALUES (?, ?, ?)", changes.requests)
            for place, there in changes.places.items():
                statement = "INSERT OR IGNORE INTO places VALUES (?, ?)" if there else _NO_PLACE
                database.execute(statement, place)

        self.commit(write)

    def action_ended(self, number: int, words: str) -> None:
        """Record that an action was carried out."""
        statement = "UPDATE actions SET ended = ?, words = ? WHERE number = ?"
        self.commit(lambda d: void(d.execute(statement, (_now(), words, number))))

    def known_blocks(self, blocks: Sequence[KnownBlock]) -> None:
        """Record which blocks exist."""

        def write(database: sqlite3.Connection) -> None:
            database.execute("DELETE FROM blocks")
            database.executemany(
                "INSERT INTO blocks VALUES (?, ?, ?)", [(b.name, b.executor, b.batch_id) for b in blocks]
            )

        self.commit(write)


def encode_definition(workflow: Workflow) -> list[tuple[str, bytes]]:
    """A workflow in parts. What jobs depend on is written once for all that depend on the same."""
    groups: dict[int, int] = {}
    needs: list[tuple[int, ...]] = []
    of_job: list[int] = []
    for job in workflow.jobs:
        number = groups.get(id(job.depends_on))
        if number is None:
            number = groups[id(job.depends_on)] = len(needs)
            needs.append(job.depends_on)
        of_job.append(number)
    bare = msgspec.structs.replace(workflow, jobs=())
    encode = msgspec.msgpack.encode
    return [
        ("workflow", encode(bare)),
        ("jobs", encode([msgspec.structs.replace(job, depends_on=()) for job in workflow.jobs])),
        ("needs", encode(needs)),
        ("needs_of_job", encode(of_job)),
    ]


def decode_definition(parts: dict[str, bytes]) -> Workflow:
    """The workflow again, with equal things shared."""
    decode = msgspec.msgpack.decode
    bare = decode(parts["workflow"], type=Workflow)
    needs = decode(parts["needs"], type=list[tuple[int, ...]])
    of_job = decode(parts["needs_of_job"], type=list[int])
    shared: dict[Any, Any] = {}
    jobs = []
    for job, group in zip(decode(parts["jobs"], type=list[Job]), of_job, strict=True):
        jobs.append(
            msgspec.structs.replace(
                job,
                depends_on=needs[group],
                request=shared.setdefault(job.request, job.request),
                env=shared.setdefault(job.env, job.env),
                stdio=shared.setdefault(("stdio", job.stdio.mode, job.stdio.delete_on_success), job.stdio),
            )
        )
    return msgspec.structs.replace(bare, jobs=tuple(jobs))


def read_definition(database: sqlite3.Connection) -> Workflow:
    """The workflow that a store is of.

    Raises:
        ConfigError: it is of none.
    """
    try:
        parts = dict(database.execute("SELECT part, content FROM definition"))
    except sqlite3.Error:
        parts = {}
    if not parts:
        raise ConfigError("This is not the run of a workflow: its store has no definition.")
    return decode_definition(parts)


class Restored(NamedTuple):
    """What a store knows of its jobs, by number, and of the managers that there were, by block and node.

    Attributes:
        spent_s: time that the attempts took of jobs that are being tried again.
    """

    states: list[JobState]
    attempts: list[int]
    failures: list[int]
    wires: list[int]
    scripts: dict[int, tuple[str | None, int]]
    user_data: dict[int, str]
    fired: dict[int, bool]
    blocks: tuple[KnownBlock, ...]
    requests: list[tuple[int, Request]]
    managers: list[tuple[str, str]]
    spent_s: dict[int, float]


def restore(database: sqlite3.Connection) -> Restored:
    """Read what is known of the jobs; `fired` says of each action that has fired whether it is carried out."""
    rows = database.execute("SELECT state, attempt, failures, wire, script, code FROM jobs ORDER BY job").fetchall()
    return Restored(
        [JobState(row[0]) for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
        {job: (row[4], row[5]) for job, row in enumerate(rows) if row[5] is not None},
        dict(database.execute("SELECT number, value FROM user_data")),
        {number: ended is not None for number, ended in database.execute("SELECT number, ended FROM actions")},
        tuple(KnownBlock(*row) for row in database.execute("SELECT executor, name, batch_id FROM blocks")),
        read_requests(database),
        database.execute("SELECT block, node FROM places").fetchall(),
        _spent_s(database),
    )


def _spent_s(database: sqlite3.Connection) -> dict[int, float]:
    """Time of the attempts that have failed since a job was last reset."""
    rows = database.execute(
        "SELECT job, failures, duration_us FROM results JOIN jobs USING (job) WHERE failures > 0 AND "
        "how IN ('failed', 'terminated') ORDER BY job, results.attempt DESC"
    )
    spent = defaultdict[int, float](float)
    seen = Counter[int]()
    for job, failures, duration_us in rows:
        seen[job] += 1
        if seen[job] <= failures:
            spent[job] += duration_us / 1e6
    return dict(spent)


def read_requests(database: sqlite3.Connection) -> list[tuple[int, Request]]:
    """What jobs ask for instead of what their definition says, oldest first."""
    rows = database.execute("SELECT job, request FROM requests ORDER BY place")
    return [(job, msgspec.msgpack.decode(request, type=Request)) for job, request in rows]


def void(_: object) -> None:
    """Forget a value."""


def _each(statements: str) -> Callable[[sqlite3.Connection], None]:
    def run(database: sqlite3.Connection) -> None:
        for statement in statements.split(";"):
            if statement.strip():
                database.execute(statement)

    return run


def _now() -> float:
    return time.time()
