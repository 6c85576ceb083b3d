"""A run on a real cluster, end to end, and the provider's contract there."""

from __future__ import annotations

import sys
import time
from ast import literal_eval
from pathlib import Path

import pytest

import pilotflow
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.testing.providers import check_provider
from tests.slurm.harness.cluster import Cluster
from tests.slurm.page import parts
from tests.slurm.tasks import config, double, where


def run_some_tasks() -> None:
    with pilotflow.load(config({"nodes_per_block": 2})) as run:
        assert [future.result(60) for future in [double(x) for x in range(500)]] == [2 * x for x in range(500)]
        hosts: set[str] = set()
        end = time.monotonic() + 30
        while len(hosts) < 2 and time.monotonic() < end:
            hosts.update(future.result(60) for future in [where() for _ in range(50)])
        print(sorted(hosts))
        print([(block.block, block.phase.value) for block in run.blocks()])


def test_tasks_run_on_two_nodes_of_a_block_and_nothing_stays(cluster: Cluster, tmp_path: Path) -> None:
    said = cluster.function("tests.slurm.test_first_steps:run_some_tasks", cwd=tmp_path)
    assert said == "['node1', 'node2']\n[('slurm-0', 'working')]\n"
    assert not cluster.jobs()


class AskedOften(SlurmProvider):
    quick_poll_s = 0.1


def keep_contract(folder: str) -> None:
    check_provider(lambda: AskedOften(walltime=60, submit_rate=100, mem_per_node=0.1, cores_per_node=1), Path(folder))


def test_slurm_keeps_the_contract(cluster: Cluster, tmp_path: Path) -> None:
    cluster.function("tests.slurm.test_first_steps:keep_contract", str(tmp_path), cwd=tmp_path, timeout_s=100)


@pytest.mark.soak
def test_the_five_minutes_of_the_page_are_as_it_says(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "slurm.yaml").write_text(parts("yaml")[0])
    run = ("env", f"--chdir={tmp_path}", sys.executable)
    shown_value, _, shown_hosts = parts("text")[0].partition(" ")
    with_file, in_python = parts("python")[:2]
    for program in (with_file, in_python):
        (tmp_path / "squares.py").write_text(program)
        value, _, hosts = cluster.run(*run, "squares.py").stdout.partition(" ")
        assert value == shown_value
        assert set() < set(literal_eval(hosts)) <= set(literal_eval(shown_hosts)), "one node may have been much faster"
    script = cluster.run(*run, "-m", "pilotflow", "slurm", "script", "slurm.yaml").stdout
    shown = [line for line in parts("console")[1].splitlines() if line.startswith("#SBATCH")]
    assert [line for line in script.replace(str(tmp_path), "/home/you").splitlines() if "#SBATCH" in line] == shown


def test_the_example_s_sweep_runs_as_batch_jobs_with_its_configuration(cluster: Cluster, tmp_path: Path) -> None:
    sweep = Path(__file__).parents[2] / "examples" / "sweep"
    text = (sweep / "slurm.yaml").read_text()
    for theirs, ours in (("partition: normal ", "partition: debug "), ("mem_per_node: 8 ", "mem_per_node: 0.5 ")):
        assert text.count(theirs) == 1
        text = text.replace(theirs, ours)
    (tmp_path / "slurm.yaml").write_text(text)
    words = ("--config", "slurm.yaml", "--targets", "2", "--draws", "400", "--promote")
    done = cluster.run("env", f"--chdir={tmp_path}", sys.executable, str(sweep / "sweep.py"), *words)
    assert any(line.startswith("4 rows in") for line in done.stdout.splitlines()), done.stdout
    assert len(list((tmp_path / "results/gallery").glob("tgt_*.json"))) == 2
    assert (tmp_path / "results/logs/build/tgt_001.log").read_text().startswith("building tgt_001")
    assert not cluster.jobs()
