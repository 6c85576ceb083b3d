"""Managers that die, freeze or are of another kind: their tasks run elsewhere, and results come once."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from pilotflow.ids import VERSION
from pilotflow.runtime.manager_options import Offer, manager_argv
from tests.integration import fault_tasks as tasks
from tests.integration.faults import PATIENCE, ROOT, frozen, managers_of, pids_in, running, status_of, took, within
from tests.processes import is_alive
from tests.waiting import logged, until


def test_tasks_of_a_killed_manager_run_again_on_the_block_that_replaces_it(tmp_path: Path) -> None:
    with running(tmp_path) as run:  # max_blocks=1: the dead block must be seen to be dead first
        path, go = tmp_path / "lives", tmp_path / "go"
        futures = [tasks.linger(str(path), str(go)) for _ in range(2)]
        until(lambda: len(pids_in(path)) == 2)
        others = [tasks.square(i) for i in range(500)]
        first = set(pids_in(path))
        (manager,) = managers_of(run)
        killed = time.time()
        os.kill(manager, signal.SIGKILL)
        go.touch()
        for future in futures:
            started, pid = future.result(5 * PATIENCE + 1)
            assert pid not in first
            took(5.0, "a task runs again after its manager was killed", started - killed)
        assert [future.result(60) for future in others] == [i * i for i in range(500)]
        assert [info.block for info in run.blocks()] == ["cpu-0", "cpu-1"]
        assert not any(map(is_alive, first))


def test_managers_killed_again_and_again_lose_no_task(tmp_path: Path) -> None:
    kill_managers(tmp_path, kills=4)


@pytest.mark.soak
def test_a_hundred_killed_managers_lose_no_task(tmp_path: Path) -> None:
    for number in range(10):
        kill_managers(tmp_path / str(number), kills=10)


def kill_managers(tmp_path: Path, kills: int) -> None:
    # A block for each, because an executor whose blocks die young gets new ones later and later.
    tmp_path.mkdir(exist_ok=True)
    with running(tmp_path, crash_limit=1000, init_blocks=kills + 1, max_blocks=kills + 1) as run:
        # Only those that have joined: blocks that die before that make the executor be given up.
        until(lambda: len(status_of(run).blocks) == kills + 1, timeout_s=120)
        futures: list[Future[int]] = []
        for victim in managers_of(run)[:kills]:
            futures += [tasks.square(i) for i in range(300)]
            os.kill(victim, signal.SIGKILL)
        assert [future.result(240) for future in futures] == [i * i for i in range(300)] * kills


def test_a_frozen_manager_is_given_up_and_its_late_results_are_dropped(tmp_path: Path) -> None:
    with running(tmp_path, heartbeat_limit=2, init_blocks=2, max_blocks=2, workers=1) as run:
        until(lambda: len(managers_of(run)) == 2 and len(status_of(run).blocks) == 2)
        path, go = tmp_path / "lives", tmp_path / "go"
        future = tasks.linger(str(path), str(go))
        delivered: list[Future[Any]] = []
        future.add_done_callback(delivered.append)
        (pid,) = until(lambda: pids_in(path))
        manager = _manager_over(run, pid)
        stopped = time.monotonic()
        with frozen(manager):
            within(4.0, "a task of a frozen manager runs elsewhere (heartbeat limit 2 s)",
                   lambda: len(pids_in(path)) == 2, stopped)  # fmt: skip
            Path(f"{go}.1").touch()  # the first attempt ends while its manager is frozen
            until(lambda: status_of(run).blocks)
        # The manager lives again and reports what it has: an attempt that nobody waits for.
        log = run.directory / "pilotflow.log"
        until(lambda: log.read_text().count("joined executor cpu") >= 3 or not is_alive(manager))
        assert tasks.square(3).result(60) == 9
        assert not future.done()
        Path(f"{go}.2").touch()
        assert future.result(60)[1] == pids_in(path)[1] != pid
        logged(run.directory, "not heard of for ")
        assert [tasks.square(i).result(60) for i in range(50)] == [i * i for i in range(50)]
        until(lambda: delivered)  # who waits for a future goes on before its callbacks are called
        assert delivered == [future]


def test_a_manager_that_freezes_while_it_has_nothing_is_given_up_and_comes_back_when_it_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, heartbeat_limit=2, init_blocks=2, max_blocks=2, workers=1) as run:
        until(lambda: len(managers_of(run)) == 2 and len(status_of(run).blocks) == 2)
        assert [tasks.square(i).result(60) for i in range(20)] == [i * i for i in range(20)]
        log = run.directory / "pilotflow.log"
        one, other = managers_of(run)
        stopped = time.monotonic()
        with frozen(one):
            within(4.0, "a manager that freezes while it has nothing is given up (heartbeat limit 2 s)",
                   lambda: "not heard of for " in log.read_text(), stopped)  # fmt: skip
            assert [tasks.square(i).result(60) for i in range(20)] == [i * i for i in range(20)]
        until(lambda: log.read_text().count("joined executor cpu") >= 3 or not is_alive(one))
        os.kill(other, signal.SIGKILL)
        assert [tasks.square(i).result(60) for i in range(20)] == [i * i for i in range(20)]


def test_a_manager_that_freezes_after_a_rest_loses_what_it_is_then_given(tmp_path: Path) -> None:
    with running(tmp_path, heartbeat_limit=2, init_blocks=1, max_blocks=2, workers=1) as run:
        assert tasks.square(3).result(60) == 9
        (manager,) = managers_of(run)
        time.sleep(3.0)  # it rests, and says nothing
        assert "not heard of" not in (run.directory / "pilotflow.log").read_text()
        stopped = time.monotonic()
        with frozen(manager):
            future = tasks.square(4)
            assert within(8.0, "a task given to a manager that had just frozen runs elsewhere (heartbeat limit 2 s)",
                          lambda: future.done() and future.result(), stopped) == 16  # fmt: skip


@pytest.mark.soak  # it takes 40 s, and looks at one rule
def test_a_manager_that_was_stopped_while_it_had_nothing_does_not_take_that_time_for_walltime(tmp_path: Path) -> None:
    with running(tmp_path, heartbeat_limit=9, init_blocks=1, max_blocks=1, workers=1, walltime=40) as run:
        assert tasks.square(3).result(60) == 9
        (manager,) = managers_of(run)
        ends_at = time.monotonic() + psutil.Process(manager).create_time() + 36.0 - time.time()  # a tenth is kept
        beat_at = (ends_at - 6.3) // 3.0 * 3.0 + 3.0
        time.sleep(beat_at + 0.2 - time.monotonic())
        with frozen(manager):  # for so long that it notices, and is not given up
            time.sleep(beat_at + 6.4 - time.monotonic())
        assert time.monotonic() > ends_at
        time.sleep(0.3)
        (log,) = run.directory.rglob("manager-*.log")
        assert "walltime is over" not in log.read_text()


class Cable:
    """A TCP port in front of another one of this host; what goes through can be held up, with nobody told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._whole = threading.Event()
        self._whole.set()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through from now on."""
        self._whole.clear()

    def close(self) -> None:
        """Hang up on both sides."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._whole.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [ours, theirs]
                for source, target in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                target.sendall(data)


