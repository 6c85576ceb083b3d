"""The example workflows run on a real cluster, with sizes that its small nodes have."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.integration import mpi_tools
from tests.slurm.harness.cluster import Cluster

EXAMPLES = Path(__file__).parents[1] / "workflows"
SCRIPTS = ("analyze.py", "preprocess.py", "train.py")
NOTE = (
    "import os, socket, sys\n"
    "with open('notes', 'a') as notes: notes.write(' '.join([socket.gethostname(), *sys.argv]) + '\\n')\n"
)
SMALLER = (
    (r"num_cpus: \d+", "num_cpus: 1"),
    (r"memory: \d+g", "memory: 100m"),
    (r"runtime: PT\w+", "runtime: PT1M"),
    (r'walltime: "[\d:]+"', 'walltime: "00:05:00"'),
    (r"num_gpus: \d", "num_gpus: 0"),
    (r"partition: \w+", "partition: debug"),
    (r"account: \w+", "account: root"),
    (r'"1:(100|20)"', '"1:12"'),
    (r"python -m torch.distributed.run", "python"),
)
CASES = {
    "parallel_analysis": (12, 1),
    "distributed_training": (4, 4),
    "distributed_training_mpi": (4, 4),
    "preprocess_then_train": (12, 4),
    "parallel_analysis_direct": (12, 1),
    "many_small_allocations": (12, 1),
    "bound_to_schedulers": (1, 1),
}
"""Lines of notes: one a job, or a rank; and the nodes that they must at least come from."""
SOAKED = ("parallel_analysis_direct", "many_small_allocations", "bound_to_schedulers")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] if name in SOAKED else []) for name in CASES]
)
def test_an_example_runs_on_a_cluster(name: str, cluster: Cluster, tmp_path: Path) -> None:
    if "mpi" in name:
        mpi_tools.plain_openmpi()
    text = (EXAMPLES / f"{name}.yaml").read_text()
    for pattern, smaller in SMALLER:
        text = re.sub(pattern, smaller, text)
    text = text.replace("mpirun python", "echo $TORC_JOB_NAME >> started; mpirun python")
    text = text.replace("python ", f"{sys.executable} ")
    text += "env: {OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1', TMPDIR: /tmp}\n"
    text += "compute_node_wait_for_new_jobs_seconds: 2\n"  # the next stage needs the nodes of the one before
    (tmp_path / f"{name}.yaml").write_text(text)
    for script in (*SCRIPTS, "analyze.sh", "report.sh"):
        content = NOTE if script.endswith(".py") else "#!/bin/sh\nexit 0\n"
        (tmp_path / script).write_text(content)
        (tmp_path / script).chmod(0o755)
    argv = ("env", f"--chdir={tmp_path}", sys.executable, "-m", "pilotflow", "run", f"{name}.yaml", "--json")
    done = cluster.run(*argv, timeout_s=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["state"] == "succeeded"
    notes = (tmp_path / "notes").read_text().splitlines()
    lines, nodes = CASES[name]
    assert len(notes) == lines, notes
    assert len({note.split()[0] for note in notes}) >= nodes
    if name == "distributed_training_mpi":
        assert (tmp_path / "started").read_text().split() == ["train"], "its command is started once"
    assert not cluster.jobs()
