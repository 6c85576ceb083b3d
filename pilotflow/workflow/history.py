"""What the store of a workflow's run says, for any process of its host, while it runs and afterwards."""

from __future__ import annotations

import fnmatch
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pilotflow.core.job_states import ENDED, JobState
from pilotflow.errors import ConfigError
from pilotflow.units import did_you_mean
from pilotflow.workflow.holding import is_held
from pilotflow.workflow.ranges import ranges
from pilotflow.workflow.rows import FILE, Life, ResultRow

if TYPE_CHECKING:
    from pilotflow.workflow.records import Workflow

STATES: Final = tuple(state.word for state in JobState)
FAILED_STATES: Final = (JobState.FAILED, JobState.TERMINATED, JobState.CANCELLED, JobState.PENDING_FAILED)
"""What `failed` selects, besides what it says: all that did not end well."""
_TIMEOUT_S: Final = 5.0


class Counts(NamedTuple):
    """How many jobs of a stage, or of the run, are in which state."""

    name: str
    of: dict[JobState, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.of.values())

    @property
    def ended(self) -> int:
        """Those with which nothing happens any more."""
        return sum(count for state, count in self.of.items() if state in ENDED)


class Summary(NamedTuple):
    """A run at a glance.

    Attributes:
        number: how it is called; the name of its directory.
        name: the workflow's.
        state: "new", "running", "succeeded", "failed", "interrupted", "infrastructure" or "died".
        words: more about the state; may be empty.
        counts: of all jobs.
        stages: of each stage, in order.
        began, ended: Unix time; None if it has not.
        worked_s: time that attempts took, together.
        lives: how many programs have had it.
        pid, host: the last of them.
    """

    number: str
    name: str
    state: str
    words: str
    counts: Counts
    stages: tuple[Counts, ...]
    began: float | None
    ended: float | None
    worked_s: float
    lives: int
    pid: int
    host: str


class JobLine(NamedTuple):
    """One job: where it is, and its last attempt."""

    job: int
    name: str
    stage: str
    state: JobState
    attempt: int
    exit_code: int | None
    started_us: int
    duration_us: int
    peak_bytes: int
    words: str


class EventLine(NamedTuple):
    """Something that happened to the run."""

    time: float
    kind: str
    subject: str
    detail: str


