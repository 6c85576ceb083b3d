"""Jobs over several real nodes whose commands start their processes themselves, in direct mode."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.integration import mpi_tools
from tests.integration.test_mpi import ALLREDUCE
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.test_workflows import pilotflow

WORKFLOW = """\
name: own_launchers
execution_config: {mode: direct}
env: {OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1", TMPDIR: /tmp}
resource_requirements:
  - {name: pair, num_cpus: 2, num_nodes: 2, memory: 100m, runtime: PT1M}
  - {name: ranks, num_cpus: 2, num_nodes: 2, ranks_per_node: 1, memory: 100m, runtime: PT1M}
  - {name: one, num_cpus: 3, memory: 100m, runtime: PT1M}
jobs:
  - name: "pair_{i}"
    command: |
      echo $PILOTFLOW_NODES > nodes_{i}
      hostname >> head_{i}
      mpirun ./allreduce > sums_{i} && mpirun hostname > mpirun_{i} && mpirun -np 2 --map-by node hostname > two_{i} &&
      srun hostname > srun_{i} && srun --ntasks=2 --ntasks-per-node=1 hostname > each_{i}
    resource_requirements: pair
    parameters: {i: "1:4"}
  - name: "single_{i}"
    command: "hostname > single_{i}; while [ $(ls single_* | wc -l) -lt SINGLE_NODES ]; do sleep 0.2; done"
    resource_requirements: one
    priority: 1
    parameters: {i: "1:4"}
  - {name: ours, command: "hostname >> ours", resource_requirements: ranks}
slurm_schedulers:
  - {name: four, account: root, partition: debug, nodes: 4, walltime: "00:05:00"}
actions:
  - trigger_type: on_workflow_start
    action_type: schedule_nodes
    scheduler: four
    scheduler_type: slurm
    start_one_worker_per_node: ONE_PER_NODE
  - {trigger_type: on_worker_start, action_type: run_commands, commands: ["echo >> managers"], persistent: true}
"""


@pytest.mark.parametrize(("start_one_worker_per_node", "single_nodes"), [("false", 1), ("true", 4)])
def test_a_command_is_started_once_and_its_mpirun_and_srun_use_the_job_s_nodes(
    cluster: Cluster, tmp_path: Path, start_one_worker_per_node: str, single_nodes: int
) -> None:
    mpi_tools.plain_openmpi()
    source = tmp_path / "allreduce.c"
    source.write_text(ALLREDUCE)
    argv = [mpi_tools.openmpi_compiler(), str(source), "-o", str(tmp_path / "allreduce")]
    subprocess.run(argv, check=True, timeout=60)
    text = WORKFLOW.replace("ONE_PER_NODE", start_one_worker_per_node)
    (tmp_path / "w.yaml").write_text(text.replace("SINGLE_NODES", str(single_nodes)))
    said = pilotflow(cluster, tmp_path, "run", "w.yaml", "--json", check=False)
    outputs = {path.name: path.read_text() for path in (tmp_path / "runs").glob("*/jobs/*.err")}
    assert json.loads(said)["state"] == "succeeded", (said, outputs)

    def words(name: str) -> list[str]:
        return (tmp_path / name).read_text().split()

    for number in range(1, 5):
        nodes = words(f"nodes_{number}")[0].split(",")
        assert len(set(nodes)) == 2
        assert words(f"head_{number}") == nodes[:1], "once, on the first of its nodes"
        assert sorted(words(f"mpirun_{number}")) == sorted(2 * nodes)
        assert sorted(words(f"two_{number}")) == sorted(nodes)
        assert sorted(words(f"srun_{number}")) == sorted(2 * nodes)
        assert sorted(words(f"each_{number}")) == sorted(nodes)
        sums = [json.loads(line) for line in (tmp_path / f"sums_{number}").read_text().splitlines()]
        assert sorted(line["rank"] for line in sums) == [0, 1, 2, 3]
        assert {line["sum"] for line in sums} == {6}
    assert len(set(words("ours"))) == 2, "ranks_per_node is written: the launcher starts a process on each"
    single = {node for number in range(1, 5) for node in words(f"single_{number}")}
    assert len(single) == single_nodes
    assert len((tmp_path / "managers").read_text().splitlines()) == single_nodes
    heads = {node for number in range(1, 5) for node in words(f"head_{number}")}
    assert heads == single if single_nodes == 1 else heads <= single, (
        "without a manager on each node all is at the head"
    )
    assert not list((tmp_path / "runs").glob("*/tasks/*.nodes")), "host files are gone"


LATE = """\
name: late
execution_config: {mode: direct, sigterm_lead_seconds: 1}
env: {OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1", TMPDIR: /tmp}
resource_requirements:
  - {name: short, num_nodes: 4, runtime: PT3S}
  - {name: wide, num_nodes: 4, runtime: PT1M}
jobs:
  - {name: deaf, command: "trap '' TERM; mpirun SLEEP || true; SLEEP", resource_requirements: short}
  - {name: killed, command: "touch begun; mpirun SLEEP", resource_requirements: wide, priority: 5}
  - {name: after, command: "mpirun hostname > after", resource_requirements: wide, depends_on: [deaf], cancel_on_blocking_job_failure: false}
slurm_schedulers:
  - {name: four, account: root, partition: debug, nodes: 4, walltime: "00:05:00"}
"""


def test_what_mpirun_has_started_on_other_nodes_is_ended_with_its_job(cluster: Cluster, tmp_path: Path) -> None:
    mpi_tools.plain_openmpi()
    sleep = f"sleep {600 + os.getpid() / 1e7}"
    (tmp_path / "w.yaml").write_text(LATE.replace("SLEEP", sleep))

    def sleeping() -> int:
        return sum(" ".join(each.info["cmdline"] or ()) == sleep for each in psutil.process_iter(["cmdline"]))

    pilotflow(cluster, tmp_path, "run", "w.yaml", "--detach")
    wait_for(lambda: (tmp_path / "begun").exists() and sleeping() == 4, "mpirun has started a process on each node", 60)
    pilotflow(cluster, tmp_path, "cancel", "last", "--jobs", "killed")
    pilotflow(cluster, tmp_path, "attach", "last", check=False)
    states = {job["name"]: job["state"] for job in json.loads(pilotflow(cluster, tmp_path, "jobs", "last", "--json"))}
    assert states == {"deaf": "terminated", "killed": "cancelled", "after": "completed"}
    assert len(set((tmp_path / "after").read_text().split())) == 4
    wait_for(lambda: not sleeping(), "nothing is left of them", 60)
