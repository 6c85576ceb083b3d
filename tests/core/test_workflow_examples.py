"""The examples of workflows: they are read, and mean what their authors meant."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from pilotflow.resources import NodeShape, SortMethod
from pilotflow.workflow.records import Deed, Mode, Trigger, Workflow
from pilotflow.workflow.spec import read_workflow
from tests.core.workflow_texts import EXAMPLES

GIB = 1 << 30


def example(name: str) -> Workflow:
    return read_workflow(EXAMPLES / f"{name}.yaml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*")), ids=lambda path: path.stem)
def test_an_example_is_read_written_and_read_back(path: Path) -> None:
    workflow = read_workflow(path)
    assert workflow.jobs
    assert [job.index for job in workflow.jobs] == list(range(len(workflow.jobs)))
    assert msgspec.json.decode(msgspec.json.encode(workflow), type=Workflow) == workflow


def test_requests_are_per_node_and_the_older_sort_key_is_known() -> None:
    workflow = example("resource_classes")
    small, large = (job.request for job in workflow.jobs)
    assert (small.cpus_milli, small.memory_bytes, small.gpus_milli, small.runtime_s) == (2000, 4 * GIB, 0, 1800)
    assert (large.cpus_milli, large.memory_bytes, large.gpus_milli, large.runtime_s) == (16000, 128 * GIB, 2000, 28800)
    assert workflow.sort_method is SortMethod.GPUS_RUNTIME_MEMORY


def test_jobs_are_bound_by_any_of_the_names_of_the_key() -> None:
    workflow = example("bound_to_schedulers")
    assert [job.scheduler for job in workflow.jobs] == [0, 1, None]
    assert workflow.slurm_schedulers[1].partition == "highmem"


def test_the_older_name_of_requirements_is_known() -> None:
    (job,) = example("one_node_job").jobs
    assert (job.requirements, job.request.cpus_milli, job.request.memory_bytes) == ("work_resources", 32000, 200 * GIB)


def test_parameters_add_to_jobs_that_are_written_out() -> None:
    workflow = example("equal_jobs")
    assert [job.name for job in workflow.jobs] == [f"process_file_{number}" for number in range(1, 101)]
    assert workflow.jobs[99].command == "./process.sh file100.txt"
    assert workflow.stages == ("process_file_1", "process_file_2", "process_file_{i}")


def test_many_jobs_share_an_allocation_of_several_nodes() -> None:
    workflow = example("parallel_analysis")
    assert len(workflow.jobs) == 100
    assert workflow.execution.mode is Mode.AUTO
    assert {job.scheduler for job in workflow.jobs} == {0}
    assert (workflow.slurm_schedulers[0].nodes, workflow.slurm_schedulers[0].walltime_s) == (4, 8 * 3600)
    (action,) = workflow.actions
    assert (action.trigger, action.deed, action.scheduler) == (Trigger.ON_WORKFLOW_START, Deed.SCHEDULE_NODES, 0)
    assert (action.num_allocations, action.start_one_worker_per_node) == (1, False)


def test_direct_mode_starts_a_manager_on_each_node() -> None:
    workflow = example("parallel_analysis_direct")
    assert workflow.execution.mode is Mode.DIRECT
    assert workflow.actions[0].start_one_worker_per_node
    assert not workflow.warnings


def test_many_small_allocations_are_asked_for_by_number() -> None:
    workflow = example("many_small_allocations")
    assert (workflow.actions[0].num_allocations, workflow.slurm_schedulers[0].nodes) == (4, 1)


@pytest.mark.parametrize(
    ("name", "mode", "command"),
    [
        ("distributed_training", Mode.AUTO, "python -m torch.distributed.run train.py"),
        ("distributed_training_mpi", Mode.DIRECT, "mpirun python train.py"),
    ],
)
def test_a_job_spans_all_nodes_of_its_allocation(name: str, mode: Mode, command: str) -> None:
    workflow = example(name)
    (job,) = workflow.jobs
    assert (workflow.execution.mode, job.command) == (mode, command)
    assert (job.request.num_nodes, job.request.cpus_milli, job.request.ranks_per_node) == (4, 32000, 1)
    assert not workflow.warnings


def test_a_stage_gets_its_allocation_when_its_jobs_are_ready() -> None:
    workflow = example("preprocess_then_train")
    train = workflow.jobs[8]
    assert (train.name, train.depends_on) == ("train", tuple(range(8)))
    first, second = workflow.actions
    assert (first.trigger, first.scheduler, first.jobs) == (Trigger.ON_WORKFLOW_START, 0, ())
    assert (second.trigger, second.scheduler, second.jobs) == (Trigger.ON_JOBS_READY, 1, (8,))


def test_every_kind_of_reference_makes_its_edges() -> None:
    workflow = example("diamond")
    names = [job.name for job in workflow.jobs]
    assert names == ["fetch", "part_1", "part_2", "whole", "count", "report"]
    after = {job.name: [names[index] for index in job.depends_on] for job in workflow.jobs}
    assert after == {
        "fetch": [],
        "part_1": ["fetch"],
        "part_2": ["fetch"],
        "whole": ["part_1", "part_2"],
        "count": ["whole"],
        "report": ["count"],
    }
    assert workflow.jobs[1].command == "python3 tool.py part 1 < raw.txt > 'part 1.txt'"
    assert workflow.jobs[0].command == "python3 tool.py fetch --settings '${user_data.input.settings}' > raw.txt"
    assert (workflow.jobs[3].env, workflow.jobs[0].env) == ((("STAGE", "last"),), (("STAGE", "test"),))
    assert workflow.actions[0].jobs == (1, 2)
    assert [rule.max_attempts for rule in workflow.failure_handlers[0].rules] == [2, 3]


NODE = NodeShape(cpus_milli=64_000, memory_bytes=256 * GIB)


def test_totals_instead_of_values_per_node_are_pointed_out_with_the_right_lines() -> None:
    (warned,) = read_workflow(EXAMPLES / "totals_wrong.yaml", nodes=[NODE]).warnings
    assert "num_cpus is 128, more than the 64 that any node" in warned.text
    assert "memory is 512 GiB, more than the 256 GiB" in warned.text
    assert warned.text.endswith("so write `num_cpus: 32` and `memory: 128g`.")
    assert warned.at.line == 4
    assert not read_workflow(EXAMPLES / "totals_right.yaml", nodes=[NODE]).warnings


def test_a_launcher_in_a_command_of_slurm_mode_is_pointed_out_with_the_right_line() -> None:
    first, second = example("nested_launchers").warnings
    assert first.text.startswith("in slurm mode srun starts this job already")
    assert all("Write `command: python train.py`" in each.text for each in (first, second))
    assert "execution_config: {mode: direct}" in second.text
