"""Blocks that are suspended, by an operator or for a more urgent job: their work runs elsewhere, and they come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pilotflow
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.programs import Program
from tests.slurm.tasks import config, noted
from tests.slurm.test_losses import nodes_of_tasks, starts

HERE = "tests.slurm.test_suspended"
HEARTBEAT_S = 2.0
START_S = 20.0  # a manager needs some of it on a busy machine
SHAPE = {"cores_per_node": 4, "init_blocks": 1, "max_blocks": 1}


def work(tasks: int, seconds: float, provider: dict[str, object], worker_init: str = "") -> None:
    """Run tasks that note where they begin; say what becomes of the blocks."""
    given = {**SHAPE, "worker_init": worker_init, **provider}
    with pilotflow.load(config(given, heartbeat_limit=HEARTBEAT_S, start_limit=START_S, crash_limit=2)) as run:
        futures = [noted(number, seconds) for number in range(tasks)]
        assert [future.result(200) for future in futures] == list(range(tasks))
        print("blocks", *(f"{block.block}:{block.phase.value}" for block in run.blocks()), flush=True)


def work_once(tasks: int, heartbeat_s: float) -> None:
    """Run tasks that must not run twice, for about as long as they are suspended."""
    with pilotflow.load(config(SHAPE, heartbeat_limit=heartbeat_s, crash_limit=1)):
        futures = [noted(number, 10.0) for number in range(tasks)]
        print("ended", sorted(future.result(200) for future in futures), flush=True)


def suspended_s(cluster: Cluster, folder: Path) -> float:
    """For how long the block has been suspended, as people see it."""
    (block,) = json.loads(cluster.pilotflow("blocks", "--json", cwd=folder).stdout)["blocks"]
    return block["for_s"] if block["state"] == "suspended" else 0.0


def log_of(folder: Path) -> str:
    return (folder / "runs/latest/pilotflow.log").read_text()


def _missed(folder: Path) -> int:
    """How often the block was suspended and its manager lost."""
    log = log_of(folder)
    return min(log.count("is suspended"), log.count("not heard of"))


def test_a_block_that_is_suspended_again_and_again_goes_on_and_no_task_is_charged(
    cluster: Cluster, tmp_path: Path
) -> None:
    with Program(cluster, f"{HERE}:work", 8, 4.0, {}, cwd=tmp_path) as program:
        wait_for(lambda: len(nodes_of_tasks(tmp_path)) >= 4, "four tasks have begun", 60)
        (job,) = cluster.jobs()
        for times in (1, 2, 3):  # a task may be lost only once
            cluster.run("scontrol", "suspend", job)
            wait_for(lambda n=times: _missed(tmp_path) == n, "it is seen, and its manager missed", 60)  # type: ignore[misc]
            cluster.run("scontrol", "resume", job)
            wait_for(lambda n=times: len(nodes_of_tasks(tmp_path)) >= 4 * (n + 1), "they have begun again", 60)  # type: ignore[misc]
        said = program.until("blocks", 120)
        program.finish()
    assert said == "blocks slurm-0:working"
    assert max(map(len, starts(tmp_path).values())) == 4, "a task was lost more often than crash_limit allows"


@pytest.mark.soak  # tests/core/test_blocks_suspended.py shows that another one is asked for
def test_what_a_suspended_block_had_runs_in_another_one(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:work", 4, 2.0, {"max_blocks": 2}, cwd=tmp_path) as program:
        wait_for(lambda: len(nodes_of_tasks(tmp_path)) >= 4, "four tasks have begun", 60)
        (job,) = cluster.jobs()
        cluster.run("scontrol", "suspend", job)
        said = program.until("blocks", 120)
        program.finish()
    assert "slurm-0:suspended slurm-1:working" in said
    wait_for(lambda: not cluster.jobs(), "the suspended job is ended too")


def test_a_block_that_is_suspended_before_its_first_manager_outlasts_start_limit(
    cluster: Cluster, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    init = f"while [ ! -e {go} ]; do sleep 0.2; done"
    with Program(cluster, f"{HERE}:work", 4, 0.1, {}, init, cwd=tmp_path) as program:
        wait_for((tmp_path / "runs/latest/pilotflow.log").exists, "the run has begun", 60)
        wait_for(lambda: "slurm-0" in log_of(tmp_path) and "is running" in log_of(tmp_path), "it runs", 60, 0.05)
        (job,) = cluster.jobs()
        cluster.run("scontrol", "suspend", job)
        wait_for(lambda: "is suspended" in log_of(tmp_path), "it is seen", 60)
        go.touch()
        wait_for(lambda: suspended_s(cluster, tmp_path) > START_S + 1, "more than start_limit is over", 60)
        cluster.run("scontrol", "resume", job)
        assert program.until("blocks", 60) == "blocks slurm-0:working"
        program.finish()


@pytest.mark.soak  # tests/core/test_standstill.py has the rules
@pytest.mark.timeout(300)
def test_tasks_that_must_not_run_twice_wait_for_a_suspended_block_and_go_on_with_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    heartbeat_s = 6.0
    with Program(cluster, f"{HERE}:work_once", 6, heartbeat_s, cwd=tmp_path) as program:
        wait_for(lambda: len(nodes_of_tasks(tmp_path)) >= 4, "four tasks have begun", 60)
        (job,) = cluster.jobs()
        cluster.run("scontrol", "suspend", job)
        wait_for(lambda: suspended_s(cluster, tmp_path) > 4 * heartbeat_s, "its manager was missed", 120, 0.5)
        cluster.run("scontrol", "resume", job)
        assert program.until("ended", 120) == "ended [0, 1, 2, 3, 4, 5]"
        program.finish()
    assert all(len(begun) == 1 for begun in starts(tmp_path).values()), "each of them has begun once"


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_time_suspended_is_no_part_of_the_walltime(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:work", 8, 4.0, {"walltime": 60}, cwd=tmp_path) as program:
        wait_for(lambda: len(nodes_of_tasks(tmp_path)) >= 4, "four tasks have begun", 60)
        (job,) = cluster.jobs()
        cluster.run("scontrol", "suspend", job)
        wait_for(lambda: suspended_s(cluster, tmp_path) > 70, "the walltime would be over", 100, 0.5)
        cluster.run("scontrol", "resume", job)
        assert program.until("blocks", 60) == "blocks slurm-0:working"
        program.finish()
