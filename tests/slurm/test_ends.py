"""Programs and daemons that die, and what is left of them in the batch system: nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import pilotflow
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.programs import Program
from tests.slurm.tasks import config, double, pause
from tests.slurm.test_losses import PATIENCE

HERE = "tests.slurm.test_ends"


def hold_blocks() -> None:
    """A run with two blocks that work and two that cannot start."""
    given = {"nodes_per_block": 2, "init_blocks": 4, "max_blocks": 4, "exclusive": True}
    with pilotflow.load(config(given)) as run:
        tasks = [pause(600) for _ in range(8)]
        wait_for(lambda: sum(task.running() for task in tasks) >= 4, "tasks run")
        wait_for(lambda: sum(info.batch_id is not None for info in run.blocks()) == 4, "all blocks are submitted")
        time.sleep(1.0)  # the interchange hears of them
        print("interchange", run._interchange.pid, flush=True)
        pause(600).result()


def test_no_job_is_left_when_the_program_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:hold_blocks", cwd=tmp_path) as program:
        program.until("interchange")
        assert len(cluster.jobs("--states=PENDING")) == 2
        began = time.monotonic()
        program.kill()
        wait_for(lambda: not cluster.jobs(), "all jobs are gone", 60 * PATIENCE)
        print(f"after {time.monotonic() - began:.1f} s of 60 s no job was left")


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_no_job_is_left_when_program_and_interchange_are_killed(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:hold_blocks", cwd=tmp_path) as program:
        interchange = int(program.until("interchange").split()[1])
        began = time.monotonic()
        program.kill(interchange)
        wait_for(lambda: not cluster.jobs(), "all jobs are gone", 300)
        took = time.monotonic() - began
        print(f"after {took:.1f} s of 120 s no job was left")
        assert took <= 120 * PATIENCE


def outlast_slurmctld(seconds: float) -> None:
    given = {"init_blocks": 1, "max_blocks": 3, "cores_per_node": 4}
    with pilotflow.load(config(given)) as run:
        assert double(1).result(60) == 2
        print("working", flush=True)
        wait_for(lambda: Path("stopped").exists(), "slurmctld is stopped")
        assert [future.result(60) for future in [double(x) for x in range(1000)]] == [2 * x for x in range(1000)]
        tasks = [pause(seconds) for _ in range(12)]  # worth three blocks
        wait_for(lambda: any(outlook.trouble for outlook in run._keeper.outlooks()), "the keeper has noticed", 100)
        print("trouble", next(outlook.trouble for outlook in run._keeper.outlooks()), flush=True)
        wait_for(lambda: Path("started").exists(), "slurmctld is started again", 200)
        wait_for(lambda: sum(info.phase.value == "working" for info in run.blocks()) == 3, "more blocks come", 100)
        assert len({task.result(200) for task in tasks}) > 1


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [1, 60])
@pytest.mark.timeout(400)
def test_work_goes_on_without_slurmctld_and_scaling_resumes_with_it(
    cluster: Cluster, tmp_path: Path, seconds: float
) -> None:
    with Program(cluster, f"{HERE}:outlast_slurmctld", seconds + 8, cwd=tmp_path) as program:
        program.until("working")
        cluster.stop(cluster.login.name)
        (tmp_path / "stopped").touch()
        said = program.until("trouble", 100)
        assert "controller" in said or "answer" in said
        time.sleep(seconds)
        cluster.start(cluster.login.name)
        (tmp_path / "started").touch()
        program.finish(200)
