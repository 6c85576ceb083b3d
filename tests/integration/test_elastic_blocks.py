"""Real runs that grow by the shape of what waits, and shrink when it is done."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pilotflow import Config, ConfigError, ExecutorConfig, LocalProvider, Run, load, python_app
from pilotflow.core.block_records import Phase
from pilotflow.errors import RequestTooLarge
from tests.integration import elastic_tasks as tasks
from tests.integration.faults import nothing_left
from tests.waiting import until

wait_for = python_app(tasks.wait_for)
nothing = python_app(tasks.nothing)


def config(tmp_path: Path, **more: Any) -> Config:
    """`small` has nodes of one core, `large` of four cores and two GPUs; both may have two blocks."""
    return Config(
        executors=[
            ExecutorConfig(
                label="small",
                max_workers_per_node=1,
                num_gpus=0,
                memory="1g",
                provider=LocalProvider(init_blocks=0, max_blocks=2),
            ),
            ExecutorConfig(
                label="large",
                max_workers_per_node=4,
                num_gpus=2,
                memory="8g",
                resources={"licence": 1},
                provider=LocalProvider(init_blocks=0, max_blocks=2),
            ),
        ],
        run_dir=tmp_path / "runs",
        **more,
    )


def working(run: Run) -> Counter[str]:
    return Counter(info.executor for info in run.blocks() if info.phase is Phase.WORKING)


def ever(run: Run) -> Counter[str]:
    return Counter(info.executor for info in run.blocks())


def test_each_kind_of_task_brings_blocks_that_it_fits_and_no_others(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with load(config(tmp_path)) as run:
        small = wait_for(str(go))
        until(lambda: working(run) == {"small": 1})
        wide = python_app(num_cpus=3)(tasks.wait_for)(str(go))
        until(lambda: working(run) == {"small": 1, "large": 1})
        on_gpus = [python_app(num_gpus=1)(tasks.wait_for)(str(go)) for _ in range(3)]
        until(lambda: working(run) == {"small": 1, "large": 2})
        until(lambda: all(gpu.running() for gpu in on_gpus))  # else one may get the GPU of another that has ended
        go.touch()
        assert small.result(60) == wide.result(60) == ""
        assert {gpu.result(60) for gpu in on_gpus} == {"0", "1"}
        assert ever(run) == {"small": 1, "large": 2}
    nothing_left(run)


def test_idle_blocks_go_and_a_running_task_keeps_its_own(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with load(config(tmp_path, max_idletime=0.5, min_block_life=0)) as run:
        held = python_app(num_cpus=4)(tasks.wait_for)(str(go))
        others = [python_app(executors=("small",))(tasks.wait_for)(str(tmp_path / "at once")) for _ in range(2)]
        until(lambda: working(run) == {"small": 2, "large": 1})
        (tmp_path / "at once").touch()
        for other in others:
            other.result(60)
        until(lambda: working(run) == {"large": 1})
        assert not held.done()
        go.touch()
        held.result(60)
        until(lambda: not working(run))
        nothing().result(60)  # and they come again
    nothing_left(run)


def test_a_block_is_kept_for_its_minimum_life(tmp_path: Path) -> None:
    began = time.monotonic()
    with load(config(tmp_path, max_idletime=0.1, min_block_life=3)) as run:
        nothing().result(60)
        until(lambda: not working(run))
        assert time.monotonic() - began > 3.0
    nothing_left(run)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"num_cpus": 5}, "It asks for 5 cores a node; the largest node has 4 (executor 'large')."),
        ({"memory": "64g"}, "It asks for 64 GiB of memory a node; the largest node has 8 GiB (executor 'large')."),
        ({"num_gpus": 3}, "It asks for 3 GPUs a node; the largest node has 2 (executor 'large')."),
        ({"num_nodes": 2}, "It asks for 2 nodes; the largest block has 1 (executor 'small')."),
        ({"resources": {"dongle": 1}}, "1 of 'dongle' a node; the largest node has none"),
        ({"num_gpus": 1, "executors": ("small",)}, "It asks for 1 GPU a node; the largest node has 0"),
    ],
)
def test_a_task_that_fits_nowhere_fails_at_once_and_no_block_is_started_for_it(
    tmp_path: Path, request_: dict[str, Any], words: str
) -> None:
    with load(config(tmp_path)) as run:
        future = python_app(**request_)(tasks.wait_for)("never")
        with pytest.raises(RequestTooLarge) as caught:
            future.result(30)
        assert isinstance(caught.value, ConfigError)
        assert words in str(caught.value)
        assert "Task 'wait_for' can run nowhere in this run." in str(caught.value)
        assert run.blocks() == []
    nothing_left(run)


def test_what_only_the_node_itself_can_tell_is_asked_of_it(tmp_path: Path) -> None:
    executor = ExecutorConfig(label="cpu", provider=LocalProvider(init_blocks=0))
    with load(Config(executors=[executor], run_dir=tmp_path / "runs")) as run:
        future = python_app(num_cpus=100_000)(tasks.wait_for)("never")
        with pytest.raises(RequestTooLarge, match="It asks for 100000 cores a node; the largest node has"):
            future.result(60)
        assert len(run.blocks()) == 1
    nothing_left(run)
