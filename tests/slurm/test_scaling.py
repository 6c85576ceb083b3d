"""Blocks that come and go with the load, that reach their walltime, and that others push aside."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import pilotflow
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.programs import Program
from tests.slurm.tasks import config, double, noted, where
from tests.slurm.test_losses import nodes_of_tasks, starts

HERE = "tests.slurm.test_scaling"


def breathe(tasks: int) -> None:
    """Tasks on an executor of 0 to 4 one-node blocks; the first of them last until it has grown."""
    given = {"init_blocks": 0, "min_blocks": 0, "max_blocks": 4}
    with pilotflow.load(config(given, max_idletime=2.0, min_block_life=0.0)) as run:

        def working() -> int:
            return sum(info.phase.value == "working" for info in run.blocks())

        held = [noted(number, 0.0, "grown") for number in range(64)]
        futures = [noted(number, 0.002) for number in range(64, tasks)]
        wait_for(lambda: working() == 4, "it has grown to four blocks")
        Path("grown").touch()
        assert [future.result(100) for future in (*held, *futures)] == list(range(tasks))
        wait_for(lambda: not any(info.phase.value != "ended" for info in run.blocks()), "all blocks have ended", 60)
        assert double(4).result(60) == 8  # and one comes again


@pytest.mark.parametrize("tasks", [1000, pytest.param(5000, marks=pytest.mark.soak)])
def test_blocks_grow_with_the_load_and_shrink_to_none(cluster: Cluster, tmp_path: Path, tasks: int) -> None:
    cluster.function(f"{HERE}:breathe", tasks, cwd=tmp_path, timeout_s=100)
    assert not cluster.jobs(), "a block outlived the run"
    assert Counter(map(len, starts(tmp_path).values())) == {1: tasks}


def outlast_walltime() -> None:
    """More work than one block of a minute can do."""
    given = {"cores_per_node": 4, "walltime": 60, "max_blocks": 1}
    with pilotflow.load(config(given)) as run:
        timed = noted.options(runtime="6s")
        assert sorted(future.result(300) for future in [timed(number, 3.0) for number in range(120)]) == list(
            range(120)
        )
        print(sum(info.batch_id is not None for info in run.blocks()))


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_successive_blocks_finish_what_one_walltime_cannot(cluster: Cluster, tmp_path: Path) -> None:
    blocks = int(cluster.function(f"{HERE}:outlast_walltime", cwd=tmp_path, timeout_s=300))
    assert blocks >= 2
    assert Counter(map(len, starts(tmp_path).values())) == {1: 120}, "a task was started that could not end in time"
    jobs = cluster.run("squeue", "-h", "-t", "all", "-o", "%j|%T|%k").stdout.splitlines()
    states = [line.split("|")[1] for line in jobs if line.endswith(f"in {tmp_path}/runs/0001")]
    assert len(states) == blocks
    assert set(states) <= {"COMPLETED", "CANCELLED"}, "Slurm has ended a block by its limit"


def change_limit() -> None:
    """Show what a task is told of its time."""
    with pilotflow.load(config({"walltime": 1200})):
        print("began", where().result(60), flush=True)
        wait_for(lambda: Path("changed").exists(), "the limit has been changed")
        wait_for(lambda: "the block ends in" in _manager_log().partition("ends in 1")[2], "the manager has heard", 60)
        assert double(1).result(60) == 2


def _manager_log() -> str:
    return next(Path("runs/latest/blocks/slurm-0").glob("manager-*.log")).read_text()


@pytest.mark.soak
def test_a_time_limit_that_an_operator_changes_is_followed(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:change_limit", cwd=tmp_path) as program:
        program.until("began")
        (job,) = cluster.jobs()
        wait_for(lambda: "ends in 1" in _log_of(tmp_path), "the manager knows its limit")
        cluster.run("scontrol", "update", f"jobid={job}", "timelimit=11")
        (tmp_path / "changed").touch()
        program.finish()
    assert "the block ends in 6" in _log_of(tmp_path)


def _log_of(folder: Path) -> str:
    logs = list(folder.glob("runs/0001/blocks/slurm-0/manager-*.log"))
    return logs[0].read_text() if logs else ""


def be_pushed_aside(requeue: bool) -> None:
    """Tasks on the partition that others preempt, on one node."""
    given = {"partition": "low", "requeue": requeue, "scheduler_options": "#SBATCH --nodelist=node1"}
    with pilotflow.load(config(given, heartbeat_limit=3.0, retries=0)) as run:
        futures = [noted(number, 1.0) for number in range(24)]
        seen: set[str] = set()
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                seen.update(f"{info.block}:{info.requeues}" for info in run.blocks())

        watcher = threading.Thread(target=watch)
        watcher.start()
        wait_for(lambda: len(nodes_of_tasks(Path())) >= 4, "tasks run")
        print("running", flush=True)
        assert sorted(future.result(200) for future in futures) == list(range(24))
        done.set()
        watcher.join()
        print("seen", *sorted(seen), flush=True)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("requeue", [False, True])
def test_preemption_costs_no_retry(cluster: Cluster, tmp_path: Path, requeue: bool) -> None:
    with Program(cluster, f"{HERE}:be_pushed_aside", requeue, cwd=tmp_path) as program:
        program.until("running")
        (first,) = cluster.jobs()
        cluster.run("sbatch", "-p", "debug", "-w", "node1", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
        if requeue:  # Slurm lets it wait for two minutes
            wait_for(
                lambda: "BeginTime" in cluster.run("squeue", "-h", "-j", first, "-o", "%r").stdout, "it is requeued"
            )
            time.sleep(8.0)  # longer than a block whose managers are lost is kept
            cluster.run("scontrol", "update", f"jobid={first}", "starttime=now")
        said = program.until("seen", 200)
        program.finish()
    assert ("slurm-0:1" in said) is requeue, said
    assert ("slurm-1:0" in said) is not requeue, said
