"""What tasks ask for, on a real node: seats are never shared, limits that users wrote are enforced, nothing else is."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import MemoryLimitExceeded, TaskTimeout, WalltimeExceeded
from tests.integration import limit_tasks
from tests.integration.faults import until

GIB = 1 << 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    node = pf.ExecutorConfig(label="node", num_cpus=4, memory="8g", num_gpus=2, runtime_grace=0.5)
    with pf.load(pf.Config(run_dir=tmp_path_factory.mktemp("runs"), executors=[node])) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")


def recorded(run: pf.Run, future: Any, *columns: str) -> tuple[Any, ...]:
    def look() -> Any:
        with closing(sqlite3.connect(f"{(run.directory / 'run.db').as_uri()}?mode=ro", uri=True)) as database:
            query = f"SELECT {', '.join(columns)} FROM tasks WHERE task = ? ORDER BY attempt DESC"
            return database.execute(query, (future.task_id,)).fetchone()

    return until(look, 30.0)


def test_a_task_that_exceeds_its_runtime_may_clean_up_and_fails_with_both_times(tmp_path: Path) -> None:
    path = tmp_path / "cleaned"
    slow = pf.python_app(runtime=0.5)(limit_tasks.sleep_and_clean)
    with pytest.raises(TaskTimeout, match=r"'sleep_and_clean' ran for .* and was ended: its runtime is 500ms\."):
        slow(str(path), 60.0).result(60)
    assert path.read_text() == "cleaned"


def test_a_task_that_does_not_heed_the_warning_is_killed_after_the_grace() -> None:
    with pytest.raises(TaskTimeout, match="'never_end' ran for"):
        pf.python_app(runtime=0.3)(limit_tasks.never_end)().result(60)


def test_a_command_that_exceeds_its_runtime_is_ended_and_only_it() -> None:
    other = pf.python_app(runtime=30)(limit_tasks.use)(2.0)

    @pf.bash_app(runtime=0.3)
    def sleepy() -> str:
        return "sleep 60; sleep 60"

    with pytest.raises(TaskTimeout, match="'sleepy' ran for"):
        sleepy().result(60)
    assert other.result(60)


def test_a_task_without_limits_of_its_own_is_not_limited() -> None:
    assert pf.python_app(limit_tasks.fill)(300 << 20, 2.5).result(60) == 300 << 20


def test_a_task_that_uses_more_memory_than_it_asked_for_is_ended_with_its_peak(run: pf.Run) -> None:
    future = pf.python_app(memory="100m")(limit_tasks.fill)(300 << 20, 60.0)
    with pytest.raises(MemoryLimitExceeded, match="it asked for 100 MiB") as caught:
        future.result(60)
    assert caught.value.requested == 100 << 20
    assert 250 << 20 < caught.value.peak < GIB
    (peak,) = recorded(run, future, "peak_bytes")
    assert peak == caught.value.peak


def test_memory_is_counted_above_what_the_warm_worker_had_already() -> None:
    fill = pf.python_app(memory="200m")(limit_tasks.fill)
    assert [fill(100 << 20, 1.5).result(60) for _ in range(3)] == [100 << 20] * 3


def test_a_worker_that_keeps_a_gigabyte_of_what_its_tasks_used_is_replaced() -> None:
    pid = pf.python_app(limit_tasks.leak)(1100 << 20).result(60)
    use = pf.python_app(limit_tasks.use)
    others = [use(0.2), use(6.0)]  # the first has that worker; the node is looked at while anything runs
    until(lambda: not Path(f"/proc/{pid}").exists() or None, 30.0)
    assert all(other.result(60) for other in others)


def test_what_a_task_used_is_recorded(run: pf.Run) -> None:
    @pf.bash_app(num_cpus=2, num_gpus=1)
    def count() -> str:
        return "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; exit 3"

    future = count()
    with pytest.raises(pf.BashExitError):
        future.result(60)
    cpu_us, exit_code, cores, gpus, duration_us = recorded(
        run, future, "cpu_us", "exit_code", "cores", "gpus", "duration_us"
    )
    assert exit_code == 3
    assert len(cores.split(",")) == 2
    assert len(gpus.split(",")) == 1
    assert 0 < cpu_us < 10 * duration_us


def test_a_task_is_told_its_threads_and_its_gpus() -> None:
    names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
    alone = pf.python_app(limit_tasks.environment)(*names).result(60)
    both = pf.python_app(num_cpus=3, num_gpus=2)(limit_tasks.environment)(*names).result(60)
    assert alone == ["1", "", "PCI_BUS_ID"]
    assert both == ["3", "0,1", "PCI_BUS_ID"]


def test_a_task_knows_how_much_time_it_has_left() -> None:
    future = pf.python_app(runtime=50)(limit_tasks.time_left)()
    id, left, cores = future.result(60)
    assert (id, len(cores)) == (future.task_id, 1)
    assert left is not None
    assert 40 < left <= 50
    assert pf.python_app(limit_tasks.time_left)().result(60)[1] is None
    with pytest.raises(pf.RunClosed, match="No task is running here"):
        pf.current_task()


def overlaps(run: pf.Run, count: int, seed: int) -> None:
    """Mixed tasks on 4 cores, 8 GiB and 2 GPUs: at no moment do those that run hold more."""
    dice = random.Random(seed)
    kinds: list[dict[str, Any]] = [
        {"num_cpus": 1},
        {"num_cpus": 2, "memory": "1g"},
        {"num_cpus": 0.5, "memory": "3g"},
        {"num_cpus": 1, "num_gpus": 1},
        {"num_cpus": 0.5, "num_gpus": 0.5},
        {"num_cpus": 4, "memory": "6g"},
    ]
    apps = [pf.python_app(**kind)(limit_tasks.use) for kind in kinds]
    chosen = [dice.randrange(len(kinds)) for _ in range(count)]
    futures = [apps[number](dice.uniform(0.0, 0.002)) for number in chosen]
    events: list[tuple[int, int, dict[str, Any], str]] = []
    for number, future in zip(chosen, futures, strict=True):
        start, end, gpus, _ = future.result(600)
        events += [(start, 1, kinds[number], gpus), (end, -1, kinds[number], gpus)]
    cpus = memory = 0.0
    used = {"0": 0.0, "1": 0.0}
    for _, sign, kind, gpus in sorted(events, key=lambda event: event[:2]):
        cpus += sign * float(kind["num_cpus"])
        memory += sign * float(str(kind.get("memory", "0g"))[:-1])
        for gpu in filter(None, gpus.split(",")):
            used[gpu] += sign * min(1.0, float(kind.get("num_gpus", 0)))
        assert cpus <= 4.0
        assert memory <= 8.0
        assert max(used.values()) <= 1.0
    assert run.client.wait_idle(60)


def test_mixed_tasks_never_hold_more_than_the_node_has(run: pf.Run) -> None:
    overlaps(run, 600, seed=1)


@pytest.mark.soak
def test_ten_thousand_mixed_tasks_never_hold_more_than_the_node_has(run: pf.Run) -> None:
    overlaps(run, 10_000, seed=2)


def test_a_task_is_warned_before_its_block_ends_and_runs_again_elsewhere(tmp_path: Path) -> None:
    provider = pf.LocalProvider(init_blocks=1, max_blocks=1, walltime="4s")
    config = pf.Config(run_dir=tmp_path, executors=[pf.ExecutorConfig(label="short", provider=provider)])
    with pf.load(config):
        ready = tmp_path / "ready"
        future = pf.python_app(executors=["short"])(limit_tasks.wait_for)(str(ready))
        until(lambda: future.running() or None, 30.0)
        run_again = until(lambda: _blocks(tmp_path) >= 2 or None, 60.0)
        assert run_again
        ready.touch()
        assert future.result(60) == str(ready)


def test_a_task_without_runtime_that_never_gets_enough_time_fails_with_the_longest(tmp_path: Path) -> None:
    provider = pf.LocalProvider(init_blocks=1, max_blocks=1, walltime="3s")
    config = pf.Config(run_dir=tmp_path, executors=[pf.ExecutorConfig(label="short", provider=provider)])
    with pf.load(config):
        future = pf.python_app(executors=["short"])(limit_tasks.use)(600.0)
        with pytest.raises(WalltimeExceeded, match="walltime of its block was over, 2 times; it got at most") as caught:
            future.result(90)
        assert 0.5 < caught.value.longest_s < 3.0


def test_no_short_task_waits_behind_a_long_one_while_a_worker_idles(tmp_path: Path) -> None:
    provider = pf.LocalProvider(init_blocks=1, max_blocks=1, nodes_per_block=2)
    two = pf.ExecutorConfig(label="two", num_cpus=1, provider=provider)
    with pf.load(pf.Config(run_dir=tmp_path, executors=[two])):
        gate = tmp_path / "gate"
        wait = pf.python_app(limit_tasks.wait_or_use)
        assert {future.result(60) for future in [wait(None) for _ in range(200)]} == {None}  # it is known to be short
        long, *short = [wait(str(gate)), *(wait(None) for _ in range(60))]
        assert all(future.result(60) is None for future in short)
        assert not long.done()
        gate.touch()
        assert long.result(60) == str(gate)


def test_urgent_work_is_not_kept_waiting_by_what_was_sent_ahead(tmp_path: Path) -> None:
    one = pf.ExecutorConfig(label="one", num_cpus=1, provider=pf.LocalProvider(init_blocks=1, max_blocks=1))
    with pf.load(pf.Config(run_dir=tmp_path, executors=[one])):
        use = pf.python_app(limit_tasks.use)
        assert all(future.result(60) for future in [use(0.02) for _ in range(20)])
        usual = [use(0.02) for _ in range(150)]
        urgent = pf.python_app(priority=10)(limit_tasks.use)(0.0)
        start, *_ = urgent.result(60)
        before = sum(future.result(60)[0] < start for future in usual)
        assert before < 100


def _blocks(directory: Path) -> int:
    return len(list(directory.glob("*/blocks/short-*")))
