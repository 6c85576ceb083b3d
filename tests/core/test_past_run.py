"""What a run's record says of it when it is over: ended, died, or written by an earlier version."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pilotflow.cli.program_summary import FAILURES_SHOWN, print_past_run
from pilotflow.core.pace import Counts
from pilotflow.messages.records import Status
from pilotflow.runtime.past_run import Failure, OfFunction, PastRun, past_run
from pilotflow.runtime.store import Store

MS = 1000


def a_store(directory: Path) -> Store:
    """One with six ended tasks, of which one has been tried twice."""
    store = Store(directory / "run.db", logging.getLogger("test"))
    store.begin("0001-x", os.getpid())
    store.function(1, "square")
    store.function(2, "boom")
    ok, error = (int(status) for status in (Status.OK, Status.ERROR))
    attempts = [(1, 1, 1, error), (1, 1, 2, ok), (2, 1, 1, ok), (3, 2, 1, error), (4, 2, 1, error)]
    store.tasks([(*which, 5, 20 * MS, 7, 8, 9, None, (), ()) for which in attempts])
    store.ends(
        [
            (5, 1, "failed", "DependencyError: 'square' (task 5) did not run", 50.0),
            (4, 2, "failed", "\n".join(f"line {number}" for number in range(20)), 51.0),
            (3, 2, "failed", "ValueError: [no] 3", 52.0),
            (6, 1, "cancelled", "", 53.0),
        ]
    )
    return store


def record(directory: Path, counts: Counts | None) -> PastRun:
    store = a_store(directory)
    if counts is not None:
        store.end(counts)
    store.close(30.0)
    found = past_run(store.path, FAILURES_SHOWN)
    assert found is not None
    return found


def test_a_run_that_was_closed_has_its_own_counts_and_the_first_failures(tmp_path: Path) -> None:
    run = record(tmp_path, Counts(2, 12_000, 1))
    assert (run.state, run.counts) == ("ended", Counts(2, 12_000, 1)), "more failures than are put into words"
    assert run.functions == (OfFunction("square", 2, 1, 1, 0.06), OfFunction("boom", 0, 2, 0, 0.04))
    assert [failure.task for failure in run.failures] == [3, 4, 5], "what needed others comes last"
    assert run.began is not None
    assert run.ended is not None
    assert run.ended >= run.began


def test_a_run_whose_program_is_there_and_has_not_closed_it_is_ending(tmp_path: Path) -> None:
    assert record(tmp_path, None).state == "ending"


@pytest.mark.parametrize("mark", ["0001-x:{place}:999999999:1", None])
def test_what_was_not_closed_is_counted_by_its_rows(tmp_path: Path, mark: str | None) -> None:
    store = a_store(tmp_path)
    store.close(30.0)
    with closing(sqlite3.connect(store.path)) as database:
        (alive,) = database.execute("SELECT value FROM run WHERE key = 'mark'").fetchone()
        database.execute("DELETE FROM run WHERE key = 'mark'")
        if mark is not None:
            dead = mark.format(place=alive.split(":")[1])
            database.execute("INSERT INTO run VALUES ('mark', ?)", (dead,))
        database.commit()
    run = past_run(store.path, 1)
    assert run is not None
    assert (run.state, run.counts, run.ended) == ("ended" if mark is None else "died", Counts(2, 3, 1), 53.0)


def test_what_is_no_record_is_none(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("no database")
    assert past_run(tmp_path / "run.db", 1) is None
    assert past_run(tmp_path / "nowhere.db", 1) is None


def test_people_see_counts_failures_and_where_to_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = tmp_path / "0001"
    (directory / "blocks" / "local-0").mkdir(parents=True)
    (directory / "tasks").mkdir()
    (directory / "pilotflow.log").touch()
    lines = "\n".join(f"line {number}" for number in range(20))
    run = PastRun(
        "ended", 7, 1e9, 1e9 + 61, Counts(20, 7), 0.0206,
        (OfFunction("boom", 20, 7, 0, 0.0206),), (Failure(3, "boom", "ValueError: [no] 3"), Failure(4, "boom", lines)),
    )  # fmt: skip
    print_past_run(directory, "0001-x", run, as_json=False)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Run 0001 has ended: 20 done, 7 failed."
    assert said[1].endswith(" and took 1m 1s; its tasks worked 20.6ms together.")
    assert said[3].split() == ["function", "done", "failed", "work"]
    assert said[5].split() == ["boom", "20", "7", "20.6ms"]
    assert said[7:] == [
        "boom (task 3):",
        "    ValueError: [no] 3",
        "",
        "boom (task 4):",
        *(f"    {line}" for line in ["line 0", "...", "line 16", "line 17", "line 18", "line 19"]),
        "",
        "... and 5 more failures.",
        "",
        "How one task ended: pilotflow explain 0001 3",
        "",
        f"log             {directory}/pilotflow.log",
        f"logs of blocks  {directory}/blocks",
    ]


def test_programs_get_the_same_and_a_run_without_tasks_has_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = PastRun("died", 7, 1e9, None, Counts(), 0.0, (), ())
    print_past_run(tmp_path, "0001-x", run, as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert (data["state"], data["tasks"]) == ("died", {"done": 0, "failed": 0, "cancelled": 0})
    print_past_run(tmp_path / "0001", "0001-x", run, as_json=False)
    assert capsys.readouterr().out.startswith(
        "Run 0001 has died, its program (pid 7) is gone. On record as ended: no tasks.\nIt began on "
    )
