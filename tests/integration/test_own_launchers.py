"""Jobs over several nodes whose commands start their processes themselves, on logical nodes of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.workflow.spec import read_workflow
from tests.integration import mpi_tools
from tests.integration import workflow_tools as tools

WORKFLOW = """
name: own_launchers
env: {OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1"}
resource_requirements:
  - {name: wide, num_cpus: 2, num_nodes: 3}
  - {name: short, num_nodes: 3, runtime: PT5S}
  - {name: ranks, num_nodes: 3, ranks_per_node: 1}
failure_handlers:
  - {name: again, rules: [{exit_codes: [5], max_retries: 2}]}
jobs:
  - name: own
    command: |
      echo $$ $PILOTFLOW_NODES $PILOTFLOW_NUM_NODES $OMP_NUM_THREADS ${WORLD_SIZE-none} ${PILOTFLOW_RANK-none} >> own
      mpirun sh -c 'echo $OMPI_COMM_WORLD_RANK' > own_ranks
      wc -l < "$PILOTFLOW_HOSTFILE" > own_lines
    resource_requirements: wide
  - {name: ours, command: echo $PILOTFLOW_RANK >> ours, resource_requirements: ranks}
  - {name: called, function: "work:note", resource_requirements: wide}
  - {name: twice, command: "echo $PILOTFLOW_ATTEMPT >> twice; [ $PILOTFLOW_ATTEMPT = 2 ] || exit 5", resource_requirements: wide, failure_handler: again}
  - {name: late, command: "trap 'echo warned > late; exit 0' TERM; sleep 60 & wait", resource_requirements: short}
  - {name: after, command: "echo ${PILOTFLOW_NODES-none} ${PILOTFLOW_HOSTFILE-none} > after", depends_on: [own, called, twice, late]}
"""
NOTE = (
    "import os\ndef note():\n    with open('called', 'a') as file: file.write(os.environ['PILOTFLOW_RANK'] + '\\n')\n"
)


def test_a_command_over_several_nodes_is_started_once_in_direct_mode_unless_ranks_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpi_tools.plain_openmpi()
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "here.yaml").write_text("name: here\nbatch_system: local\n")
    monkeypatch.setenv("PILOTFLOW_SITE_PATH", str(tmp_path / "sites"))
    monkeypatch.setenv("TMPDIR", "/tmp")  # Open MPI's sockets need short paths
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    (tmp_path / "work.py").write_text(NOTE)
    run = tools.a_run(tmp_path, read_workflow(tmp_path / "w.yaml"), settings={"site": "here", "nodes_per_block": 3})
    assert tools.Program(run).wait() == 0, tools.states(run)

    def words(name: str) -> list[str]:
        return (tmp_path / name).read_text().split()

    assert words("own")[1:] == ["localhost,localhost,localhost", "3", "1", "none", "none"]
    assert sorted(map(int, words("own_ranks"))) == list(range(6)), "a process for each core of each node"
    assert words("own_lines") == ["6"]
    assert sorted(words("ours")) == sorted(words("called")) == ["0", "1", "2"]
    assert words("twice") == ["1", "2"]
    assert words("late") == ["warned"]
    assert words("after") == ["none", "none"]
    outputs = sorted(path.name for path in (run / "jobs").iterdir())
    assert [name for name in outputs if name.startswith("twice")] == [
        "twice.1.err",
        "twice.1.out",
        "twice.2.err",
        "twice.2.out",
    ]
    assert not list((run / "tasks").iterdir()), "host files are gone"


def test_the_host_file_of_an_attempt_whose_worker_is_killed_goes_with_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "here.yaml").write_text("name: here\nbatch_system: local\n")
    monkeypatch.setenv("PILOTFLOW_SITE_PATH", str(tmp_path / "sites"))
    (tmp_path / "w.yaml").write_text(
        "name: killed\nresource_requirements: [{name: wide, num_nodes: 2}]\njobs:\n  - name: a\n"
        "    command: echo $PILOTFLOW_HOSTFILE >> files; [ $PILOTFLOW_ATTEMPT = 2 ] || kill -9 $PPID\n"
        "    resource_requirements: wide\n"
    )
    run = tools.a_run(tmp_path, read_workflow(tmp_path / "w.yaml"), settings={"site": "here", "nodes_per_block": 2})
    assert tools.Program(run).wait() == 0, tools.states(run)
    first, second = (Path(line) for line in (tmp_path / "files").read_text().split())
    assert first.parent.parent == second.parent.parent == run / "tasks"
    assert not list((run / "tasks").iterdir())
