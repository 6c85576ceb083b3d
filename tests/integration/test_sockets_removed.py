"""Sockets that somebody removes from a run that goes on: a cleaner of temporary files, or the end of a login session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow import Config, ExecutorConfig, LocalProvider, load, python_app
from pilotflow.runtime import socket_directories
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.control import ask_status
from tests.integration import elastic_tasks as tasks
from tests.waiting import logged, until

nothing = python_app(tasks.nothing)


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where runs have their sockets; its path is short enough for them."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def sockets(connection: Connection) -> list[Path]:
    return [Path(ends[0][5:]) for ends in (connection.client, connection.managers, connection.control)]


@pytest.mark.parametrize("all_gone", [False, True], ids=["their directory", "all of XDG_RUNTIME_DIR"])
def test_a_run_listens_again_for_new_blocks_and_for_other_terminals(tmp_path: Path, base: Path, all_gone: bool) -> None:
    executors = [
        ExecutorConfig(label=one, max_workers_per_node=1, provider=LocalProvider(init_blocks=0)) for one in "ab"
    ]
    with load(Config(executors=executors, run_dir=tmp_path / "runs")) as run:
        file = run.directory / "connection.json"
        assert nothing.options(executors=["a"])().result(60) is None
        before = sockets(read_connection(file))
        shutil.rmtree(base if all_gone else before[0].parent)
        assert nothing.options(executors=["b"])().result(60) is None  # by a block that has to find the run first
        after = sockets(read_connection(file))
        assert (after == before) is not all_gone
        assert ask_status(read_connection(file), 60.0).run_id == run.run_id
        assert all(path.is_socket() and path.parent.stat().st_mode & 0o777 == 0o700 for path in after)
        logged(run.directory, "were removed by somebody; it listens again in")
    assert not after[0].parent.exists()


def test_an_idle_run_listens_again_by_itself(tmp_path: Path, base: Path) -> None:
    with load(
        Config(executors=[ExecutorConfig(provider=LocalProvider(init_blocks=0))], run_dir=tmp_path / "runs")
    ) as run:
        connection = read_connection(run.directory / "connection.json")
        paths = sockets(connection)
        shutil.rmtree(paths[0].parent)
        until(lambda: all(path.is_socket() for path in paths))
        assert ask_status(connection, 60.0).run_id == run.run_id


def test_a_directory_that_somebody_else_has_made_there_is_not_used(base: Path) -> None:
    ours = socket_directories.make()
    ours.rmdir()
    assert socket_directories.make_again(ours) == ours
    assert socket_directories.make_again(ours) == ours
    ours.chmod(0o755)
    other = socket_directories.make_again(ours)
    assert other != ours
    assert other.parent == base
    ours.rmdir()
    ours.symlink_to(other)
    assert socket_directories.make_again(ours) not in (ours, other)
