"""A task that is ended while it starts programs leaves none of them."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

import pilotflow as pf
from tests.waiting import until

TRIALS = 3
SECONDS = "1234.5"


@pf.python_app
def start_many(path: str) -> None:
    for _ in range(5_000):  # each in a process group of its own, as a workflow's jobs are
        os.posix_spawn("/bin/sleep", ["sleep", SECONDS], os.environ, setpgroup=0)
        Path(path).touch()


def test_a_task_that_is_cancelled_while_it_starts_programs_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> list[int]:
        sleeps = (one for one in psutil.process_iter(["cmdline", "cwd"]) if one.info["cmdline"] == ["sleep", SECONDS])
        return [one.pid for one in sleeps if (one.info["cwd"] or "").startswith(str(tmp_path))]

    node = pf.ExecutorConfig(label="node", max_workers_per_node=1)
    monkeypatch.chdir(tmp_path)  # by which they are known
    with pf.load(pf.Config(run_dir=tmp_path / "runs", executors=[node])):
        for number in range(TRIALS):
            path = tmp_path / f"started-{number}"
            future = start_many(str(path))
            until(path.exists)
            assert until(left)
            assert future.cancel()
        until(lambda: not left(), "none is left")
