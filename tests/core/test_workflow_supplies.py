"""Where a workflow's jobs run: executors from its schedulers, its actions, a site, or this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.launchers.one_head import OneHeadLauncher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.supplies import shape_of
from pilotflow.workflow.options import RunOptions
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.spec import read_workflow
from pilotflow.workflow.supplies import Supplies

TEXT = """\
name: staged
jobs:
  - {name: a, command: "true", scheduler: big}
  - {name: b, command: "true", scheduler: small nodes}
  - {name: c, command: "true"}
slurm_schedulers:
  - {name: big, account: x, nodes: 4, walltime: "02:00:00"}
  - {name: small nodes, account: x, walltime: "01:00:00"}
actions:
  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: big, scheduler_type: slurm, num_allocations: 2}
  - {trigger_type: on_jobs_complete, jobs: [a], action_type: schedule_nodes, scheduler: big, scheduler_type: slurm, max_parallel_jobs: 8}
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Workflow:
    path = tmp_path / "w.yaml"
    path.write_text(TEXT)
    return read_workflow(path)


def test_schedulers_and_what_actions_make_of_them_are_executors(workflow: Workflow) -> None:
    supplies = Supplies(workflow, RunOptions(slurm=True, local=False))
    big, deep, small = supplies.config().block_executors
    assert [executor.label for executor in (big, deep, small)] == ["big", "big.8", "small_nodes"]
    assert (big.mode, big.max_parallel_jobs, deep.max_parallel_jobs) == ("slurm", None, 8)
    assert isinstance(big.provider, SlurmProvider)
    assert (big.provider.nodes_per_block, big.provider.walltime_s, big.provider.max_blocks) == (4, 7200, 0)
    assert small.provider.max_blocks == 1, "no action asks for it: it grows by what its jobs are worth"


def test_jobs_are_bound_to_their_schedulers_and_actions_mean_theirs(workflow: Workflow) -> None:
    supplies = Supplies(workflow, RunOptions(slurm=True, local=False))
    assert [supplies.bindings(job) for job in workflow.jobs] == [("big", "big.8"), ("small_nodes",), ()]
    assert [supplies.of_action(action) for action in workflow.actions] == ["big", "big.8"]
    assert supplies.of_scheduler("big", 8) == "big.8"
    assert supplies.of_scheduler("big", 9) is None


DIRECT = """\
name: w
execution_config: {mode: direct, srun_mpi: pmix}
jobs: [{name: a, command: "true", scheduler: s}]
slurm_schedulers: [{name: s, nodes: 4}, {name: one, nodes: 1}, {name: own, nodes: 4}]
actions:
  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s}
  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: one}
  - {trigger_type: on_workflow_complete, action_type: schedule_nodes, scheduler: s, max_parallel_jobs: 3}
"""
EACH = "  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, start_one_worker_per_node: true}\n"


def test_in_direct_mode_an_action_s_allocations_have_one_manager_unless_it_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(DIRECT)
    supplies = Supplies(read_workflow(path), RunOptions(slurm=True, local=False))
    shapes = {one.label: shape_of(one) for one in supplies.config().block_executors}
    kinds = {label: (shape.nodes, shape.one_head) for label, shape in shapes.items()}
    assert kinds == {"s": (4, True), "one": (1, False), "s.3": (4, True), "own": (4, False)}
    launchers = {one.label: one.launcher for one in supplies.config().block_executors}
    assert launchers["s"] == OneHeadLauncher(mpi="pmix")
    assert launchers["s.3"].wrap(["manager"], 4) == launchers["s"].wrap(["manager"], 1), "once for all nodes"
    assert launchers["own"] == SrunLauncher(mpi="pmix"), "nobody's action asks for it"
    assert supplies.of_scheduler("s", None) == "s"
    assert supplies.of_scheduler("s", None, each=True) is None


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("{mode: slurm}", ()),
        ("{mode: slurm, enable_cpu_bind: true}", ()),
        ("{srun_termination_signal: TERM@90, enable_cpu_bind: false}", ("--signal=TERM@90", "--cpu-bind=none")),
        ("{mode: direct}", ()),
    ],
)
def test_what_a_file_says_about_steps_is_told_to_their_srun(
    tmp_path: Path, said: str, options: tuple[str, ...]
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        f"name: w\nexecution_config: {said}\njobs: [{{name: a, command: x}}]\nslurm_schedulers: [{{name: s}}]\n"
    )
    (executor,) = Supplies(read_workflow(path), RunOptions(slurm=True, local=False)).config().block_executors
    assert executor.launcher == SrunLauncher(options=options)


