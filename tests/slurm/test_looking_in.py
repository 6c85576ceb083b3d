"""What people see of blocks from another terminal, and what the site sees."""

from __future__ import annotations

import json
from pathlib import Path

import pilotflow
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.programs import Program
from tests.slurm.tasks import config, pause

HERE = "tests.slurm.test_looking_in"


def wait_in_line() -> None:
    """One block works, the next one has to wait for all four nodes."""
    given = {"nodes_per_block": 4, "init_blocks": 2, "max_blocks": 2, "walltime": 1800}
    with pilotflow.load(config(given)) as run:
        wait_for(lambda: any(info.managers == 4 for info in run.blocks()), "one block works")
        tasks = [pause(600) for _ in range(40)]
        wait_for(lambda: any(info.leased == 16 for info in run.blocks()), "its 16 cores have tasks")
        # Slurm says "Priority" until it has looked at the whole queue.
        wait_for(lambda: any("Resources" in info.said for info in run.blocks()), "the other waits, with a reason")
        print("waiting", len(tasks), flush=True)
        pause(600).result()


def pilotflow_says(cluster: Cluster, folder: Path, *words: str) -> str:
    return cluster.pilotflow(*words, cwd=folder).stdout


def test_people_see_why_a_block_waits(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:wait_in_line", cwd=tmp_path) as program:
        program.until("waiting")
        shown = json.loads(pilotflow_says(cluster, tmp_path, "blocks", "--json"))
        works, waits = shown["blocks"]
        assert (works["state"], works["nodes"]) == ("working", ["node1", "node2", "node3", "node4"])
        assert (works["managers"], works["tasks"]) == (4, 16)
        assert 1500 < works["left_s"] <= 1800
        assert waits["state"] == "pending"
        assert waits["said"].partition(":")[0] == "Resources"
        table = pilotflow_says(cluster, tmp_path, "blocks")
        assert f"slurm-1   {waits['batch_id']}" in table
        assert waits["said"] in pilotflow_says(cluster, tmp_path, "status")
        assert waits["said"] in pilotflow_says(cluster, tmp_path, "explain", "pause")
        name, comment = cluster.run("squeue", "-h", "-j", waits["batch_id"], "-o", "%j|%k").stdout.strip().split("|")
        run_id = next((tmp_path / "runs").glob("0001")).name
        assert name.startswith(f"pilotflow:{run_id}-")
        assert comment.endswith(f"in {tmp_path}/runs/0001")
        program.kill()
    wait_for(lambda: not cluster.jobs(), "all jobs are gone")


def wait_for_release() -> None:
    """One block, which is held."""
    with pilotflow.load(config({"scheduler_options": "#SBATCH --hold"})) as run:
        task = pause(0.0)
        wait_for(lambda: any("Held" in info.said for info in run.blocks()), "it is held", 60)
        print("held", flush=True)
        print("ran", task.result(60), flush=True)


def test_people_see_that_a_block_is_held_and_how_to_release_it(cluster: Cluster, tmp_path: Path) -> None:
    with Program(cluster, f"{HERE}:wait_for_release", cwd=tmp_path) as program:
        program.until("held")
        (job,) = cluster.jobs()
        for words in (("blocks",), ("status",), ("explain", "pause")):
            said = " ".join(pilotflow_says(cluster, tmp_path, *words).split())
            assert f"`scontrol release {job}` lets it start" in said
            assert "expected to start" not in said
        cluster.run("scontrol", "release", job)
        program.until("ran")
        program.finish()
