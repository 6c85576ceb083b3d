"""What runs but is usually not meant is pointed out, with what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.config.site import Partition
from pilotflow.errors import ConfigError
from pilotflow.resources import NodeShape
from pilotflow.workflow.spec import read_workflow
from tests.core.workflow_texts import warnings

GIB = 1 << 30
NODES = (NodeShape(cpus_milli=64_000, memory_bytes=256 * GIB), NodeShape(cpus_milli=32_000, memory_bytes=512 * GIB))


def one(folder: Path, text: str, nodes: tuple[NodeShape, ...] = ()) -> str:
    (found,) = warnings(folder, text, nodes)
    return found


def with_requirements(values: str, more: str = "") -> str:
    return f"name: w\nresource_requirements: [{{name: r, {values}}}]\njobs: [{{name: a, command: mpi_solve, resource_requirements: r}}]\n{more}"


def test_more_than_the_largest_known_node_has_is_a_total(tmp_path: Path) -> None:
    found = one(tmp_path, with_requirements("num_cpus: 100, memory: 300g, num_nodes: 2"), NODES)
    assert "num_cpus is 100, more than the 64 that any node that is known here has" in found
    assert "memory" not in found
    assert found.endswith("for each of the 2 nodes, so write `num_cpus: 50`.")


def test_what_does_not_fit_on_one_node_is_not_divided_for_the_user(tmp_path: Path) -> None:
    found = one(tmp_path, with_requirements("num_cpus: 100"), NODES)
    assert found.endswith(
        "Values are for each node. To spread a job over several, write `num_nodes` and what each of them gives."
    )


def test_without_known_nodes_only_what_no_node_can_have_is_pointed_out(tmp_path: Path) -> None:
    assert not warnings(tmp_path, with_requirements("num_cpus: 512, memory: 4t, num_nodes: 4"))
    assert "more than the 16 TiB that any node has" in one(tmp_path, with_requirements("memory: 64t, num_nodes: 8"))
    unknown = (NodeShape(cpus_milli=8000), NodeShape())
    assert not warnings(tmp_path, with_requirements("num_cpus: 512"), unknown)


@pytest.mark.parametrize(
    ("command", "right"),
    [
        ("srun --mpi=pmix python train.py", "python train.py"),
        ("srun -n 4 -c 2 --exact ./solve -n 5", "./solve -n 5"),
        ("cd x && mpirun -np 8 --bind-to core ./solve | tee log", "cd x && ./solve | tee log"),
        ("/usr/bin/mpiexec ./solve", "./solve"),
    ],
)
def test_a_launcher_inside_a_step_is_pointed_out(command: str, right: str, tmp_path: Path) -> None:
    text = f"name: w\nexecution_config: {{mode: slurm}}\njobs: [{{name: a, command: '{command}'}}]\n"
    found = one(tmp_path, text)
    assert f"Write `command: {right}`" in found
    assert not warnings(tmp_path, text.replace("slurm", "direct"))


def test_the_word_srun_is_no_launcher_everywhere(tmp_path: Path) -> None:
    text = "name: w\nexecution_config: {mode: slurm}\njobs: [{name: a, command: 'echo srun is better than mpirun'}]\n"
    assert not warnings(tmp_path, text)


def test_in_auto_mode_a_launcher_is_pointed_out_where_allocations_are_asked_for(tmp_path: Path) -> None:
    text = "name: w\njobs: [{name: a, command: mpirun ./x}]\n"
    assert not warnings(tmp_path, text)
    assert "inside an allocation srun starts this job already" in one(
        tmp_path, f"{text}slurm_schedulers: [{{name: s}}]\n"
    )


def test_in_direct_mode_a_command_that_is_started_too_often_or_on_too_few_nodes_is_pointed_out(tmp_path: Path) -> None:
    text = (
        "name: w\nexecution_config: {mode: direct}\nresource_requirements: [{name: r, num_nodes: 2}]\n"
        "jobs: [{name: a, command: mpirun ./solve, resource_requirements: r}]\n"
    )
    assert not warnings(tmp_path, text)
    ranks = text.replace("num_nodes: 2", "num_nodes: 2, ranks_per_node: 1")
    assert one(tmp_path, ranks).endswith("Leave `ranks_per_node` out to start it once.")
    assert not warnings(tmp_path, ranks.replace("mpirun ./solve", "torchrun train.py"))
    torch = text.replace("mpirun ./solve", "torchrun train.py")
    assert one(tmp_path, torch).endswith("Write `ranks_per_node: 1` to start it on each.")
    assert not warnings(tmp_path, torch.replace("torchrun", "srun torchrun"))
    assert not warnings(tmp_path, torch.replace("mode: direct", "mode: slurm"))


def test_independent_jobs_on_many_nodes_are_pointed_out(tmp_path: Path) -> None:
    text = (
        "name: w\nresource_requirements: [{name: r, num_nodes: 2}]\n"
        "jobs: [{name: 'a{i}', command: ./one, resource_requirements: r, parameters: {i: '1:3'}}]\n"
    )
    assert "each of these 3 jobs takes 2 whole nodes" in one(tmp_path, text)
    assert not warnings(tmp_path, text.replace("./one", "mpi_solve"))
    assert not warnings(tmp_path, text.replace("./one", "torchrun x.py"))
    assert not warnings(tmp_path, text.replace("1:3", "1:1"))


def test_jobs_that_fit_into_no_allocation_of_their_scheduler_are_pointed_out(tmp_path: Path) -> None:
    text = (
        "name: w\nslurm_schedulers: [{name: s, nodes: 2, walltime: 1h}]\nresource_requirements: [{name: r, num_nodes: 4, runtime: 2h}]\n"
        "jobs: [{name: a, command: mpi_x, resource_requirements: r, scheduler: s}]\n"
    )
    first, second = warnings(tmp_path, text)
    assert "this job may run 2h, but allocations of 's' live 1h" in first
    assert (
        "this job spans 4 nodes, but allocations of 's' have 2, so it would wait forever. Write `nodes: 4` there."
        in second
    )


PARTITIONS = (
    Partition(name="short", cpus_per_node=64, memory_per_node="256g", max_walltime="4h", max_nodes=8, default=True),
    Partition(
        name="gpu", cpus_per_node=32, memory_per_node="128g", gpus_per_node=4, max_walltime="2-00:00:00", min_nodes=2
    ),
)


def test_what_partitions_do_not_give_is_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("""\
name: w
resource_requirements: [{name: r, num_cpus: 48, memory: 200g, num_gpus: 2}, {name: fine, num_cpus: 8}]
slurm_schedulers:
  - {name: default, nodes: 9, walltime: 5h}
  - {name: gpu, partition: gpu}
  - {name: typo, partition: gppu}
