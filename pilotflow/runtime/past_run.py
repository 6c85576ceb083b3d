"""How the run of a Python program went, read from its store when nobody is there to be asked."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from pilotflow.core.pace import Counts
from pilotflow.messages.records import Status
from pilotflow.runtime import leftovers

_TIMEOUT_S: Final = 2.0
_DEPENDENT: Final = "DependencyError:%"


class OfFunction(NamedTuple):
    """What became of the tasks of one name, as far as that is recorded one by one."""

    name: str
    done: int
    failed: int
    cancelled: int
    work_s: float


class Failure(NamedTuple):
    """A task that failed, and the end of what was raised."""

    task: int
    name: str
    words: str


@dataclass(frozen=True)
class PastRun:
    """What the store says of a run. Times are seconds of Unix time.

    Attributes:
        state: "ended"; "ending" while its program still closes it; "died" if that is gone and had not closed it.
        pid: of its program.
        began, ended: None if that is not recorded; of a run that died, `ended` is the last thing recorded.
        counts: how its tasks ended. Of a run that died, those that had not ended are not known.
        work_s: how long its tasks worked together, all attempts.
        functions: the same by name, those with the most work first.
        failures: the first ones, those that failed for themselves before those that needed them.
    """

    state: str
    pid: int
    began: float | None
    ended: float | None
    counts: Counts
    work_s: float
    functions: tuple[OfFunction, ...]
    failures: tuple[Failure, ...]


def past_run(path: Path, failures: int) -> PastRun | None:
    """What the store at this path says of its run, with so many failures; None if there is no store that can be read."""
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_S)
    except sqlite3.Error:
        return None
    with closing(database):
        try:
            return _read(database, failures)
        except (sqlite3.Error, ValueError):  # no store of ours, or one that is locked for too long
            return None


def counts_so_far(path: Path) -> Counts | None:
    """How the tasks have ended that are on record, of a run that goes on; None if there is no store that can be read.

    Of the first 10,000 that did not end well; see `pilotflow.runtime.ends`.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_S)) as database:
            (done,) = database.execute("SELECT COUNT(*) FROM tasks WHERE status = ?", (Status.OK,)).fetchone()
            others = dict(database.execute("SELECT how, COUNT(*) FROM ends GROUP BY how"))
    except sqlite3.Error:
        return None
    return Counts(done, others.get("failed", 0), others.get("cancelled", 0))


def _read(database: sqlite3.Connection, failures: int) -> PastRun:
    facts = dict(database.execute("SELECT key, value FROM run"))
    functions = _by_function(database)
    shown = database.execute(
        "SELECT task, COALESCE(name, ''), words FROM ends LEFT JOIN functions USING (fn) WHERE how = 'failed' "
        "ORDER BY words LIKE ?, task LIMIT ?",
        (_DEPENDENT, failures),
    )
    ended = facts.get("ended")
    if ended is not None:
        state = "ended"
        counts = Counts(*(int(facts[key]) for key in ("done", "failed", "cancelled")))
    else:
        state = _state_of(facts.get("mark"))
        counts = Counts(*map(sum, zip(*((each.done, each.failed, each.cancelled) for each in functions), strict=True)))
    return PastRun(
        state,
        int(facts.get("pid", 0)),
        float(facts["began"]) if "began" in facts else _one(database, "SELECT MIN(time) FROM events"),
        float(ended) if ended is not None else _last_moment(database),
        counts,
        sum(each.work_s for each in functions),
        tuple(functions),
        tuple(Failure(*row) for row in shown),
    )


def _state_of(mark: str | None) -> str:
    """How a run stands that was not closed."""
    if mark is None:  # an earlier version records no end
        return "ended"
    return "died" if leftovers.is_dead(mark) else "ending"


def _by_function(database: sqlite3.Connection) -> list[OfFunction]:
    """A task has at most one attempt that ended well, and is among the ends if it did not."""
    worked = database.execute(
        "SELECT COALESCE(name, ''), fn, SUM(status = ?), SUM(duration_us) FROM tasks LEFT JOIN functions USING (fn) "
        "GROUP BY fn",
        (Status.OK,),
    )
    found = {fn: OfFunction(name, done, 0, 0, us / 1e6) for name, fn, done, us in worked}
    others = database.execute(
        "SELECT COALESCE(name, ''), fn, SUM(how = 'failed'), SUM(how = 'cancelled') FROM ends "
        "LEFT JOIN functions USING (fn) GROUP BY fn"
    )
    for name, fn, failed, cancelled in others:
        known = found.get(fn, OfFunction(name, 0, 0, 0, 0.0))
        found[fn] = known._replace(failed=failed, cancelled=cancelled)
    return sorted(found.values(), key=lambda each: (-each.work_s, each.name))


def _last_moment(database: sqlite3.Connection) -> float | None:
    """When the last thing happened that is recorded."""
    moments = (
        _one(database, "SELECT MAX(started_us + duration_us) / 1e6 FROM tasks"),
        _one(database, "SELECT MAX(time) FROM ends"),
        _one(database, "SELECT MAX(time) FROM events"),
    )
    return max((moment for moment in moments if moment is not None), default=None)


def _one(database: sqlite3.Connection, query: str) -> float | None:
    (value,) = database.execute(query).fetchone()
    return value if value is None else float(value)
