"""Large workflows: little memory a job, and no work that grows with the square of anything."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pilotflow.workflow.order import levels
from pilotflow.workflow.spec import read_workflow


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_a_job_from_parameters_takes_less_than_a_kibibyte(
    count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "name: w\nparameters: {i: '1:COUNT'}\nresource_requirements: [{name: r, num_cpus: 1, memory: 1g, runtime: PT10M}]\n"
        "files: [{name: 'out_{i}', path: 'out_{i:06d}.txt', use_parameters: [i]}]\n"
        "jobs:\n  - {name: prep, command: 'true'}\n"
        "  - {name: 'work_{i}', command: 'python run.py --index {i} --out ${files.output.out_{i}}', resource_requirements: r, "
        "depends_on: [prep], use_parameters: [i]}\n"
        "  - {name: post, command: 'true', input_file_regexes: ['^out_']}\n".replace("COUNT", str(count))
    )
    read_workflow(path)  # what is imported and cached is not a job's
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    workflow = read_workflow(path)
    gc.collect()
    used = (tracemalloc.get_traced_memory()[0] - before) / len(workflow.jobs)
    tracemalloc.stop()
    record_property("count", count)
    print(f"{used:.0f} bytes a job, its file among them")
    assert used < 1024
    assert len(workflow.jobs[-1].depends_on) == count


@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_jobs_that_are_written_out_are_read_with_their_places(
    count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = tmp_path / "w.yaml"
    lines = ["name: w", "jobs:", "  - {name: job_0, command: 'true'}"]
    for number in range(1, count):
        lines += [f"  - name: job_{number}", f"    command: 'run {number}'", f"    depends_on: [job_{number - 1}]"]
    path.write_text("\n".join(lines))
    workflow = read_workflow(path)
    record_property("count", count)
    assert [job.depends_on for job in workflow.jobs[1:]] == [(number,) for number in range(count - 1)]
    assert workflow.jobs[-1].at.line == 4 + 3 * (count - 2)
    assert max(levels(workflow.jobs)) == count - 1


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_a_barrier_between_many_jobs_and_many_costs_their_sum(
    count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        f"name: w\nparameters: {{i: '1:{count}'}}\njobs:\n  - {{name: 'a{{i}}', command: x, use_parameters: [i]}}\n"
        "  - {name: 'b{i}', command: x, use_parameters: [i], depends_on_regexes: ['^a']}\n"
    )
    workflow = read_workflow(path)
    second = workflow.jobs[count:]
    record_property("count", count)
    assert len({id(job.depends_on) for job in second}) == 1
    assert second[0].depends_on == tuple(range(count))
    assert levels(workflow.jobs) == [0] * count + [1] * count
