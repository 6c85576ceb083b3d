"""One manager at the head of an allocation: what becomes of its jobs when it is killed, and of nodes that idle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest

from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.test_workflows import pilotflow

KILLED = """\
name: killed
execution_config: {mode: direct}
resource_requirements:
  - {name: one, num_cpus: 1, memory: 100m, runtime: PT2M}
  - {name: wide, num_cpus: 1, num_nodes: 2, memory: 100m, runtime: PT2M}
jobs:
  - name: "single_{i}"
    command: "echo begun >> single_{i}; [ -e go_single ] || SLEEP; hostname > out_{i}"
    resource_requirements: one
    parameters: {i: "1:3"}
  - name: both
    command: "echo begun >> both; [ -e go_both ] || srun --overlap --mem=0 -n2 -N2 SLEEP; srun --overlap --mem=0 -n2 -N2 hostname > out_both"
    resource_requirements: wide
    depends_on_regexes: ["single_.*"]
slurm_schedulers:
  - {name: pair, account: root, partition: debug, nodes: 2, walltime: "00:05:00"}
actions:
  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: pair, scheduler_type: slurm}
"""


def sleeping(seconds: str) -> int:
    """How many processes sleep for so long, on all nodes."""
    commands = (list(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"]))
    return sum(len(words) == 2 and words[0].endswith("sleep") and words[1] == seconds for words in commands)


def kill_manager(cluster: Cluster) -> None:
    """SIGKILL to the manager at the head of the one allocation, and to nothing else."""
    (head,) = cluster.run("squeue", "-h", "-t", "running", "-o", "%B").stdout.split()
    found = cluster.run("pgrep", "-o", "-f", "pilotflow.runtime.manager import main", host=head).stdout.split()
    cluster.run("kill", "-KILL", *found, host=head)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("victims", ["both", pytest.param("single", marks=pytest.mark.soak)])
def test_jobs_of_a_killed_manager_of_several_nodes_run_again_and_leave_nothing_on_any_node(
    cluster: Cluster, tmp_path: Path, victims: str
) -> None:
    seconds = f"{500 + os.getpid() / 1e7}"
    (tmp_path / "w.yaml").write_text(KILLED.replace("SLEEP", f"sleep {seconds}"))
    (tmp_path / f"go_{'both' if victims == 'single' else 'single'}").touch()
    pilotflow(cluster, tmp_path, "run", "w.yaml", "--detach")
    wait_for(lambda: sleeping(seconds) == (3 if victims == "single" else 2), "they work", 60)
    (block,) = cluster.jobs()
    (tmp_path / f"go_{victims}").touch()
    kill_manager(cluster)
    wait_for(lambda: not sleeping(seconds), "nothing of them is left on either node", 60)
    wait_for(lambda: block not in cluster.jobs(), "the block without its manager ends", 60)
    summary = json.loads(pilotflow(cluster, tmp_path, "attach", "last", "--json"))
    assert summary["state"] == "succeeded", summary
    begun = {
        name: (tmp_path / name).read_text().count("begun") for name in ("single_1", "single_2", "single_3", "both")
    }
    assert begun == {name: 2 if name.startswith(victims) else 1 for name in begun}
    assert all((tmp_path / f"out_{i}").read_text().startswith("node") for i in (1, 2, 3))
    assert len(set((tmp_path / "out_both").read_text().split())) == 2
    assert not cluster.jobs()
