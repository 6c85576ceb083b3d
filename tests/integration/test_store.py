"""The run store: what has happened is in the file while the run goes on."""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow.errors import ConfigError
from pilotflow.runtime.store import FLUSH_PERIOD_S, Store, open_store
from tests.waiting import until


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def test_a_task_is_in_the_store_soon_after_its_end_while_the_run_goes_on(tmp_path: Path) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)) as run:
        future = pf.python_app(len)("four")
        assert future.result() == 4
        found = until(lambda: rows(run.directory / "run.db", "SELECT task, status FROM tasks"))
        assert found == [(future.task_id, 0)]


def test_what_cannot_be_recorded_does_not_end_the_record(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.db", logging.getLogger("test"))
    with closing(sqlite3.connect(store.path, timeout=30.0)) as database:
        database.execute("ALTER TABLE events RENAME TO others")
        database.commit()
    store.event("kind", "subject", "detail")
    until(lambda: not store.recording)
    store.label(2, "text")
    until(lambda: rows(store.path, "SELECT * FROM labels") == [(2, "text")])
    store.close(30.0)


def test_a_bug_in_what_is_recorded_is_in_the_log_with_its_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path / "run.db", logging.getLogger("test"))
    store.label(1 << 70, "no number of a task")
    until(lambda: not store.recording)
    store.close(30.0)
    bug = next(record for record in caplog.records if "because of a bug" in record.getMessage())
    assert bug.exc_info is not None
    assert bug.exc_info[0] is OverflowError


def test_texts_with_what_is_no_character_are_recorded_with_all_others(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.db", logging.getLogger("test"))
    store.label(1, "é \udcff")
    store.event("kind", "\udcff", "detail")
    store.tasks([(1, 1, 1, 0, 5, 6, 7, 8, 9, None, (), ())])
    store.close(30.0)
    assert store.recording
    assert rows(store.path, "SELECT label FROM labels") == [("é \\udcff",)]
    assert rows(store.path, "SELECT task FROM tasks") == [(1,)]


def test_a_path_that_is_too_long_for_sqlite_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d" * 200] * 3)
    deep.mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=r"at most 504 bytes, and this one has 6\d\d: .* shorter path, or load"
    ) as caught:
        open_store(deep / "run.db", logging.getLogger("test"))
    assert "Free space" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 7, 8, 63, 1100])
def test_every_row_of_a_batch_is_recorded_once(tmp_path: Path, count: int) -> None:
    store = Store(tmp_path / "run.db", logging.getLogger("test"))
    store.tasks([(i, 1, 1, 0, 5, 6, 7, 8, 9, None, (i, 1), ()) for i in range(count)])
    store.close(30.0)
    assert rows(store.path, "SELECT task, cores, gpus FROM tasks ORDER BY task") == [
        (i, f"[{i},1]", "[]") for i in range(count)
    ]


def test_a_store_that_has_just_written_closes_at_once(tmp_path: Path) -> None:
    """The pause in which rows come together is for a run that goes on; nobody may wait for it at the end."""
    took_s = float("inf")
    for number in range(20):  # of which one is enough, on a machine that may be busy
        store = Store(tmp_path / f"{number}.db", logging.getLogger("test"))
        store.label(1, "text")
        until(lambda path=store.path: rows(path, "SELECT * FROM labels"))  # type: ignore[misc]
        began = time.monotonic()
        store.close(30.0)
        took_s = time.monotonic() - began
        if took_s < FLUSH_PERIOD_S / 4:
            return
    pytest.fail(f"the last one took {took_s:.2f} s")
