"""What tasks ask for, on a real node: seats are never shared, limits that users wrote are enforced, nothing else is."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import MemoryLimitExceeded, TaskTimeout, WalltimeExceeded
from pilotflow.node import measure_node
from tests.integration import call_tasks, limit_tasks
from tests.integration.memory_groups import memory_group
from tests.waiting import until

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

    return until(look)


def test_a_task_that_exceeds_its_runtime_may_clean_up_and_fails_with_both_times(tmp_path: Path) -> None:
    path = tmp_path / "cleaned"
    slow = pf.python_app(runtime=0.5)(limit_tasks.sleep_and_clean)
    with pytest.raises(TaskTimeout, match=r"'sleep_and_clean' ran for .* and was ended: its runtime is 500ms\."):
        slow(str(path), 60.0).result(60)
    assert path.read_text() == "cleaned"


def test_a_task_that_does_not_heed_the_warning_is_killed_after_the_grace() -> None:
    with pytest.raises(TaskTimeout, match="'never_end' ran for"):
        pf.python_app(runtime=0.3)(limit_tasks.never_end)().result(60)


def test_a_command_that_exceeds_its_runtime_is_ended_and_only_it(tmp_path: Path) -> None:
    place = str(tmp_path / "other")
    other = pf.python_app(runtime=60)(call_tasks.hold)(place)
    until(lambda: call_tasks.started(place), what="the start of another task")

    @pf.bash_app(runtime=0.3)
    def sleepy() -> str:
        return "sleep 60; sleep 60"

    with pytest.raises(TaskTimeout, match="'sleepy' ran for"):
        sleepy().result(60)
    call_tasks.let_go(place)
    assert other.result(60)


def test_a_task_without_limits_of_its_own_is_not_limited() -> None:
    assert pf.python_app(limit_tasks.fill)(300 << 20, 1.5).result(60) == 300 << 20  # a look a second


def test_a_task_that_uses_more_memory_than_it_asked_for_is_ended_with_its_peak(run: pf.Run) -> None:
    future = pf.python_app(memory="100m")(limit_tasks.fill)(300 << 20, 60.0)
    with pytest.raises(MemoryLimitExceeded, match="it asked for 100 MiB") as caught:
        future.result(60)
    assert caught.value.requested == 100 << 20
    assert 100 << 20 < caught.value.peak < GIB, "whatever it had at that moment"
    (peak,) = recorded(run, future, "peak_bytes")
    assert peak == caught.value.peak


def test_a_kill_by_the_kernel_for_lack_of_memory_is_said_so_and_the_task_is_not_tried_again(tmp_path: Path) -> None:
    with memory_group(700 << 20) as group:
        provider = pf.LocalProvider(worker_init=f"echo $$ > {group}/cgroup.procs", max_blocks=1)
        node = pf.ExecutorConfig(label="poor", num_cpus=2, provider=provider)
        with pf.load(pf.Config(run_dir=tmp_path / "runs", executors=[node])):
            other = pf.python_app(limit_tasks.wait_for)(str(tmp_path / "go"))
            until(other.running, what="the start of another task")
            greedy = pf.python_app(limit_tasks.fill_and_note)(str(tmp_path / "log"), 900 << 20)
            with pytest.raises(
                MemoryLimitExceeded, match="'fill_and_note' was ended by the system, because the memory"
            ):
                greedy.result(60)
            (tmp_path / "go").touch()
            assert other.result(60), "only that task suffers"
            assert pf.python_app(limit_tasks.fill)(1 << 20, 0.0).result(60) == 1 << 20
        assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_memory_is_counted_above_what_the_warm_worker_had_already() -> None:
    fill = pf.python_app(memory="200m")(limit_tasks.fill)
    assert [fill(100 << 20, 1.2).result(60) for _ in range(3)] == [100 << 20] * 3


def test_a_worker_that_keeps_a_gigabyte_of_what_its_tasks_used_is_replaced(tmp_path: Path) -> None:
    pid = pf.python_app(limit_tasks.leak)(1100 << 20).result(60)
    use = pf.python_app(limit_tasks.use)
    gone = tmp_path / "gone"
    short, long = use(0.2), pf.python_app(limit_tasks.wait_for)(str(gone))  # the node is looked at while anything runs
    until(lambda: not Path(f"/proc/{pid}").exists())
    gone.touch()
    assert short.result(60)
    assert long.result(60)


def test_what_a_task_used_is_recorded(run: pf.Run) -> None:
    @pf.bash_app(num_cpus=2, num_gpus=1)
    def count() -> str:
        return "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; exit 3"

    future = count()
    with pytest.raises(pf.BashExitError):
        future.result(60)
    cpu_us, exit_code, cores, gpus, duration_us, manager = recorded(
        run, future, "cpu_us", "exit_code", "cores", "gpus", "duration_us", "manager"
    )
    with closing(sqlite3.connect(f"{(run.directory / 'run.db').as_uri()}?mode=ro", uri=True)) as database:
        nodes = database.execute("SELECT node, block FROM managers WHERE manager = ?", (manager,)).fetchall()
    assert nodes == [(os.uname().nodename, "node-0")]
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


def test_a_task_runs_on_the_cpus_of_its_cores_alone_and_its_warm_worker_moves(tmp_path: Path) -> None:
    report = measure_node()
    if not report.pinned:
        pytest.skip(f"nothing can be pinned here: {'; '.join(report.notes)}")
    count = len(report.cores)
    node = pf.ExecutorConfig(label="node", provider=pf.LocalProvider(max_blocks=1))
    with pf.load(pf.Config(run_dir=tmp_path / "runs", executors=[node])):
        gate = tmp_path / "gate"
        one = pf.python_app(limit_tasks.affinity)
        each = [one(str(gate)) for _ in range(count)]
        until(lambda: all(future.running() for future in each), what="the start of one task a core")
        gate.touch()
        found = [future.result(60) for future in each]
        assert sorted(cores for cores, _, _ in found) == [(core,) for core in range(count)]
        assert all(cpus == report.cores[core].cpus for (core,), cpus, _ in found)
        whole = pf.python_app(num_cpus=count)(limit_tasks.affinity)()
        cores, cpus, pid = whole.result(60)
        assert (cores, cpus) == (tuple(range(count)), report.usable_cpus)
        assert pid in [pid for _, _, pid in found], "no worker is started for another seat"


@pytest.mark.parametrize("words", [{"max_workers_per_node": 2 * (os.cpu_count() or 1)}, {"pin": False}])
def test_with_more_workers_than_cores_or_as_told_tasks_are_not_pinned(tmp_path: Path, words: dict[str, Any]) -> None:
    with pf.load(pf.Config(run_dir=tmp_path, executors=[pf.ExecutorConfig(label="node", **words)])) as run:
        cores, cpus, _ = pf.python_app(limit_tasks.affinity)().result(60)
        assert (len(cores), cpus) == (1, measure_node().usable_cpus)
        (log,) = run.directory.glob("blocks/node-0/manager-*.log")
        assert log.read_text().count("Tasks are not pinned to cores: the user said") == 1


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
    """Mixed tasks on 4 cores, 8 GiB and 2 GPUs: at no moment do those that run hold more, or one core or GPU twice."""
    dice = random.Random(seed)
    kinds: list[dict[str, Any]] = [
        {"num_cpus": 1},
        {"num_cpus": 2, "memory": "1g"},
        {"num_cpus": 0.5, "memory": "3g"},
        {"num_cpus": 1, "num_gpus": 1},
        {"num_cpus": 0.5, "num_gpus": 0.5},
        {"num_cpus": 4, "memory": "6g"},
    ]
    apps = [pf.python_app(**kind)(limit_tasks.hold) for kind in kinds]
    chosen = [dice.randrange(len(kinds)) for _ in range(count)]
    futures = [apps[number](dice.uniform(0.0, 0.002)) for number in chosen]
    events: list[tuple[int, int, dict[str, Any], str, tuple[int, ...]]] = []
    for number, future in zip(chosen, futures, strict=True):
        start, end, gpus, its_cores = future.result(600)
        assert len(its_cores) == max(1, int(kinds[number]["num_cpus"]))
        assert len(gpus.split(",") if gpus else ()) == math.ceil(kinds[number].get("num_gpus", 0))
        events += [(start, 1, kinds[number], gpus, its_cores), (end, -1, kinds[number], gpus, its_cores)]
    memory = running = most = 0.0
    cores, used = dict.fromkeys(range(4), 0.0), {"0": 0.0, "1": 0.0}
    for _, sign, kind, gpus, its_cores in sorted(events, key=lambda event: event[:2]):
        running += sign
        most = max(most, running)
        memory += sign * float(str(kind.get("memory", "0g"))[:-1])
        for core in its_cores:
            cores[core] += sign * min(1.0, float(kind["num_cpus"]))
        for gpu in filter(None, gpus.split(",")):
            used[gpu] += sign * min(1.0, float(kind.get("num_gpus", 0)))
        assert memory <= 8.0
        assert max(cores.values()) <= 1.0
        assert max(used.values()) <= 1.0
    assert most >= 3, "hardly any of them ran at once, which shows nothing"
    assert run.client.wait_idle(60)


def test_mixed_tasks_never_hold_more_than_the_node_has(run: pf.Run) -> None:
    overlaps(run, 600, seed=1)


@pytest.mark.soak
def test_ten_thousand_mixed_tasks_never_hold_more_than_the_node_has(run: pf.Run) -> None:
    overlaps(run, 10_000, seed=2)


def test_a_task_is_warned_before_its_block_ends_and_runs_again_elsewhere(tmp_path: Path) -> None:
    walltime_s = 8.0
    provider = pf.LocalProvider(init_blocks=1, max_blocks=1, walltime=walltime_s)
    config = pf.Config(run_dir=tmp_path, executors=[pf.ExecutorConfig(label="short", provider=provider)])
    with pf.load(config):
        future = pf.python_app(executors=["short"])(limit_tasks.note_warning)(str(tmp_path / "saved"))
        left, when_warned = map(float, future.result(60).split())
        assert 0.0 <= when_warned < left <= walltime_s
        assert _blocks(tmp_path) >= 2


def test_a_task_without_runtime_that_never_gets_enough_time_fails_with_the_longest(tmp_path: Path) -> None:
    provider = pf.LocalProvider(init_blocks=1, max_blocks=1, walltime="3s")
    config = pf.Config(run_dir=tmp_path, executors=[pf.ExecutorConfig(label="short", provider=provider)])
    with pf.load(config):
        future = pf.python_app(executors=["short"])(limit_tasks.use)(600.0)
        with pytest.raises(WalltimeExceeded, match="walltime of its block was over, 2 times; it got at most") as caught:
            future.result(90)
        assert 0.0 < caught.value.longest_s < 3.0


def test_a_task_without_runtime_starts_only_while_enough_is_left_of_the_block_that_it_could_have(
    tmp_path: Path,
) -> None:
    provider = pf.LocalProvider(init_blocks=1, max_blocks=1, walltime="1h")
    node = pf.ExecutorConfig(label="node", provider=provider, min_time_for_new_tasks="59m 59s")
    with pf.load(pf.Config(run_dir=tmp_path, executors=[node])) as run:
        use = pf.python_app(limit_tasks.use)
        use.options(runtime=60)(1.0).result(60)
        waiting = use(0.0)
        until(lambda: "it starts only where 59m 59s are left." in str(run.explain(waiting)))
        assert waiting.cancel()


def test_no_short_task_waits_behind_a_long_one_while_a_worker_idles(tmp_path: Path) -> None:
    provider = pf.LocalProvider(init_blocks=1, max_blocks=1, nodes_per_block=2)
    two = pf.ExecutorConfig(label="two", num_cpus=1, provider=provider)
    with pf.load(pf.Config(run_dir=tmp_path, executors=[two])) as run:
        wait = pf.python_app(limit_tasks.wait_or_use)
        tries = (_all_sent_ahead(run, wait, tmp_path / str(number)) for number in count())
        gates, long, short = until(lambda: next(tries), timeout_s=300, what="the sending ahead of all")
        gates[1].touch()  # one node idles when it has run what was sent there
        assert all(future.result(60) is None for future in short)
        assert long[1].result(60) == str(gates[1])
        assert not long[0].done()
        gates[0].touch()
        assert long[0].result(60) == str(gates[0])


def _all_sent_ahead(
    run: pf.Run, wait: Any, directory: Path
) -> tuple[list[Path], list[pf.AppFuture[str]], list[pf.AppFuture[None]]] | None:
    """Two gates, tasks that wait for them, and short ones, all sent ahead; None if those took long on a busy machine."""
    directory.mkdir()
    gates = [directory / "gate 1", directory / "gate 2"]
    assert {future.result(60) for future in [wait(None) for _ in range(200)]} == {None}  # it is known to be short
    with in_one_letter(directory):
        long = [wait(str(gate)) for gate in gates]
        short = [wait(None) for _ in range(60)]
    deadline = time.monotonic() + 5
    while leased(run) != 62 and time.monotonic() < deadline:
        time.sleep(0.02)
    if leased(run) == 62:
        return gates, long, short
    for gate in gates:
        gate.touch()
    for future in [*long, *short]:
        future.result(60)
    return None


@contextmanager
def in_one_letter(directory: Path) -> Iterator[None]:
    """What is submitted in the body goes to the interchange at once."""
    held, go = threading.Event(), threading.Event()

    def hold_up(_: object) -> None:
        held.set()
        go.wait(60)

    path = directory / "a letter"
    future = pf.python_app(limit_tasks.wait_for)(str(path))
    future.add_done_callback(hold_up)  # called in the client loop's thread
    path.touch()
    assert held.wait(60)
    yield
    go.set()


def test_urgent_work_is_not_kept_waiting_by_what_was_sent_ahead(tmp_path: Path) -> None:
    one = pf.ExecutorConfig(label="one", num_cpus=1, provider=pf.LocalProvider(init_blocks=1, max_blocks=1))
    with pf.load(pf.Config(run_dir=tmp_path / "runs", executors=[one])) as run:
        log = tmp_path / "log"
        app = pf.python_app(limit_tasks.sleep_and_note)
        usual = until(lambda: _some_sent_ahead(run, app, log), timeout_s=300, what="the sending ahead of some")
        ahead = leased(run) - 1
        pf.python_app(priority=10)(limit_tasks.use)(0.0).result(600)
        assert len(log.read_text().splitlines()) <= ahead, "it came after all that had been sent ahead"
        for future in usual:
            future.cancel()


def _some_sent_ahead(run: pf.Run, app: Any, log: Path) -> list[pf.AppFuture[None]]:
    """Long tasks of which at least two are sent ahead; none if the short ones before them took long on a busy machine."""
    for future in [app("/dev/null", 0.0) for _ in range(300)]:  # it is known to be very short
        future.result(60)
    log.write_text("")
    usual = [app(str(log), 2.0) for _ in range(100)]
    until(log.read_text, what="the start of one")
    until(lambda: leased(run) > 1, what="a report of that")
    if leased(run) > 2:
        return usual
    for future in usual:
        future.cancel()
    return []


def leased(run: pf.Run) -> int:
    """How many tasks managers hold, as far as that was told."""
    return sum(one.leased for one in run.load.executors) if run.load is not None else 0


def _blocks(directory: Path) -> int:
    return len(list(directory.glob("*/blocks/short-*")))
