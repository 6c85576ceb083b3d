"""The example workflows run on a real cluster, with sizes that its small nodes have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration import mpi_tools
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for

EXAMPLES = Path(__file__).parents[1] / "workflows"
NOTE = (
    "import os, socket, sys\n"
    "with open('notes', 'a') as notes: notes.write(' '.join([socket.gethostname(), *sys.argv]) + '\\n')\n"
)
ENV = "env: {OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1', TMPDIR: /tmp}"
SMALLER = (
    (r"num_cpus: \d+", "num_cpus: 1"),
    (r"memory: \d+g", "memory: 100m"),
    (r"runtime: PT\w+", "runtime: PT1M"),
    (r'walltime: "[\d:]+"', 'walltime: "00:05:00"'),
    (r"num_gpus: \d", "num_gpus: 0"),
    (r"partition: \w+", "partition: debug"),
    (r"account: \w+", "account: root"),
    (r'"1:(100|20)"', '"1:12"'),
    (r'"3:100"', '"3:40"'),
    (r"python -m torch.distributed.run", "python"),
)
CASES = {
    "parallel_analysis": (12, 1),
    "distributed_training": (4, 4),
    "distributed_training_mpi": (4, 4),
    "preprocess_then_train": (12, 4),
    "parallel_analysis_direct": (12, 1),
    "many_small_allocations": (12, 1),
    "bound_to_schedulers": (3, 1),
}
"""Lines of notes: one a job, or a rank; and the nodes that they must at least come from."""
SOAKED = ("parallel_analysis_direct", "many_small_allocations", "bound_to_schedulers")


def asked(trigger: str = "on_workflow_start", more: str = "", **scheduler: object) -> str:
    """An allocation to ask for, for an example that leaves this to those who run it."""
    words = "".join(f", {key}: {value}" for key, value in scheduler.items())
    return (
        f'slurm_schedulers: [{{name: asked, account: root, partition: debug, walltime: "00:05:00"{words}}}]\n'
        f"actions: [{{trigger_type: {trigger}, action_type: schedule_nodes, scheduler: asked, scheduler_type: slurm{more}}}]"
    )


class Folder:
    """Where an example lies, cut to the cluster's size, with the programs that it calls.

    Each line of `notes` is a start of one of them: the node, the program, and its arguments.
    """

    def __init__(self, cluster: Cluster, path: Path) -> None:
        self.cluster = cluster
        self.path = path
        for name in ("analyze.py", "preprocess.py", "train.py", "analyze.sh", "report.sh", "process.sh", "solve"):
            content = NOTE if name.endswith(".py") else '#!/bin/sh\necho "$(hostname) ${0##*/} $*" >> notes\n'
            (path / name).write_text(content)
            (path / name).chmod(0o755)

    def put(self, name: str, *more: str, cuts: Sequence[tuple[str, str]] = ()) -> None:
        """Write an example's text as w.yaml: cut, and with more at its end."""
        text = (EXAMPLES / f"{name}.yaml").read_text()
        for pattern, smaller in (*cuts, *SMALLER):
            text = re.sub(pattern, smaller, text)
        text = text.replace("mpirun python", "echo $TORC_JOB_NAME >> started; mpirun python")
        text = text.replace("python ", f"{sys.executable} ")
        (self.path / "w.yaml").write_text("\n".join((text, ENV, *more, "")))

    def pilotflow(self, *words: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """What a command says on the login host."""
        return self.cluster.pilotflow(*words, cwd=self.path, code=code, **variables)

    def run(self, *, code: int = 0) -> str:
        """Run w.yaml, and look that nothing is left in Slurm; returns its warnings."""
        done = self.pilotflow("run", "w.yaml", "--json", code=code)
        assert json.loads(done.stdout)["state"] == ("failed" if code else "succeeded")
        assert not self.cluster.jobs()
        return done.stderr

    def results(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in json.loads(self.pilotflow("results", "last", "--json").stdout)}

    def notes(self) -> list[str]:
        path = self.path / "notes"
        return path.read_text().splitlines() if path.exists() else []

    def nodes(self) -> set[str]:
        """The nodes that notes come from."""
        return {note.split()[0] for note in self.notes()}


@pytest.fixture
def folder(cluster: Cluster, tmp_path: Path) -> Folder:
    return Folder(cluster, tmp_path)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] if name in SOAKED else []) for name in CASES]
)
def test_an_example_runs_on_a_cluster(name: str, folder: Folder) -> None:
    if "mpi" in name:
        mpi_tools.plain_openmpi()
    # The next stage needs the nodes of the one before.
    folder.put(name, "compute_node_wait_for_new_jobs_seconds: 2")
    folder.run()
    lines, nodes = CASES[name]
    assert len(folder.notes()) == lines
    assert len(folder.nodes()) >= nodes
    if name == "distributed_training_mpi":
        assert (folder.path / "started").read_text().split() == ["train"], "its command is started once"


