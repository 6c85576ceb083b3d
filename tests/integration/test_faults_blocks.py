"""Blocks that die as they start: a few tries, and then futures that say what the block itself said."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pilotflow import BlockStartError, Config, ExecutorConfig, LocalProvider, load, python_app
from tests.integration import fault_tasks as tasks
from tests.integration.faults import nothing_left, running, took

START_RETRIES = 3


CANNOT_START = {
    "bad": ("echo 'module load: no such module gcc/99' >&2; exit 1", "module load: no such module gcc/99"),
    "failing": ("false", "worker_init of block failing-2 failed with exit code 1"),
    "wrong": ("export PYTHONHOME=/nowhere", "ModuleNotFoundError: No module named 'encodings'"),
    "missing": ("export PYTHONPATH={shim}", "ModuleNotFoundError: No module named 'msgspec'"),
    "none": ('env() {{ command env python3.1 "$@"; }}', "python3.1"),
}
"""Executors, what their blocks begin with, and what is said of that."""


def test_futures_fail_with_the_stderr_of_a_block_that_cannot_start(tmp_path: Path) -> None:
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "msgspec.py").write_text("raise ModuleNotFoundError(\"No module named 'msgspec'\", name='msgspec')\n")
    executors = [
        ExecutorConfig(label=label, provider=LocalProvider(worker_init=begin.format(shim=shim), max_blocks=3))
        for label, (begin, _) in CANNOT_START.items()
    ]
    with load(Config(executors=executors, run_dir=tmp_path / "runs")) as run:
        begun = time.monotonic()
        futures = {label: [python_app(executors=[label])(abs)(-i) for i in range(20)] for label in CANNOT_START}
        dependent = tasks.echo(futures["bad"])
        anywhere = [tasks.square(i) for i in range(20)]
        for label, (_, words) in CANNOT_START.items():
            for future in futures[label]:
                with pytest.raises(BlockStartError) as caught:
                    future.result(100)
                assert words in str(caught.value)
                assert f"{START_RETRIES} blocks in a row of executor '{label}'" in str(caught.value)
                assert str(run.directory) in str(caught.value)
        for future in anywhere:
            with pytest.raises(BlockStartError):
                future.result(60)
        took(10.0, "futures fail when no block can start", time.monotonic() - begun)
        assert isinstance(dependent.exception(60), Exception)
        late = tasks.square(3)  # after all executors were given up
        with pytest.raises(BlockStartError):
            late.result(60)
        scripts = sorted(path.stem for path in (run.directory / "scripts").glob("*.sh"))
        assert scripts == sorted(f"{label}-{number}" for label in CANNOT_START for number in range(START_RETRIES))
    nothing_left(run)


def test_work_for_other_executors_goes_on_when_one_is_given_up(tmp_path: Path) -> None:
    executors = [
        ExecutorConfig(
            label="bad", max_workers_per_node=1, provider=LocalProvider(worker_init="echo oh no >&2; exit 5")
        ),
        ExecutorConfig(label="good", max_workers_per_node=1),
    ]
    with load(Config(executors=executors, run_dir=tmp_path / "runs")) as run:
        bound = python_app(executors=["bad"])(abs)
        good = python_app(executors=["good"])(abs)
        with pytest.raises(BlockStartError, match="oh no"):
            bound(-1).result(60)
        assert good(-2).result(60) == 2
        assert tasks.square(3).result(60) == 9
        with pytest.raises(BlockStartError, match="oh no"):
            bound(-1).result(60)
    nothing_left(run)


def test_a_block_that_stands_still_before_its_manager_has_joined_is_replaced(tmp_path: Path) -> None:
    freeze_once = f"if mkdir {tmp_path}/frozen 2>/dev/null; then kill -STOP $$; fi"
    executor = ExecutorConfig(max_workers_per_node=1, provider=LocalProvider(worker_init=freeze_once, max_blocks=1))
    with load(Config(executors=[executor], run_dir=tmp_path / "runs", start_limit="3s")) as run:
        assert tasks.square(3).result(100) == 9
        first, *others = run.blocks()
        assert (first.phase.value, len(others)) == ("ended", 1)
        assert "had no manager 3 s after it had started (start_limit)" in first.reason
    nothing_left(run)


def test_a_manager_that_cannot_have_its_files_says_need_limit_and_remedy(tmp_path: Path) -> None:
    with running(tmp_path, worker_init="ulimit -n 64") as run:
        with pytest.raises(BlockStartError) as caught:
            tasks.square(1).result(100)
        text = str(caught.value)
        assert "Too few open files: a manager with 2 workers needs" in text
        assert "the hard limit here is 64" in text
        assert "ulimit -Hn" in text
        assert len(list((run.directory / "scripts").glob("*.sh"))) == START_RETRIES


def test_a_block_that_works_at_the_second_try_costs_its_tasks_nothing(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with running(tmp_path, worker_init=f"[ -e {flag} ] || {{ touch {flag}; exit 1; }}", crash_limit=1) as run:
        assert tasks.square(3).result(60) == 9
        assert [os.path.basename(path) for path in sorted((run.directory / "scripts").glob("*.sh"))] == [
            "cpu-0.sh",
            "cpu-1.sh",
        ]
