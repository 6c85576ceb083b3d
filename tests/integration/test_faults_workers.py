"""Workers that die: their task runs again elsewhere, up to its crash limit, and nobody else notices."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from pilotflow import WorkerLost
from pilotflow.messages.records import Result, Status
from pilotflow.runtime import link
from tests.integration import fault_tasks as tasks
from tests.integration.faults import (
    PATIENCE,
    parent_of,
    pids_in,
    running,
    status_of,
    times_in,
    took,
    within,
    zygotes_of,
)
from tests.processes import is_alive
from tests.waiting import until

WAYS = ("SIGKILL", "segfault", "exit")
WORDS = {
    "SIGKILL": "was killed by signal 9 (SIGKILL)",
    "segfault": "was killed by signal 11 (SIGSEGV)",
    "exit": "exited with code 3",
}


def test_a_task_whose_worker_dies_runs_again_within_a_second_on_another(tmp_path: Path) -> None:
    with running(tmp_path):
        others = [tasks.square(i) for i in range(500)]
        times = []
        for way in WAYS:
            path = tmp_path / way
            tasks.die_first(way, str(path)).result(60)
            first, second = pids_in(path)
            assert first != second
            before, after = times_in(path)
            times.append(after - before)
        for i in range(3):
            path, go = tmp_path / f"lives-{i}", tmp_path / f"go-{i}"
            future = tasks.linger(str(path), str(go))
            (pid,) = until(lambda path=path: pids_in(path))  # type: ignore[misc]
            killed = time.time()
            os.kill(pid, signal.SIGKILL)
            go.touch()
            started, elsewhere = future.result(60)
            assert elsewhere != pid
            times.append(started - killed)
        took(1.0, "a task runs again after its worker was killed", max(times))
        assert [future.result(60) for future in others] == [i * i for i in range(500)]


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_kills_its_workers_fails_after_five_with_its_history(tmp_path: Path, way: str) -> None:
    with running(tmp_path):
        path = tmp_path / "died"
        future = tasks.die_always(way, str(path))
        others = [tasks.square(i) for i in range(500)]
        with pytest.raises(WorkerLost) as caught:
            future.result(60)
        assert tasks.count(str(path)) == 5
        assert len(caught.value.attempts) == 5
        for number, line in enumerate(caught.value.attempts, 1):
            assert line.startswith(f"attempt {number}: worker on ")
            assert "(block cpu-0)" in line
            assert WORDS[way] in line
            assert line in str(caught.value)
        assert "'die_always' was lost 5 times, which is its crash limit" in str(caught.value)
        assert [other.result(60) for other in others] == [i * i for i in range(500)]


def test_the_last_words_of_the_last_worker_are_below_the_history_with_their_file(tmp_path: Path) -> None:
    with running(tmp_path) as run:
        with pytest.raises(WorkerLost) as caught:
            tasks.abort_with_words("an instance of Foo").result(60)
        stderr = run.directory / "blocks" / "cpu-0" / "stderr"
        assert f"share ({stderr}) ends with:\nterminate called after an instance of Foo\n" in str(caught.value)
        assert all("\n" not in line for line in caught.value.attempts)
        with pytest.raises(WorkerLost) as caught:
            tasks.command_that_kills_its_worker("no-licence").result(60)
        file = re.search(r"The stderr of its commands \((.*)\) ends with:\nno-licence\n", str(caught.value))
        assert file is not None
        assert Path(file[1]).read_text() == "no-licence\n"


@pytest.mark.parametrize("way", WAYS)
def test_a_task_with_crash_limit_1_never_runs_twice(tmp_path: Path, way: str) -> None:
    with running(tmp_path):
        paths = [tmp_path / f"died-{i}" for i in range(4)]
        futures = [tasks.die_once_and_for_all(way, str(path)) for path in paths]
        for future in futures:
            with pytest.raises(WorkerLost) as caught:
                future.result(60)
            assert len(caught.value.attempts) == 1
            assert "was lost once, which is its crash limit" in str(caught.value)
        assert [tasks.count(str(path)) for path in paths] == [1, 1, 1, 1]
        assert tasks.square(3).result(60) == 9


def test_tasks_sent_ahead_to_a_worker_that_dies_are_not_charged(tmp_path: Path) -> None:
    """Short tasks wait in a worker's link; those it had not begun have lost nothing."""
    with running(tmp_path, workers=1, crash_limit=1):
        for future in [tasks.square(i) for i in range(200)]:  # so that tasks are known to be short
            future.result(60)
        path = tmp_path / "died"
        before = [tasks.square(i) for i in range(100)]
        killer = tasks.die_once_and_for_all("SIGKILL", str(path))
        after = [tasks.square(i) for i in range(100)]
        assert [future.result(60) for future in before + after] == [i * i for i in range(100)] * 2
        assert isinstance(killer.exception(60), WorkerLost)