jobs:
  - {name: a, command: x, resource_requirements: r, scheduler: gpu}
  - {name: b, command: x, resource_requirements: fine, scheduler: default}
""")
    found = [f"{each.at.line}: {each.text}" for each in read_workflow(path, partitions=PARTITIONS).warnings]
    lacking = "48 cores of 32; 200 GiB of 128 GiB."
    assert found == [
        f"2: requirements 'r' fit on no node of partition 'gpu', where jobs like 'a' go by their scheduler: {lacking}",
        "4: 9 nodes are more than one batch job of partition 'short' may have, 8. Write `nodes: 8`, and more allocations.",
        "4: 5h is more than batch jobs of partition 'short' may run, 4h.",
        "5: one batch job of partition 'gpu' must have 2 nodes at least, not 1. Write `nodes: 2`.",
        "6: this site has no partition 'gppu' (did you mean 'gpu'?). Valid: short, gpu.",
    ]


def test_unbound_jobs_among_different_schedulers_need_an_order(tmp_path: Path) -> None:
    text = "name: w\njobs_sort_method: none\nslurm_schedulers: [{name: s, partition: a}, {name: t, partition: b}]\njobs: [{name: a, command: x}]\n"
    assert "1 job without a scheduler may go to any, and they differ" in one(tmp_path, text)
    assert not warnings(tmp_path, text.replace("none", "gpus_runtime_memory"))


def test_a_job_on_several_nodes_where_jobs_are_limited_by_number_is_pointed_out(tmp_path: Path) -> None:
    action = "{trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, scheduler_type: slurm%s}"
    text = (
        "name: w\nslurm_schedulers: [{name: s, nodes: 4}]\nresource_requirements: [{name: wide, num_nodes: 2}]\n"
        "jobs: [{name: a, command: x, resource_requirements: wide, scheduler: s}]\n"
        f"actions: [{action % ', max_parallel_jobs: 8'}]\n"
    )
    assert "this job spans 2 nodes, but all actions that ask for 's' say `max_parallel_jobs`" in one(tmp_path, text)
    assert not warnings(tmp_path, text.replace("actions: [", f"actions: [{action % ''}, "))


def test_idle_nodes_of_direct_mode_are_pointed_out(tmp_path: Path) -> None:
    text = (
        "name: w\nexecution_config: {mode: direct}\nslurm_schedulers: [{name: s, nodes: 4}]\njobs: [{name: a, command: x}]\n"
        "actions: [{trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, scheduler_type: slurm}]\n"
    )
    said = one(tmp_path, text)
    assert "these 4 nodes have one manager, on the first of them: 1 single-node job can run on that node alone" in said
    assert "For a manager on each node write `start_one_worker_per_node: true`." in said
    assert not warnings(tmp_path, text.replace("slurm}", "slurm, start_one_worker_per_node: true}"))
    assert not warnings(tmp_path, text.replace("nodes: 4", "nodes: 1"))


@pytest.mark.parametrize(("nodes", "pointed_out"), [(4, False), (3, False), (2, True)])
def test_jobs_on_several_nodes_that_could_run_beside_each_other_are_pointed_out(
    tmp_path: Path, nodes: int, pointed_out: bool
) -> None:
    text = (
        "name: w\nexecution_config: {mode: direct}\nslurm_schedulers: [{name: s, nodes: 4}]\n"
        f"resource_requirements: [{{name: wide, num_nodes: {nodes}}}]\n"
        "jobs: [{name: 'a{i}', command: mpirun x, resource_requirements: wide, parameters: {i: '1:2'}}]\n"
        "actions: [{trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, scheduler_type: slurm}]\n"
    )
    found = warnings(tmp_path, text)
    assert ["2 jobs on fewer nodes run one after another" in each for each in found] == [True] * pointed_out


def test_a_manager_on_each_node_makes_the_mode_direct_where_none_is_said(tmp_path: Path) -> None:
    text = (
        "name: w\nslurm_schedulers: [{name: s, nodes: 4}]\njobs: [{name: a, command: x}]\nactions:\n"
        "  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, start_one_worker_per_node: true}\n"
    )
    assert "so this workflow runs in direct mode" in one(tmp_path, text)


def test_time_that_is_never_left_of_an_allocation_is_an_error_where_it_is_written(tmp_path: Path) -> None:
    text = "name: w\njobs: [{name: a, command: x}]\ncompute_node_min_time_for_new_jobs_seconds: 600\n"
    assert not warnings(tmp_path, text + "slurm_schedulers: [{name: s, walltime: PT601S}]\n")
    with pytest.raises(
        ConfigError, match=r"w\.yaml:3:45: so much is never left of allocations of 's', which last 10m\."
    ):
        warnings(tmp_path, text + "slurm_schedulers: [{name: s, walltime: PT10M}]\n")


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    text = (
        "name: w\naccess_groups: [x]\nslurm_defaults: {exclusive: [1]}\nexecution_config: {sigkill_headroom_seconds: 9}\n"
        "resource_monitor: {enabled: true}\n"
        "jobs: [{name: a, command: x}]\n"
        "actions: [{trigger_type: on_workflow_start, action_type: run_commands, commands: [x], jobs: [a], max_parallel_jobs: 2}]\n"
    )
    found = warnings(tmp_path, text)
    assert [each.partition(": ")[2].partition(" ")[0] for each in found] == [
        "`access_groups`", "exclusive:", "`sigkill_headroom_seconds`", "`resource_monitor`",
        "`on_workflow_start`", "`max_parallel_jobs`",
    ]  # fmt: skip
    assert "has no effect here: cores and memory of every job are measured, see `pilotflow resources`." in found[3]
