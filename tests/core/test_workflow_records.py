"""What whoever runs a workflow may rely on."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pilotflow.workflow.records import Workflow
from pilotflow.workflow.spec import read_workflow

DIAMOND = """\
name: diamond
resource_requirements:
  - {name: small, num_cpus: 2, memory: 1g, runtime: PT10M}
files:
  - {name: raw, path: raw.txt}
  - {name: left, path: left.txt}
  - {name: right, path: right.txt}
jobs:
  - {name: prepare, command: "echo raw > raw.txt", output_files: [raw], resource_requirements: small}
  - {name: left, command: "cp raw.txt left.txt", input_files: [raw], output_files: [left]}
  - {name: right, command: "cp raw.txt right.txt", input_files: [raw], output_files: [right]}
  - {name: join, command: "cat left.txt right.txt", input_files: [left, right], depends_on: [prepare]}
"""


def diamond(folder: Path) -> Workflow:
    path = folder / "diamond.yaml"
    path.write_text(DIAMOND)
    return read_workflow(path)


def test_files_make_the_edges_of_a_diamond(tmp_path: Path) -> None:
    workflow = diamond(tmp_path)
    assert [job.depends_on for job in workflow.jobs] == [(), (0,), (0,), (0, 1, 2)]
    assert [job.index for job in workflow.jobs] == [0, 1, 2, 3]
    assert [file.producers for file in workflow.files] == [(0,), (1,), (2,)]
    assert workflow.where(workflow.jobs[1].at) == f"{tmp_path}/diamond.yaml:10:5"


def test_a_workflow_can_be_written_and_read_back(tmp_path: Path) -> None:
    workflow = diamond(tmp_path)
    assert msgspec.json.decode(msgspec.json.encode(workflow), type=Workflow) == workflow


def test_names_are_matched_anywhere_in_any_dialect_of_expressions(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    for pattern, matched in {
        "a": [0, 1], "^a$": [0], "^a_": [1], "^(b|c)": [2, 3], r"_1\z": [1, 3], "(?<n>b)_?": [2], "[[:digit:]]": [1, 3],
        r"^\\[[:alpha:]]$|^c_[0-9]{1}": [3], "^a_?": [0, 1], "^a_*1": [1], "(?i)^B": [2],
    }.items():  # fmt: skip
        path.write_text(
            "name: w\njobs:\n"
            + "".join(f"  - {{name: {name}, command: x}}\n" for name in ("a", "a_1", "b", "c_1"))
            + f"  - {{name: last, command: x, depends_on_regexes: ['{pattern}']}}\n"
        )
        expected = [*matched]
        assert list(read_workflow(path).jobs[4].depends_on) == expected, pattern


def test_a_binding_is_strict_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    text = "name: w\nslurm_schedulers: [{name: s}]\njobs: [{name: a, command: x, scheduler: s}]\n"
    path.write_text(text)
    assert read_workflow(path).jobs[0].scheduler == 0
    path.write_text(f"{text}strict_scheduler_match: false\n")
    assert read_workflow(path).jobs[0].scheduler is None


def test_a_failed_dependency_cancels_unless_the_job_says_otherwise(tmp_path: Path) -> None:
    assert all(job.cancel_on_blocking_job_failure for job in diamond(tmp_path).jobs)


def test_a_request_has_only_what_is_written(tmp_path: Path) -> None:
    plain = diamond(tmp_path).jobs[1].request
    assert (plain.cpus_milli, plain.memory_bytes, plain.runtime_s) == (1000, 0, None)


def test_rules_take_exit_codes_by_name_first(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(
        "name: w\njobs: [{name: a, command: x, failure_handler: h}]\n"
        "failure_handlers: [{name: h, rules: [{match_all_exit_codes: true, max_retries: 9}, {exit_codes: [3]}]}]\n"
    )
    (handler,) = read_workflow(path).failure_handlers
    first, second = handler.rules
    assert (handler.rule_for(3), handler.rule_for(4), first.max_attempts, second.max_attempts) == (second, first, 9, 3)
