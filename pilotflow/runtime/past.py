"""How tasks of a run have ended, read from its store: by other processes too, and after the run."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from pilotflow.explanation import Explanation, Kind, Number, Reason, State
from pilotflow.messages.records import Status
from pilotflow.units import format_duration

_TIMEOUT_S: Final = 2.0
_NAMES_MAX: Final = 1000
_HOW: Final = {
    Status.OK: State.DONE,
    Status.CANCELLED: State.CANCELLED,
}
"""What the status of a task's last attempt makes of it; any other is a failure."""


class _End(NamedTuple):
    """What the store says of a task; times in seconds of Unix time."""

    task: int
    name: str
    state: State
    words: str
    attempts: int
    at: float
    duration_s: float | None


def explain_past(path: Path, asked: str) -> Explanation | None:
    """How the task with this number, name or label has ended; None if the store does not know it.

    Of several with the name, the one that has ended last.
    """
    with _open(path) as database:
        if database is None:
            return None
        id = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 19 else _last(database, asked)
        found = _end(database, id) if id else None
    return None if found is None else _explanation(found)


def past_names(path: Path) -> list[str]:
    """Names of the functions that the run knew."""
    with _open(path) as database:
        if database is None:
            return []
        return [name for (name,) in _rows(database, "SELECT DISTINCT name FROM functions LIMIT ?", _NAMES_MAX)]


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection | None]:
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_S)
    except sqlite3.Error:  # there is none
        yield None
        return
    with closing(database):
        yield database


def _rows(database: sqlite3.Connection, query: str, *values: Any) -> Sequence[Any]:
    try:
        return database.execute(query, values).fetchall()
    except sqlite3.Error:  # of an earlier version, locked for too long, or no database: as if nothing was there
        return []


def _last(database: sqlite3.Connection, name: str) -> int:
    """The task of that name or label that has ended last, or 0."""
    ended = "SELECT task, (started_us + duration_us) / 1e6 AS at FROM tasks"
    other = "SELECT task, time AS at FROM ends"
    rows: list[Any] = []
    for which in ("JOIN functions USING (fn) WHERE name = ?", "JOIN labels USING (task) WHERE label = ?"):
        for query in (ended, other):
            rows += _rows(database, f"{query} {which} ORDER BY at DESC LIMIT 1", name)
    return max(rows, key=lambda row: row[1])[0] if rows else 0


def _end(database: sqlite3.Connection, id: int) -> _End | None:
    query = (
        "SELECT name, status, started_us, duration_us FROM tasks LEFT JOIN functions USING (fn) "
        "WHERE task = ? ORDER BY attempt"
    )
    attempts = _rows(database, query, id)
    ends = _rows(database, "SELECT name, how, words, time FROM ends LEFT JOIN functions USING (fn) WHERE task = ?", id)
    if not attempts and not ends:
        return None
    name = (ends or attempts)[-1][0] or ""
    at, duration_s, state, words = 0.0, None, State.DONE, ""
    if attempts:
        _, status, started_us, duration_us = attempts[-1]
        if started_us:  # else it was given up without having run
            at, duration_s = (started_us + duration_us) / 1e6, duration_us / 1e6
        state = _HOW.get(status, State.FAILED)
    if ends:
        _, how, words, at = ends[-1]
        state = State.CANCELLED if how == State.CANCELLED.value else State.FAILED
    return _End(id, name, state, words, len(attempts), at, duration_s)


def _explanation(end: _End) -> Explanation:
    numbers: list[Number] = []
    when = took = ""
    if end.at:
        numbers.append(Number("ended_at", end.at))
        ago = max(0.0, time.time() - end.at)
        when = f" on {datetime.fromtimestamp(end.at).astimezone():%Y-%m-%d %H:%M:%S}"
        when += f" ({format_duration(round(ago))} ago)" if ago >= 1 else " (just now)"
    if end.duration_s is not None:
        numbers.append(Number("duration_s", end.duration_s))
        took = f", after {format_duration(end.duration_s)} of work"
    if end.attempts > 1:
        numbers.append(Number("attempts", end.attempts))
        took += f" in the last of {end.attempts} attempts"
    kind = {State.DONE: Kind.DONE, State.CANCELLED: Kind.CANCELLED}.get(end.state, Kind.FAILED)
    text = f"It ended{when}{took}."
    if end.state is State.FAILED:
        words = end.words or "Why is not in the run's record; its future has the exception."
        text = f"{words.rstrip()}\n{text}"
    return Explanation(end.task, end.name, end.state, (Reason(kind, text, "", tuple(numbers)),))