@pytest.mark.parametrize(("line", "min_time_s"), [("", None), ("compute_node_min_time_for_new_jobs_seconds: 90", 90.0)])
def test_how_much_must_be_left_for_a_job_without_a_runtime_is_told_to_all_executors(
    tmp_path: Path, line: str, min_time_s: float | None
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(f"name: w\n{line}\njobs: [{{name: a, command: x}}]\nslurm_schedulers: [{{name: s}}]\n")
    supplies = Supplies(read_workflow(path), RunOptions(slurm=True, local=True))
    assert {each.min_time_s for each in supplies.config().block_executors} == {min_time_s}


def test_both_kinds_of_a_scheduler_s_allocations_are_executors_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(DIRECT + EACH)
    workflow = read_workflow(path)
    supplies = Supplies(workflow, RunOptions(slurm=True, local=False))
    assert [supplies.of_action(action) for action in workflow.actions] == ["s.head", "one", "s.3", "s"]
    assert supplies.bindings(workflow.jobs[0]) == ("s.head", "s.3", "s")
    assert (supplies.of_scheduler("s", None), supplies.of_scheduler("s", None, each=True)) == ("s.head", "s")
    assert supplies.of_scheduler("own", None) == "own"


def test_on_this_machine_schedulers_mean_nothing(workflow: Workflow) -> None:
    supplies = Supplies(workflow, RunOptions(num_cpus=3))
    (here,) = supplies.config().block_executors
    assert (here.label, here.num_cpus, here.provider.max_blocks) == ("local", 3, 1)
    assert [supplies.bindings(job) for job in workflow.jobs] == [(), (), ()]
    assert [supplies.of_action(action) for action in workflow.actions] == [None, None]


def test_a_site_s_executors_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text('name: w\njobs: [{name: a, command: "true", executors: [gpu]}, {name: b, command: "true"}]\n')
    site = Config(
        executors=[ExecutorConfig(label=label, provider=SlurmProvider()) for label in ("cpu", "gpu")], retries=3
    )
    supplies = Supplies(read_workflow(path), RunOptions(slurm=True, local=False), site)
    assert ([executor.label for executor in supplies.config().block_executors], supplies.config().retries) == (
        ["cpu", "gpu"],
        3,
    )
    assert [supplies.bindings(job) for job in read_workflow(path).jobs] == [("gpu",), ()]


def test_idle_blocks_end_when_the_workflow_says_so_though_they_are_young(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(f"{TEXT}compute_node_wait_for_new_jobs_seconds: 2\n")
    workflow = read_workflow(path)
    config = Supplies(workflow, RunOptions(slurm=True, local=False)).config()
    assert (config.max_idletime_s, config.min_block_life_s) == (2, 2)
    site = Config(executors=[ExecutorConfig(label="cpu")], max_idletime="1h")
    of_site = Supplies(workflow, RunOptions(settings={"site": "here"}), site).config()
    assert (of_site.max_idletime_s, of_site.min_block_life_s) == (2, 2)
    said = Supplies(workflow, RunOptions(settings={"max_idletime": "1h"}), site).config()
    assert (said.max_idletime_s, said.min_block_life_s) == (3600, 30), "the command line comes before the file"
    long = tmp_path / "long.yaml"
    long.write_text(f"{TEXT}compute_node_wait_for_new_jobs_seconds: 600\n")
    config = Supplies(read_workflow(long), RunOptions(slurm=True, local=False)).config()
    assert (config.max_idletime_s, config.min_block_life_s) == (600, 30)
