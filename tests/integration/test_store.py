"""The run store: what has happened is in the file while the run goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pilotflow as pf
from tests.integration.faults import until


def rows(path: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()


def test_a_task_is_in_the_store_soon_after_its_end_while_the_run_goes_on(tmp_path: Path) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)) as run:
        future = pf.python_app(len)("four")
        assert future.result() == 4
        found = until(lambda: rows(run.directory / "run.db", "SELECT task, status FROM tasks"), 30.0)
        assert found == [(future.task_id, 0)]