class History:
    """An open store, for reading. Use `open_history`."""

    def __init__(self, directory: Path, database: sqlite3.Connection) -> None:
        self.directory = directory
        self.database = database

    def facts(self) -> dict[str, str]:
        """What was recorded of the run as a whole."""
        return dict(self.database.execute("SELECT key, value FROM run"))

    def workflow(self) -> Workflow:
        """What is run."""
        from pilotflow.workflow.store import read_definition  # `status` starts sooner without it

        return read_definition(self.database)

    def states(self) -> list[JobState]:
        """The state of each job, by number."""
        return [JobState(state) for (state,) in self.database.execute("SELECT state FROM jobs ORDER BY job")]

    def summary(self, *, stages: bool = True) -> Summary:
        """The run at a glance; without its stages it is had sooner."""
        database = self.database
        names = dict(database.execute("SELECT stage, name FROM stages"))
        by_stage: dict[int, dict[JobState, int]] = {}
        total: dict[JobState, int] = {}
        query = "SELECT state, stage, COUNT(*) FROM jobs GROUP BY state, stage"
        if not stages:
            query = "SELECT state, 0, COUNT(*) FROM jobs GROUP BY state"
        for state, stage, count in database.execute(query):
            total[JobState(state)] = total.get(JobState(state), 0) + count
            by_stage.setdefault(stage, {})[JobState(state)] = count
        lives = [Life(*row) for row in database.execute("SELECT * FROM lives ORDER BY life")]
        state, words = self._state(lives)
        worked = database.execute("SELECT TOTAL(duration_us) FROM results").fetchone()[0] if stages else 0
        return Summary(
            self.directory.name,
            self.facts().get("name", ""),
            state,
            words,
            Counts("", total),
            tuple(Counts(names[stage], by_stage[stage]) for stage in sorted(by_stage)) if stages else (),
            lives[0].began if lives else None,
            lives[-1].ended if lives and state != "running" else None,
            worked / 1e6,
            len(lives),
            lives[-1].pid if lives else 0,
            lives[-1].host if lives else "",
        )

    def _state(self, lives: Sequence[Life]) -> tuple[str, str]:
        if is_held(self.directory):
            return "running", ""
        if not lives:
            return "new", "it has not been started"
        how = lives[-1].how
        if how is None:
            return "died", "its program is gone"
        word, _, words = how.partition(": ")
        return (word, words) if word in ("succeeded", "failed", "infrastructure") else ("interrupted", how)

    def select(self, selector: str | None) -> list[int]:
        """The jobs that are meant, in order, by their place from 0. People count them from 1.

        Args:
            selector: parts with commas between them, each a number, a range such as `1-10`, a name, a pattern
                such as `work_*`, or a state (`failed` is all that did not end well); None for all jobs.

        Raises:
            ConfigError: a part selects nothing and is no state.
        """
        if selector is None or selector == "all":
            return [number for (number,) in self.database.execute("SELECT job FROM jobs ORDER BY job")]
        found = set[int]()
        for part in filter(None, (part.strip() for part in selector.split(","))):
            found.update(self._select_part(part))
        return sorted(found)

    def _select_part(self, part: str) -> Iterable[int]:
        rows = self.database.execute("SELECT job FROM jobs WHERE name = ?", (part,)).fetchall()
        if rows:
            return [number for (number,) in rows]
        if part.lower() in STATES:
            state = JobState[part.upper()]
            states = FAILED_STATES if state is JobState.FAILED else (state,)
            marks = ", ".join("?" * len(states))
            query = f"SELECT job FROM jobs WHERE state IN ({marks})"  # noqa: S608  question marks
            rows = self.database.execute(query, list(map(int, states))).fetchall()
            return [number for (number,) in rows]
        first, dash, last = part.partition("-")
        if first.isdecimal() and (not dash or last.isdecimal()):
            low, high = int(first), int(last or first)
            count = self.database.execute("SELECT COUNT(*) FROM jobs").fetchone()[0]
            if not 1 <= low <= high <= count:
                raise ConfigError(f"'{part}' selects no job: they are numbered from 1 to {count}.")
            return range(low - 1, high)
        names = self.database.execute("SELECT name, job FROM jobs").fetchall()
        found = [number for name, number in names if fnmatch.fnmatchcase(name, part)]
        if not found:
            hint = did_you_mean(part, [name for name, _ in names[:5000]] + list(STATES))
            raise ConfigError(
                f"'{part}' selects no job{hint}. Give names, patterns such as 'work_*', numbers such as 1-10, or a "
                "state such as failed."
            )
        return found

    def jobs(self, numbers: Sequence[int]) -> Iterator[JobLine]:
        """These jobs, each with its last attempt that has ended."""
        query = (
            "SELECT j.job, j.name, s.name, j.state, j.attempt, r.exit_code, r.started_us, r.duration_us, r.peak_bytes, "
            "r.words FROM jobs j LEFT JOIN stages s USING (stage) LEFT JOIN results r ON r.job = j.job AND r.attempt = "
            "(SELECT MAX(attempt) FROM results WHERE job = j.job) WHERE j.job BETWEEN ? AND ? ORDER BY j.job"
        )
        for low, high in ranges(numbers):
            for row in self.database.execute(query, (low, high)):
                job, name, stage, state, attempt, code, started, duration, peak, words = row
                yield JobLine(
                    job,
                    name,
                    stage,
                    JobState(state),
                    attempt,
                    code,
                    started or 0,
                    duration or 0,
                    peak or 0,
                    words or "",
                )

    def results(self, numbers: Sequence[int]) -> Iterator[ResultRow]:
        """All ended attempts at these jobs."""
        query = f"SELECT {', '.join(ResultRow._fields)} FROM results WHERE job BETWEEN ? AND ? ORDER BY job, attempt"  # noqa: S608
        for low, high in ranges(numbers):
            for row in self.database.execute(query, (low, high)):
                yield ResultRow(*row)

    def names(self, numbers: Sequence[int]) -> dict[int, str]:
        """Names of these jobs."""
        found: dict[int, str] = {}
        for low, high in ranges(numbers):
            found.update(self.database.execute("SELECT job, name FROM jobs WHERE job BETWEEN ? AND ?", (low, high)))
        return found

    def events(self, after: int = 0) -> list[tuple[int, EventLine]]:
        """What happened to the run, with the place of each in the record; those after a place."""
        rows = self.database.execute(
            "SELECT rowid, time, kind, subject, detail FROM events WHERE rowid > ? ORDER BY rowid", (after,)
        )
        return [(row[0], EventLine(*row[1:])) for row in rows]

    def warnings(self) -> list[str]:
        """What people should know of how it ran, each once."""
        rows = self.database.execute(
            "SELECT detail FROM events WHERE kind = 'notice' GROUP BY detail ORDER BY MIN(rowid)"
        )
        return [text for (text,) in rows]


@contextmanager
def open_history(directory: Path) -> Iterator[History]:
    """Open the store of a workflow's run for reading.

    Raises:
        ConfigError: there is none, or it cannot be read.
    """
    path = directory / FILE
    try:
        database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_TIMEOUT_S)
        kind = database.execute("SELECT value FROM run WHERE key = 'kind'").fetchone()
    except sqlite3.Error as error:
        raise ConfigError(f"Cannot read the run store {path}: {error}.") from error
    try:
        if kind is None:
            raise ConfigError(
                f"{directory} is the run of a Python program, not of a workflow. `pilotflow status {directory.name}` says "
                f"how it stands, `pilotflow explain {directory.name} TASK` tells of one task; `pilotflow list` has workflows."
            )
        yield History(directory, database)
    finally:
        database.close()


def why_damaged(directory: Path) -> str:
    """In words, why nobody can tell what a run directory is of; empty if its store can be read."""
    try:
        with open_history(directory):
            return ""
    except ConfigError as error:
        return str(error) if isinstance(error.__cause__, sqlite3.Error) else ""


def refuse_damaged(directory: Path) -> None:
    """Do nothing unless there is a store that has become unreadable.

    Raises:
        ConfigError: so it is.
    """
    try:
        with open_history(directory):
            pass
    except ConfigError as error:
        if type(error.__cause__) is sqlite3.DatabaseError:  # others: there is none, or it is just being made
            raise


def is_workflow(directory: Path) -> bool:
    """Whether this is the run directory of a workflow."""
    try:
        with open_history(directory):
            return True
    except ConfigError:
        return False
