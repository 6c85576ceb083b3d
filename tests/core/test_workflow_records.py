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
