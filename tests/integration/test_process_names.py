"""What an administrator sees of a run in `top`, `ps` and `pstree`."""

from __future__ import annotations

from pathlib import Path

import psutil

import pilotflow
from pilotflow import Config, ExecutorConfig, bash_app


@bash_app
def name_of_my_parent() -> str:
    return 'test "$(cat /proc/$PPID/comm)" = pf-worker'


def test_processes_of_a_run_are_named_after_what_they_are(tmp_path: Path) -> None:
    with pilotflow.load(Config(run_dir=tmp_path, executors=[ExecutorConfig(max_workers_per_node=1)])):
        assert name_of_my_parent().result(60) == 0
        names = {process.name() for process in psutil.Process().children(recursive=True)}
    assert {"pf-interchange", "pf-manager", "pf-zygote", "pf-worker"} <= names, names