def test_a_manager_that_is_cut_off_is_given_up_and_ends_by_itself(tmp_path: Path) -> None:
    with running(tmp_path, heartbeat_limit=2, init_blocks=0, max_blocks=1, workers=1, tcp=True) as run:
        connection = (run.directory / "connection.json").read_text()
        found = re.search(r"tcp://127\.0\.0\.1:(\d+)", connection)
        assert found is not None
        port = int(found[1])
        cable = Cable(port)
        own = run.directory / "cut.json"
        own.touch(0o600)
        own.write_text(connection.replace(f":{port}", f":{cable.port}"))
        argv = [sys.executable, "-m", "pilotflow.runtime.manager", str(own)]
        argv += ["--executor", "cpu", "--block", "by-hand", "--directory", str(tmp_path), "--workers", "1"]
        with contextlib.closing(cable), subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as manager:
            until(lambda: status_of(run).blocks)
            path, go = tmp_path / "lives", tmp_path / "go"
            future = tasks.linger(str(path), str(go))
            delivered: list[Future[Any]] = []
            future.add_done_callback(delivered.append)
            (first,) = until(lambda: pids_in(path))
            cable.cut()
            since = time.monotonic()
            Path(f"{go}.1").touch()  # the first attempt may end, but nobody hears of it
            within(6.0, "a task of a manager that was cut off runs elsewhere (heartbeat limit 2 s, and a new block)",
                   lambda: len(pids_in(path)) == 2, since)  # fmt: skip
            _, said = manager.communicate(timeout=60)
            assert manager.returncode == 1
            assert "answered no heartbeat for" in said
            Path(f"{go}.2").touch()
            assert future.result(60)[1] == pids_in(path)[1] != first
            until(lambda: delivered)
            assert delivered == [future]
        until(lambda: "not heard of for" in (run.directory / "pilotflow.log").read_text())


