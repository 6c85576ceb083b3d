"""The interchange dies or freezes: every pending future fails soon and says so, and life goes on."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest

from pilotflow import InterchangeLost, PilotExecutor, load
from pilotflow.runtime.client import Client
from tests.integration import fault_tasks as tasks
from tests.integration.faults import (
    config,
    interchange_of,
    managers_of,
    nothing_left,
    pids_in,
    processes_of,
    running,
    status_of,
    took,
)
from tests.processes import is_alive
from tests.waiting import until


def test_one_that_is_killed_before_anybody_has_spoken_to_it_is_told_by_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect_to_killed(connection: Any, pid: int, *others: Any) -> Client:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), "the end of the interchange")
        return Client(connection, pid, *others)

    with monkeypatch.context() as patch:
        patch.setattr("pilotflow.run.Client", connect_to_killed)
        with pytest.raises(InterchangeLost, match="ended with exit code -9"):
            load(config(tmp_path))
    with load(config(tmp_path)):
        assert tasks.square(3).result(60) == 9


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_all_pending_futures_fail_and_another_run_can_be_loaded(tmp_path: Path, how: str) -> None:
    """Killed, its end is seen at once; frozen, it is given up after the heartbeat limit of 2 s."""
    with running(tmp_path, heartbeat_limit=2, init_blocks=2, max_blocks=2) as run:
        assert tasks.square(2).result(60) == 4
        path, never = tmp_path / "lives", str(tmp_path / "never")
        pending = [tasks.linger(str(path), never) for _ in range(2)]
        until(lambda: len(pids_in(path)) == 2)
        pending += [tasks.linger(str(path), never) for _ in range(2)]
        dependents = [tasks.echo(future) for future in pending]
        queued = [tasks.square(i) for i in range(1000)] if how == "SIGKILL" else []
        interchange = interchange_of(run)
        struck = time.monotonic()
        os.kill(interchange, signal.Signals[how])
        errors = [future.exception(110) for future in [*pending, *dependents]]
        assert {type(error) for error in errors} == {InterchangeLost}
        took(10.0, f"all futures fail after {how} to the interchange", time.monotonic() - struck)
        for future in queued:  # some of them may have been done
            assert isinstance(future.exception(60), (InterchangeLost, type(None)))
        text = str(errors[0])
        assert str(run.directory / "pilotflow.log") in text
        assert "a new run can be loaded" in text
        why = ("its process has ended", "it has hung up") if how == "SIGKILL" else ("it has not answered for ",)
        assert any(words in text for words in why)
        with pytest.raises(InterchangeLost, match="interchange is lost"):
            tasks.square(3)

        run.client.call(lambda: None)  # as the block keeper and the end of an app do, which may come later
        assert run.wait(60), "nobody waits for a loop that has ended"
        assert run.cancel_all() == 0
        run.client.cancel_all_unstarted()

        with load(config(tmp_path)) as second:
            assert tasks.square(3).result(60) == 9
            # The first run has not been closed, but what it had is gone all the same.
            nothing_left(run)
        nothing_left(second)
        assert len(list((run.directory / "scripts").iterdir())) == 2


def test_a_pool_whose_interchange_dies_is_broken_as_the_standard_library_has_it(tmp_path: Path) -> None:
    with PilotExecutor(config=config(tmp_path)) as pool:
        future = pool.submit(time.sleep, 600)
        until(lambda: managers_of(pool.run) and status_of(pool.run).blocks)
        os.kill(interchange_of(pool.run), signal.SIGKILL)
        with pytest.raises(BrokenExecutor):
            future.result(60)
        with pytest.raises(BrokenExecutor):
            pool.submit(time.sleep, 1)
    nothing_left(pool.run)


def test_an_interchange_that_was_stopped_for_a_while_loses_nothing(tmp_path: Path) -> None:
    """Managers were silent only because it did not listen; it hears them before it judges them."""
    with running(tmp_path, heartbeat_limit=3) as run:
        assert tasks.square(2).result(60) == 4
        futures = [tasks.square(i) for i in range(20_000)]
        interchange = interchange_of(run)
        os.kill(interchange, signal.SIGSTOP)
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 2)
        os.kill(interchange, signal.SIGCONT)
        assert [future.result(60) for future in futures] == [i * i for i in range(20_000)]
        assert len(run.blocks()) == 1


def test_the_end_of_a_run_whose_interchange_is_frozen_takes_seconds(tmp_path: Path) -> None:
    run = load(config(tmp_path))
    assert tasks.square(2).result(60) == 4
    os.kill(interchange_of(run), signal.SIGSTOP)
    begun = time.monotonic()
    run.close(wait=False)
    took(5.0, "a run whose interchange is frozen is closed", time.monotonic() - begun)
    nothing_left(run)
    assert not processes_of(run.directory, run.run_id)


def test_tasks_of_a_run_whose_interchange_froze_while_there_was_nothing_to_do_fail(tmp_path: Path) -> None:
    """An idle run's program asks seldom whether the interchange is there; with something pending, as often as ever."""
    with running(tmp_path, heartbeat_limit=3) as run:
        assert tasks.square(2).result(60) == 4
        idle = time.monotonic()
        until(lambda: time.monotonic() - idle > 4)  # it rests
        os.kill(interchange_of(run), signal.SIGSTOP)
        begun = time.monotonic()
        error = tasks.square(3).exception(60)
        took(7.0, "a task fails whose interchange froze while idle", time.monotonic() - begun)
        assert isinstance(error, InterchangeLost)
        assert "it has not answered for " in str(error)
    nothing_left(run)
