"""Slurm schedulers of workflows become providers, whose batch scripts say what the file says."""

from __future__ import annotations

from pathlib import Path

from pilotflow.workflow.allocations import allocations_of, batch_heads, slurm_provider
from tests.core.workflow_texts import read

TEXT = """\
name: w
slurm_defaults: {account: shared, constraint: "fast&new", mail-user: "a b", exclusive: true, qos: low, ntasks-per-node: 2}
slurm_schedulers:
  - {name: plain}
  - {name: full, account: mine, partition: gpu, qos: high, gres: "gpu:2", mem: 128G, tmp: 10G, nodes: 4, walltime: "1-12:00:00",
     ntasks_per_node: 3, serialize_allocations: true, extra: "--licenses=x\\n--nice"}
jobs: [{name: a, command: x}]
actions:
  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: full, scheduler_type: slurm, num_allocations: 3}
  - {trigger_type: on_jobs_complete, jobs: [a], action_type: schedule_nodes, scheduler: full, scheduler_type: slurm}
"""


def test_a_scheduler_becomes_a_provider_that_asks_for_nothing_by_itself(tmp_path: Path) -> None:
    workflow = read(tmp_path, TEXT)
    provider = slurm_provider(workflow.slurm_schedulers[1], allocations_of(workflow, 1))
    assert (provider.partition, provider.account, provider.qos, provider.gres) == ("gpu", "mine", "high", "gpu:2")
    assert (provider.nodes_per_block, provider.walltime_s) == (4, 36 * 3600)
    assert (provider.init_blocks, provider.min_blocks, provider.max_blocks) == (0, 0, 4)


def test_batch_scripts_have_the_defaults_where_a_scheduler_says_nothing(tmp_path: Path) -> None:
    heads = batch_heads(read(tmp_path, TEXT))
    plain, full = heads["plain"], heads["full"]
    for line in (
        "--account=shared",
        "--qos=low",
        "--constraint=fast&new",
        '--mail-user="a b"',
        "--exclusive",
        "--ntasks-per-node=2",
        "--time=01:00:00",
    ):
        assert f"#SBATCH {line}" in plain
    for line in (
        "--account=mine",
        "--qos=high",
        "--partition=gpu",
        "--nodes=4",
        "--time=36:00:00",
        "--mem=128G",
        "--tmp=10G",
        "--ntasks-per-node=3",
    ):
        assert f"#SBATCH {line}" in full
    assert full[-4:] == [
        "#SBATCH --job-name=pilotflow:full", "#SBATCH --dependency=singleton", "#SBATCH --licenses=x", "#SBATCH --nice",
    ]  # fmt: skip
    assert not [line for line in full if "--qos=low" in line or "--account=shared" in line or line.endswith("-node=2")]
