"""Commands that start processes over nodes inside a task that was itself started so: refused, with what to write."""

from __future__ import annotations

import pytest

from pilotflow.errors import ConfigError
from pilotflow.ids import STEP_VARIABLE
from pilotflow.launchers.nesting import nested_starter, refuse_nested


@pytest.mark.parametrize(
    ("command", "starter"),
    [
        ("srun --mpi=pmix python train.py", "srun"),
        ("  mpirun -n 4 ./a.out", "mpirun"),
        ("/opt/openmpi/bin/mpirun.openmpi ./a.out", "mpirun.openmpi"),
        ("exec mpiexec.hydra ./a.out", "mpiexec.hydra"),
        ("OMP_NUM_THREADS=4 A='b c' time srun hostname", "srun"),
        ("env A=1 mpiexec ./a.out", "mpiexec"),
        ("python train.py", None),
        ("./srun_results.sh", None),
        ("echo srun", None),
        ("mpirunner ./a.out", None),
        ("", None),
        ("(srun hostname)", None),
    ],
)
def test_what_a_command_begins_with_is_found(command: str, starter: str | None) -> None:
    assert nested_starter(command) == starter


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({STEP_VARIABLE: "task-1-1"}, "its executor places each task by srun already (mode: slurm)"),
        ({"PILOTFLOW_RANK": "0"}, "each rank of a task on several nodes"),
    ],
)
def test_inside_a_step_it_is_refused_with_what_to_write(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_nested("train", "mpirun python train.py", environ)
    assert "The command of 'train' begins with mpirun, and " + words in str(caught.value)
    assert "mode: direct and a task of one node, where mpirun is yours" in str(caught.value)
    refuse_nested("train", "python train.py", environ)


def test_a_task_of_a_manager_may_start_what_it_likes() -> None:
    refuse_nested("train", "mpirun -n 2 ./a.out", {"PATH": "/bin"})
