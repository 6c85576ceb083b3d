"""Nodes, links, daemons and blocks that go in mid-run: no task is lost, none is delivered twice, blocks are replaced."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

import pytest

import pilotflow
from pilotflow import AppFuture
from pilotflow.run import Run
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.programs import Program
from tests.slurm.tasks import config, noted

HEARTBEAT_S = 3.0
PATIENCE = float(os.environ.get("PILOTFLOW_PATIENCE", "10"))
HERE = "tests.slurm.test_losses"


def work(tasks: int, seconds: float, provider: dict[str, object], until: str = "") -> None:
    """Run tasks that note where they begin; say when all are under way, and at the end how often each result came."""
    came: Counter[int] = Counter()

    def count(future: Future[int]) -> None:
        if future.exception() is None:
            came[future.result()] += 1

    given = {"min_blocks": 2, "init_blocks": 2, "max_blocks": 3, "cores_per_node": 4, **provider}
    with pilotflow.load(config(given, heartbeat_limit=HEARTBEAT_S, retries=0)) as run:
        futures = [noted(number, seconds) for number in range(tasks)]
        for future in futures:
            future.add_done_callback(count)
        wait_for(lambda: len(nodes_of_tasks(Path())) >= 8, "eight tasks have begun", 60)
        print("running", flush=True)
        _wait_for_all(run, futures)
        time.sleep(1.0)  # a second delivery would come now
        assert sorted(came) == list(range(tasks)), came
        assert set(came.values()) == {1}, came
        print("blocks", *(f"{block.block}:{block.phase.value}" for block in run.blocks()), flush=True)
        wait_for(lambda: not until or Path(until).exists(), "the test is content", 60)


def _wait_for_all(run: Run, futures: list[AppFuture[int]]) -> None:
    for future in futures:
        future.result(300)


def starts(folder: Path) -> dict[int, list[tuple[float, str]]]:
    """When and where each task has begun."""
    found: dict[int, list[tuple[float, str]]] = {}
    file = folder / "starts"
    for line in file.read_text().splitlines() if file.exists() else ():
        number, when, node = line.split()
        found.setdefault(int(number), []).append((float(when), node))
    return found


def nodes_of_tasks(folder: Path) -> list[str]:
    return [node for begun in starts(folder).values() for _, node in begun]


def busy_node(folder: Path) -> str:
    """A node on which tasks have begun."""
    return Counter(nodes_of_tasks(folder)).most_common(1)[0][0]


def test_a_node_that_crashes_costs_its_tasks_nothing_but_time(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:work", 24, 2.0, {}, cwd=tmp_path) as program:
        program.until("running")
        node = busy_node(tmp_path)
        crashed = time.time()
        cluster.crash(node)
        program.until("blocks")
        program.finish()
    again = [begun[1][0] - crashed for begun in starts(tmp_path).values() if len(begun) > 1]
    assert again, "no task had to run again"
    limit_s = HEARTBEAT_S + 5
    print(f"after {min(again):.1f} s to {max(again):.1f} s of {limit_s:g} s the node's tasks ran again")
    assert max(again) <= limit_s * PATIENCE


@pytest.mark.soak
def test_a_block_that_an_operator_cancels_is_replaced(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:work", 24, 1.0, {}, cwd=tmp_path) as program:
        program.until("running")
        first = min(cluster.jobs(), key=int)
        cluster.run("scancel", first)
        said = program.until("blocks")
        program.finish()
    assert "slurm-0:ended" in said
    assert "slurm-2:" in said, "no other block came"


@pytest.mark.soak
def test_a_link_that_is_cut_and_heals_delivers_nothing_twice(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:work", 24, 2.0, {}, cwd=tmp_path) as program:
        program.until("running")
        node = busy_node(tmp_path)
        cluster.cut(node)
        time.sleep(3 * HEARTBEAT_S)
        cluster.heal(node)
        program.until("blocks")
        program.finish()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_node_whose_slurmd_stopped_hands_back_its_work_when_slurm_gives_the_block_up(
    cluster: Cluster, tmp_path: Path
) -> None:
    done = tmp_path / "content"
    with Program(cluster, f"{HERE}:work", 60, 4.0, {}, str(done), cwd=tmp_path) as program:
        program.until("running")
        node = busy_node(tmp_path)
        cluster.stop(node)
        program.until("blocks", 240)
        done.touch()
        program.finish()
    log = next((tmp_path / "runs/latest").resolve().glob("pilotflow.log")).read_text()
    assert "sent away" in log or "NODE_FAIL" in log, log
    cluster.start(node)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_node_that_an_operator_sets_down_is_left(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:work", 24, 2.0, {}, cwd=tmp_path) as program:
        program.until("running")
        node = busy_node(tmp_path)
        cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        said = program.until("blocks", 120)
        program.finish()
        assert "slurm-2:" in said, "no other block came"
    cluster.run("scontrol", "update", f"nodename={node}", "state=resume")


def lose_managers() -> None:
    """One block after the other, each of one whole node, until a task has ended well."""
    given = {"min_blocks": 1, "init_blocks": 1, "max_blocks": 1}
    with pilotflow.load(config(given, heartbeat_limit=HEARTBEAT_S, crash_limit=9)):
        assert noted(1, 0.0, "content").result(300) == 1


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_node_that_lost_its_manager_twice_is_not_asked_for_again(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:lose_managers", cwd=tmp_path) as program:
        for times in (1, 2):
            wait_for(lambda n=times: len(nodes_of_tasks(tmp_path)) == n, "the task has begun", 100)  # type: ignore[misc]
            assert nodes_of_tasks(tmp_path) == ["node1"] * times, "Slurm gives the first node that is free"
            cluster.run("pkill", "-KILL", "-f", "pilotflow.runtime.manager", host="node1")  # it has its own pids
        wait_for(lambda: len(nodes_of_tasks(tmp_path)) == 3, "the task has begun again", 100)
        assert nodes_of_tasks(tmp_path)[2] != "node1"
        assert cluster.run("squeue", "-h", "-t", "running", "-o", "%x").stdout.split() == ["node1"]
        (tmp_path / "content").touch()
        program.finish()
