"""What users of pilot jobs run into first: for each, the program's own message gives the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow.core.block_records import BlockInfo, Phase
from pilotflow.display import waited_for
from pilotflow.errors import RequestTooLarge
from tests.integration.scripts import run_script


@pytest.fixture
def run(tmp_path: Path) -> Iterator[pf.Run]:
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path / "runs")) as run:
        yield run


def message_of(future: Any, error: type[BaseException]) -> str:
    with pytest.raises(error) as caught:
        future.result(60)
    return str(caught.value)


@pf.python_app
def build(name: str) -> str:
    import sys

    print("no such data set:", name, file=sys.stderr)
    raise FileNotFoundError(name)


@pf.python_app
def sample(target: str) -> str:
    return target


@pf.python_app
def open_many() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))
    try:
        kept = [open("/dev/null") for _ in range(60)]  # noqa: SIM115  to have too many
        kept.clear()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def test_jobs_fail_with_a_dependency_failure(run: pf.Run, tmp_path: Path) -> None:
    """The remedy was to look for the log of the build first; the error shows it."""
    errors = tmp_path / "build" / "tgt_abc123.err"
    built = build.options(stderr=str(errors))("tgt_abc123")
    text = message_of(sample(built), pf.DependencyError)
    assert "'build' (task 1)" in text
    assert str(errors) in text
    assert "no such data set: tgt_abc123" in text


def test_too_many_open_files_in_a_task(run: pf.Run) -> None:
    text = message_of(open_many(), OSError)
    assert "Too many open files" in text
    assert "`ulimit -n` in worker_init" in text
    assert "max_threads" in text


def test_too_many_open_files_for_the_run_itself(tmp_path: Path) -> None:
    done = run_script(
        tmp_path,
        """
        import resource
        import pilotflow as pf
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        pf.load()
        """,
        check=False,
    )
    assert re.search(r"Too few open files: the interchange needs \d+, the hard limit here is 64\.", done.stderr)
    assert "Raise it (ulimit -Hn" in done.stderr
    assert "use fewer workers a node" in done.stderr


def test_jobs_never_start(tmp_path: Path) -> None:
    """The live line says what is awaited, with the batch system's own reason; explain says it at length."""
    blocks = [BlockInfo(f"gpu-{n}", "gpu", str(n), Phase.PENDING, "", said="Priority") for n in range(2)]
    assert waited_for(blocks) == "no workers yet, 2 blocks pending (Priority)"
    provider = pf.LocalProvider(worker_init="while [ ! -e go ]; do sleep 0.05; done", max_blocks=1)
    config = pf.Config(executors=[pf.ExecutorConfig(provider=provider)], run_dir=tmp_path / "runs")
    with pf.load(config) as run:
        future = sample("x")
        text = str(run.explain(future))
        assert "block local-0" in text.lower()
        run.close(wait=False)


def test_jobs_fail_immediately(tmp_path: Path) -> None:
    provider = pf.LocalProvider(worker_init="module load pyhton/3.11; exit 1")
    with pf.load(pf.Config(executors=[pf.ExecutorConfig(provider=provider)], run_dir=tmp_path / "runs")) as run:
        text = message_of(sample("x"), pf.BlockStartError)
    assert "module: command not found" in text, "what the block's own stderr says"
    assert f"{run.directory}/blocks/" in text
    assert "Check worker_init" in text


def test_a_module_is_not_found_in_jobs(run: pf.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that the program found after its start: workers look where the program looked when it loaded."""
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "late_module.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "late"))

    @pf.python_app
    def use() -> int:
        import late_module  # type: ignore[import-not-found]

        return int(late_module.value)

    text = message_of(use(), ModuleNotFoundError)
    assert "No module named 'late_module'" in text
    assert "set worker_init of its executor's provider" in text


def test_jobs_need_gpus(run: pf.Run) -> None:
    text = message_of(sample.options(num_gpus=1)("x"), RequestTooLarge)
    assert "It asks for 1 GPU a node; the largest node has 0 (executor 'local')." in text
    assert "set gpus_per_node or gres of a Slurm provider" in text


def test_jobs_need_more_memory(run: pf.Run) -> None:
    @pf.python_app(memory="100m")
    def large() -> int:
        import time

        data = bytearray(300 << 20)
        data[::4096] = b"x" * (len(data) // 4096)
        time.sleep(60)
        return len(data)

    text = message_of(large(), pf.MemoryLimitExceeded)
    assert re.search(r"used \d+.* MiB on .* and was ended: it asked for 100 MiB\. Ask for more memory", text)