def test_no_example_that_names_slurm_is_left_out() -> None:
    named = {path.stem for path in EXAMPLES.iterdir() if "slurm" in path.read_text()}
    assert named == {*CASES, "nested_launchers"}


def test_launchers_in_commands_that_srun_starts_fail_and_the_lines_of_the_warnings_run(folder: Folder) -> None:
    mpi_tools.plain_openmpi()
    folder.put("nested_launchers", asked(nodes=2))
    warnings = folder.run(code=1)
    results = folder.results()
    codes = {name: row["exit_code"] for name, row in results.items()}
    assert codes.pop("nested_mpirun") in {1, 250}  # as Open MPI 4 and 5 end
    assert codes == {"nested_srun": 1, "right": 0}
    assert re.match(r"rank \d on node\d(, and 1 more)?:\nsrun: error: ", results["nested_srun"]["words"])
    assert len(folder.notes()) == len(folder.nodes()) == 2, "of the right one a rank on each node, of the others none"

    said = re.findall(r"w\.yaml:(\d+):\d+: warning: in slurm mode .*? Write `(command: [^`]*)`", warnings)
    assert len(said) == 2
    lines = (folder.path / "w.yaml").read_text().splitlines()
    for number, right in said:
        lines[int(number) - 1] = re.sub(r'command: "[^"]*"', right, lines[int(number) - 1])
    (folder.path / "w.yaml").write_text("\n".join(lines))
    assert "warning" not in folder.run()
    assert len(folder.notes()) == 2 + 3 * 2


def test_totals_that_no_node_has_are_refused_in_words_and_what_each_node_gives_runs(folder: Folder) -> None:
    site = folder.path / "sites" / "here.yaml"
    site.parent.mkdir()
    site.write_text("name: here\npartitions: [{name: debug, cpus_per_node: 4, memory_per_node: 4000m}]\n")

    def checked() -> str:
        said = folder.pilotflow("create", "w.yaml", "--site", "here", PILOTFLOW_SITE_PATH=str(site.parent))
        return said.stderr

    folder.put(
        "totals_wrong", asked(nodes=4), cuts=[("num_cpus: 128", "num_cpus:  16"), ("memory: 512g", "memory: 8000m")]
    )
    said = checked()
    assert "w.yaml:4:5: warning: requirements 'mpi_job': num_cpus is 16, more than the 4 that any node" in said
    right = re.findall("`(num_cpus|memory): ([^`]*)`", said)
    assert right == [("num_cpus", "4"), ("memory", "2000m")]
    folder.run(code=1)
    words = folder.results()["solve"]["words"]
    assert "can run nowhere in this run" in words
    assert "if they were meant for all 4 nodes together, say num_cpus=4, memory='2000m'" in words
    assert not folder.notes()

    folder.put("totals_wrong", asked(nodes=4), cuts=[(f"{key}: .*", f"{key}:  {value}") for key, value in right])
    assert "warning" not in checked()
    folder.run()
    assert len(folder.notes()) == len(folder.nodes()) == 4, "a rank on each node"


def test_allocations_by_hand_run_so_many_jobs_at_once_whatever_they_ask_for(folder: Folder) -> None:
    with (folder.path / "process.sh").open("a") as script:
        script.write("while [ $(wc -l < notes) -lt 32 ]; do sleep 0.5; done\n")  # four times as many as there are cores
    folder.put("equal_jobs", asked("on_workflow_complete", ", max_parallel_jobs: 8"))
    folder.pilotflow("run", "w.yaml", "--detach")
    folder.pilotflow("slurm", "schedule-nodes", "last", "--num-hpc-jobs", "4", "--max-parallel-jobs", "8")
    folder.pilotflow("attach", "last")
    assert len(folder.notes()) == 40
    assert len(folder.nodes()) == 4


def test_runners_in_allocations_of_one_s_own_serve_the_jobs_of_their_scheduler(folder: Folder) -> None:
    never = "{trigger_type: on_workflow_complete, action_type: schedule_nodes, scheduler_type: slurm, scheduler: %s}"
    folder.put("bound_to_schedulers", f"actions: [{never % 'gpu_cluster'}, {never % 'highmem_cluster'}]")
    folder.pilotflow("run", "w.yaml", "--detach")
    argv = (
        "-N1",
        "env",
        f"--chdir={folder.path}",
        sys.executable,
        "-m",
        "pilotflow",
        "runner",
        "last",
        "--num-cpus",
        "2",
    )
    with folder.cluster.popen("srun", "-wnode1", *argv, "--scheduler", "highmem_cluster") as first:
        wait_for(lambda: len(folder.notes()) == 2, "what may run there has run", 60)
        with folder.cluster.popen("srun", "-wnode3", *argv, "--scheduler", "gpu_cluster") as second:
            folder.pilotflow("attach", "last")
    assert (first.returncode, second.returncode) == (0, 0)
    where = {note.split()[1]: note.split()[0] for note in folder.notes()}
    assert where == {"analyze.sh": "node1", "report.sh": "node1", "train.py": "node3"}
