"""Workflows on a real cluster: allocations that actions ask for, modes, more by hand, and a site's partitions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pilotflow.workflow.holding import holder, is_held
from tests.integration.workflow_tools import kill, marked
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for

HEAD = """\
name: staged
resource_requirements:
  - {name: wide, num_cpus: 1, num_nodes: 2, memory: 100m, runtime: PT1M}
  - {name: one, num_cpus: 1, memory: 100m, runtime: PT1M}
slurm_schedulers:
  - {name: pair, account: root, partition: debug, nodes: 2, walltime: "00:05:00"}
"""
JOBS = """\
jobs:
  - {name: "part_{i}", command: "hostname > part_{i}.txt", resource_requirements: one, parameters: {i: "1:4"}}
  - {name: both, command: "hostname >> both.txt", resource_requirements: wide, depends_on_regexes: ["part_.*"]}
"""
ACTION = "  - {trigger_type: %s, action_type: schedule_nodes, scheduler: pair, scheduler_type: slurm%s}\n"


def pilotflow(cluster: Cluster, cwd: Path, *words: str, check: bool = True, host: str = "", **variables: str) -> str:
    if not host:
        return cluster.pilotflow(*words, cwd=cwd, code=0 if check else None, **variables).stdout
    told = [f"{name}={value}" for name, value in variables.items()]
    argv = ("env", f"--chdir={cwd}", *told, sys.executable, "-m", "pilotflow", *words)
    return cluster.run(*argv, timeout_s=110, check=check, host=host).stdout


def test_an_action_s_allocation_runs_jobs_as_steps_and_one_over_its_nodes(cluster: Cluster, tmp_path: Path) -> None:
    steps = "execution_config: {srun_termination_signal: TERM@90, enable_cpu_bind: false}\n"
    (tmp_path / "w.yaml").write_text(HEAD + JOBS + steps + "actions:\n" + ACTION % ("on_workflow_start", ""))
    summary = json.loads(pilotflow(cluster, tmp_path, "run", "w.yaml", "--json"))
    assert summary["state"] == "succeeded", summary
    for number in range(1, 5):
        assert (tmp_path / f"part_{number}.txt").read_text().startswith("node")
    assert len(set((tmp_path / "both.txt").read_text().split())) == 2, "a rank on each node"
    assert not cluster.jobs()


def test_a_site_s_partitions_run_a_workflow_that_names_none(cluster: Cluster, tmp_path: Path) -> None:
    site = tmp_path / "sites" / "here.yaml"
    site.parent.mkdir()
    site.write_text(
        "name: here\npartitions: [{name: debug, cpus_per_node: 4, memory_per_node: 4000m, default: true}]\n"
    )
    (tmp_path / "w.yaml").write_text(
        'name: w\nexecution_config: {mode: direct}\njobs: [{name: a, command: "hostname > a.txt"}]\n'
    )
    said = pilotflow(
        cluster, tmp_path, "run", "w.yaml", "--json", "--site", "here", PILOTFLOW_SITE_PATH=str(site.parent)
    )
    assert json.loads(said)["state"] == "succeeded"
    assert (tmp_path / "a.txt").read_text().startswith("node")
    assert not cluster.jobs()


def test_more_allocations_can_be_asked_for_by_hand(cluster: Cluster, tmp_path: Path) -> None:
    jobs = 'jobs: [{name: a, command: "hostname > a.txt"}]\nexecution_config: {mode: direct}\n'
    each = ", start_one_worker_per_node: true"
    never = "actions:\n" + ACTION % ("on_workflow_complete", each)  # so that nothing is asked for by itself
    (tmp_path / "w.yaml").write_text(HEAD + jobs + never)
    pilotflow(cluster, tmp_path, "run", "w.yaml", "--detach")
    assert not cluster.jobs()
    argv = ("slurm", "schedule-nodes", "last", "--scheduler", "pair", "--num-hpc-jobs", "1")
    said = pilotflow(cluster, tmp_path, *argv, "--start-one-worker-per-node")
    assert "1 more block of executor 'pair' asked for." in said
    pilotflow(cluster, tmp_path, "attach", "last")
    assert (tmp_path / "a.txt").read_text().startswith("node")


def test_the_status_of_a_workflow_whose_jobs_all_wait_says_for_what(cluster: Cluster, tmp_path: Path) -> None:
    held = HEAD.replace("debug, nodes: 2,", "debug, nodes: 2, extra: '--hold',")
    (tmp_path / "w.yaml").write_text(held + JOBS + "actions:\n" + ACTION % ("on_workflow_start", ""))
    pilotflow(cluster, tmp_path, "run", "w.yaml", "--detach")
    wait_for(lambda: "JobHeld" in pilotflow(cluster, tmp_path, "status", "last"), "it is said", 60, 0.5)
    (job,) = cluster.jobs()
    assert f"awaited: pair-0 ({job}) is pending for " in pilotflow(cluster, tmp_path, "status", "last")
    cluster.run("scontrol", "release", job)
    assert json.loads(pilotflow(cluster, tmp_path, "attach", "last", "--json"))["state"] == "succeeded"
    assert "awaited" not in pilotflow(cluster, tmp_path, "status", "last")


def test_managers_on_each_node_are_not_asked_for_where_srun_starts_the_jobs(cluster: Cluster, tmp_path: Path) -> None:
    jobs = 'jobs: [{name: a, command: "true"}]\nexecution_config: {mode: slurm}\n'
    (tmp_path / "w.yaml").write_text(HEAD + jobs + "actions:\n" + ACTION % ("on_workflow_complete", ""))
    pilotflow(cluster, tmp_path, "run", "w.yaml", "--detach")
    argv = ("slurm", "schedule-nodes", "last", "--start-one-worker-per-node")
    done = cluster.pilotflow(*argv, cwd=tmp_path, code=2)
    assert done.stderr == (
        "--start-one-worker-per-node is for direct mode, and run 0001 has mode: slurm, in which srun starts jobs on all "
        "nodes. Leave it out.\n"
    )
    assert not cluster.jobs(), "nothing was asked for"
    assert "1 more block" in pilotflow(cluster, tmp_path, *argv[:-1])
    assert json.loads(pilotflow(cluster, tmp_path, "attach", "last", "--json"))["state"] == "succeeded"


@pytest.mark.parametrize("mode", ["direct", "slurm"])
def test_allocations_and_what_they_run_outlive_the_program_and_its_interchange(
    cluster: Cluster, tmp_path: Path, mode: str
) -> None:
    """One has a manager on each of its nodes (in direct mode), the other one at its head."""
    begin = 'echo "$TORC_ATTEMPT_ID $SLURM_JOB_ID" >> marks_{name}'
    each = HEAD.splitlines(keepends=True)[-1].replace("pair", "each")
    jobs = (
        f"execution_config: {{mode: {mode}}}\njobs:\n"
        f"  - {{name: 'long_{{name}}', command: '{begin}; while [ ! -e go ]; do sleep 0.2; done', "
        "parameters: {name: [pair, each]}, resource_requirements: one, scheduler: '{name}'}\n"
        "  - {name: last, command: 'true', depends_on_regexes: [long]}\n"
    )
    actions = ACTION % ("on_workflow_start", "")
    says_so = ", start_one_worker_per_node: true" if mode == "direct" else ""
    actions += ACTION.replace("pair", "each") % ("on_workflow_start", says_so)
    (tmp_path / "w.yaml").write_text(HEAD + each + jobs + "actions:\n" + actions)
    pilotflow(cluster, tmp_path, "run", "w.yaml", "--detach")
    marks = [tmp_path / "marks_pair", tmp_path / "marks_each"]
    wait_for(lambda: all(mark.exists() and mark.read_text() for mark in marks), "the long jobs run", 60)
    run = (tmp_path / "runs" / "0001").resolve()
    held = holder(run)
    assert held is not None
    cluster.run("kill", "-9", str(held.pid))
    for pid in marked(run, b"pilotflow.runtime.interchange"):
        kill(pid)
    wait_for(lambda: not is_held(run), "its program is gone", 10)
    before = [mark.read_text() for mark in marks]
    assert [mark.split()[0] for mark in before] == ["1", "1"]
    assert len(cluster.jobs()) == 2
    pilotflow(cluster, tmp_path, "resume", "last", "--detach")
    (tmp_path / "go").touch()
    assert json.loads(pilotflow(cluster, tmp_path, "attach", "last", "--json"))["state"] == "succeeded"
    assert [mark.read_text() for mark in marks] == before, "in the same allocation, once"
    assert not cluster.jobs()


def test_a_run_is_served_asked_and_told_from_other_hosts(cluster: Cluster, tmp_path: Path) -> None:
    jobs = (
        "execution_config: {mode: direct}\njobs:\n  - {name: a, command: 'hostname > a.txt'}\n"
        "  - {name: b, command: 'touch b.txt; sleep 300', depends_on: [a]}\n"
        "  - {name: c, command: 'true', depends_on: [b]}\n"
    )
    never = "actions:\n" + ACTION % ("on_workflow_complete", "")  # so that no allocation is asked for
    (tmp_path / "w.yaml").write_text(HEAD + jobs + never)
    pilotflow(cluster, tmp_path, "run", "w.yaml", "--detach")
    argv = ("env", f"--chdir={tmp_path}", sys.executable, "-m", "pilotflow", "runner", "last", "--num-cpus", "2")
    with cluster.popen(*argv, host="node1", stdout=subprocess.PIPE) as runner:
        wait_for((tmp_path / "b.txt").exists, "the job runs", 60)
        assert (tmp_path / "a.txt").read_text() == "node1\n"
        status = json.loads(pilotflow(cluster, tmp_path, "status", "last", "--json", host="node2"))
        assert status["state"] == "running"
        assert "node1" in pilotflow(cluster, tmp_path, "explain", "last", "b", host="node2")
        said = pilotflow(cluster, tmp_path, "cancel", "last", "--jobs", "b", host="node2")
        assert "Run 0001: cancelled 1 job" in said
        assert "has ended" in runner.communicate(timeout=60)[0]
    assert runner.returncode == 0
    assert json.loads(pilotflow(cluster, tmp_path, "status", "last", "--json"))["state"] == "failed"
