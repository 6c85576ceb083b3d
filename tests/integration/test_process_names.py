"""What an administrator sees of a run in `top`, `ps` and `pstree`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

import pilotflow
from pilotflow import Config, ExecutorConfig, bash_app, python_app
from tests.waiting import until


@bash_app
def name_of_my_parent() -> str:
    return 'test "$(cat /proc/$PPID/comm)" = pf-worker'


@python_app
def write_pid_and_wait_for(path: Path, gate: Path) -> None:
    path.with_suffix(".new").write_text(str(os.getpid()))
    path.with_suffix(".new").rename(path)
    while not gate.exists():
        time.sleep(0.01)


def test_processes_of_a_run_are_named_after_what_they_are(tmp_path: Path) -> None:
    with pilotflow.load(Config(run_dir=tmp_path, executors=[ExecutorConfig(max_workers_per_node=1)])):
        assert name_of_my_parent().result(60) == 0
        names = {process.name() for process in psutil.Process().children(recursive=True)}
    assert {"pf-interchange", "pf-manager", "pf-zygote", "pf-worker"} <= names, names


def test_a_task_whose_worker_was_stopped_is_said_to_stand_still_and_goes_on(tmp_path: Path) -> None:
    with pilotflow.load(Config(run_dir=tmp_path, executors=[ExecutorConfig(max_workers_per_node=1)])) as run:
        future = write_pid_and_wait_for(tmp_path / "pid", tmp_path / "gate")
        until((tmp_path / "pid").exists, "the task to run")
        pid = int((tmp_path / "pid").read_text())
        assert f"(pid {pid})." in str(run.explain(future))
        os.kill(pid, signal.SIGSTOP)
        until(lambda: "is stopped" in str(run.explain(future)), "the stop to be seen")
        assert f"kill -CONT {pid}" in str(run.explain(future))
        (tmp_path / "gate").touch()
        os.kill(pid, signal.SIGCONT)
        future.result(60)