def test_workers_killed_again_and_again_lose_no_task(tmp_path: Path) -> None:
    kill_workers(tmp_path, kills=20)


@pytest.mark.soak
def test_hundreds_of_killed_workers_lose_no_task(tmp_path: Path) -> None:
    kill_workers(tmp_path, kills=400)


def kill_workers(tmp_path: Path, kills: int) -> None:
    with running(tmp_path, crash_limit=1000) as run:
        futures = []
        for number in range(kills):
            futures += [tasks.square(i) for i in range(50)]
            path, go = tmp_path / f"lives-{number}", tmp_path / f"go-{number}"
            futures.append(tasks.echo(number))
            lingering = tasks.linger(str(path), str(go))
            (pid,) = until(lambda path=path: pids_in(path))  # type: ignore[misc]
            os.kill(pid, signal.SIGKILL)
            go.touch()
            assert lingering.result(60)[1] != pid
        expected = [*(i * i for i in range(50))]
        for number in range(kills):
            part = futures[51 * number : 51 * number + 51]
            assert [future.result(60) for future in part] == [*expected, number]
        assert len(zygotes_of(run)) == 1


def test_a_run_whose_workers_would_never_end_by_themselves_is_closed_in_time(tmp_path: Path) -> None:
    """A thread that is no daemon, and a function called at exit that hangs: Python would wait for both."""
    with running(tmp_path) as run:
        path = tmp_path / "pids"
        for future in [tasks.hang_at_exit(str(path), together=2) for _ in range(2)]:
            future.result(60)
        assert tasks.square(3).result(60) == 9
        begun = time.monotonic()
        run.close()
        took(5.0, "a run is closed whose workers hang at exit", time.monotonic() - begun)
        assert not any(map(is_alive, pids_in(path)))


def test_workers_that_would_never_end_by_themselves_go_with_their_block(tmp_path: Path) -> None:
    """The same when an idle block is given back, and nobody ends the run."""
    with running(tmp_path, max_idletime=0.5, min_block_life=0) as run:
        path = tmp_path / "pids"
        tasks.hang_at_exit(str(path)).result(60)
        until(lambda: [info.phase.value for info in run.blocks()] == ["ended"])
        assert not any(map(is_alive, pids_in(path)))


def test_a_manager_whose_zygote_dies_is_replaced_and_its_tasks_run_again(tmp_path: Path) -> None:
    with running(tmp_path, max_blocks=2) as run:
        path, go = tmp_path / "lives", tmp_path / "go"
        future = tasks.linger(str(path), str(go))
        until(lambda: pids_in(path))
        (zygote,) = zygotes_of(run)
        killed = time.time()
        os.kill(zygote, signal.SIGKILL)
        go.touch()
        started, _ = future.result(5 * PATIENCE + 1)
        took(5.0, "a task runs again after its manager's zygote was killed", started - killed)
        assert tasks.square(3).result(60) == 9


def test_a_manager_whose_zygote_stands_still_ends_with_words_and_its_tasks_run_elsewhere(tmp_path: Path) -> None:
    with running(tmp_path, heartbeat_limit=2, init_blocks=2, max_blocks=2, workers=1) as run:
        until(lambda: len(zygotes_of(run)) == 2 and len(status_of(run).blocks) == 2)
        path, go = tmp_path / "lives", tmp_path / "go"
        future = tasks.linger(str(path), str(go))
        (pid,) = until(lambda: pids_in(path))
        zygote = parent_of(pid)
        stopped = time.monotonic()
        os.kill(zygote, signal.SIGSTOP)
        within(4.0, "a task whose manager's zygote is frozen runs elsewhere (heartbeat limit 2 s)",
               lambda: len(pids_in(path)) == 2, stopped)  # fmt: skip
        go.touch()
        assert future.result(60)[1] == pids_in(path)[1] != pid
        until(lambda: not is_alive(zygote) and not is_alive(pid))  # it could not bury anybody, nor can it wake up
        words = f"its zygote (pid {zygote}) has answered nothing for "
        assert any(words in file.read_text() for file in (run.directory / "blocks").glob("*/stderr"))
        assert [tasks.square(i).result(60) for i in range(50)] == [i * i for i in range(50)]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff\xff",
        link.encode(link.SetupRaised()),
        link.encode(link.TaskDone(Result(1, 1, Status.OK, b"", (1, 0)))),
    ],
    ids=["no message", "a failed setup without its exception", "a result without its payload"],
)
def test_a_worker_that_sends_rubbish_is_ended_and_nothing_else(tmp_path: Path, rubbish: bytes) -> None:
    with running(tmp_path):
        before = [tasks.square(i) for i in range(100)]
        with pytest.raises(WorkerLost):
            tasks.write_into_links(rubbish).result(60)
        assert [future.result(60) for future in before] == [i * i for i in range(100)]
        assert tasks.square(5).result(60) == 25