def _manager_over(run: Any, worker: int) -> int:
    from tests.integration.faults import parent_of

    manager = parent_of(parent_of(worker))
    assert manager in managers_of(run)
    return manager


def test_a_manager_frozen_for_less_than_the_heartbeat_limit_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, heartbeat_limit=30) as run:
        assert tasks.square(2).result(60) == 4
        (manager,) = managers_of(run)
        futures = [tasks.square(i) for i in range(20_000)]
        for _ in range(3):
            with frozen(manager):
                time.sleep(0.3)  # how long it stays stopped, not a time that anything needs
        assert [future.result(60) for future in futures] == [i * i for i in range(20_000)]
        assert len(run.blocks()) == 1


def test_a_worker_that_reads_nothing_for_long_does_not_stall_its_manager(tmp_path: Path) -> None:
    """Tasks known to be short are sent ahead; their arguments may be more than fits into the link."""
    with running(tmp_path, workers=1, heartbeat_limit=2) as run:
        value = bytes(30_000)
        assert [f.result(60) for f in [tasks.sized(value) for _ in range(300)]] == [30_000] * 300
        go = tmp_path / "go"
        futures = [tasks.sized(value, str(go))] + [tasks.sized(value) for _ in range(300)]
        begun = time.monotonic()
        until(lambda: time.monotonic() - begun > 5.0)  # twice the heartbeat limit and more
        go.touch()
        assert [f.result(60) for f in futures] == [30_000] * 301
        assert "left" not in (run.directory / "pilotflow.log").read_text()


@pytest.mark.parametrize(
    ("patch", "theirs", "ours"),
    [
        ("import pilotflow.ids; pilotflow.ids.VERSION = '9.8.7'", "pilotflow 9.8.7", VERSION),
        ("import platform; platform.python_version = lambda: '3.99.1'", "Python 3.99.1", sys.version.split()[0]),
    ],
    ids=["pilotflow", "python"],
)
def test_a_manager_of_another_version_is_refused_with_both_versions(
    tmp_path: Path, patch: str, theirs: str, ours: str
) -> None:
    with running(tmp_path) as run:
        folder = run.directory / "blocks" / "strange"
        folder.mkdir()
        argv = manager_argv(run.directory / "connection.json", "cpu", "strange", folder, Offer(max_workers=1))
        code = f"{patch}; from pilotflow.runtime.manager import main; raise SystemExit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, *argv[3:]],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert theirs in done.stderr
        assert ours in done.stderr
        logged(run.directory, theirs, ours)
        assert [tasks.square(i).result(60) for i in range(10)] == [i * i for i in range(10)]
