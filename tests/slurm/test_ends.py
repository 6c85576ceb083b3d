"""Programs and daemons that die, and what is left of them in the batch system: nothing."""

from __future__ import annotations

import os
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
        run.explain(tasks[-1])  # the interchange answers, and has heard of the blocks before it was asked
        print("interchange", run._interchange.pid, flush=True)
        pause(600).result()


@pytest.mark.parametrize("both", [False, True], ids=["program", "program and interchange"])
def test_no_job_is_left_when_programs_are_killed(cluster: Cluster, tmp_path: Path, both: bool) -> None:
    with Program(cluster, f"{HERE}:hold_blocks", cwd=tmp_path) as program:
        interchange = int(program.until("interchange").split()[1])
        assert len(cluster.jobs("--states=PENDING")) == 2
        began = time.monotonic()
        program.kill(*([interchange] if both else []))
        limit_s = 120 if both else 60
        wait_for(lambda: not cluster.jobs(), "all jobs are gone", limit_s * PATIENCE)
        print(f"after {time.monotonic() - began:.1f} s of {limit_s} s no job was left")


def hand_in_slowly() -> None:
    """The second block is being handed in for some seconds."""
    given = {"init_blocks": 2, "max_blocks": 2, "cores_per_node": 1, "submit_rate": 1}
    with pilotflow.load(config(given)) as run:
        print("interchange", run._interchange.pid, flush=True)
        pause(600).result()


SLOW_SBATCH = """\
#!/bin/sh
if [ -e handed_in ]; then touch handing_in; sleep 3; fi
touch handed_in
exec /usr/bin/sbatch "$@"
"""


@pytest.mark.soak
@pytest.mark.parametrize("absent", [False, True], ids=["slurmctld there", "slurmctld absent"])
@pytest.mark.timeout(300)
def test_a_job_that_is_being_handed_in_when_all_are_killed_is_cancelled(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: bool
) -> None:
    (tmp_path / "sbatch").write_text(SLOW_SBATCH)
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Program(cluster, f"{HERE}:hand_in_slowly", cwd=tmp_path) as program:
        interchange = int(program.until("interchange").split()[1])
        wait_for((tmp_path / "handing_in").exists, "the second block is being handed in")
        program.kill(interchange)
    if absent:
        wait_for(lambda: len(cluster.jobs()) >= 1, "the first job is there")
        cluster.stop(cluster.login.name)
        log = tmp_path / "runs/0001/pilotflow.log"
        wait_for(lambda: "it is tried again" in log.read_text(), "the guard has found nobody", 60)
        cluster.start(cluster.login.name)
    finished = ("squeue", "-h", "-t", "all", "-o", "%j %T")
    wait_for(lambda: not cluster.jobs(), "all jobs are gone", 100)
    ours = [line for line in cluster.run(*finished).stdout.splitlines() if line.startswith("pilotflow:0001")]
    if not absent:
        wait_for(lambda: ":slurm-1 CANCELLED" in cluster.run(*finished).stdout, "the second one too", 60)
    assert ours


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
