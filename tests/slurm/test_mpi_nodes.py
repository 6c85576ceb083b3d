"""Tasks over several nodes of a real cluster: MPI in C and in Python, by srun and by mpirun, beside small tasks."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import mpi_tools
from tests.integration.test_mpi import ALLREDUCE
from tests.slurm.conftest import a_cluster, a_state
from tests.slurm.harness import packages
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.settings import Settings


@pytest.fixture(scope="module")
def parallel() -> Iterator[Cluster]:
    """A cluster that knows PMIx, which must be there before it starts."""
    mpi_tools.need_mpi4py()
    yield from a_cluster(Settings(state=a_state("p"), gpu_nodes=0), {**packages.CLUSTER, **packages.MPI})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the program in C."""
    compiler = shutil.which("mpicc.openmpi")
    assert compiler is not None
    source = tmp_path / "allreduce.c"
    source.write_text(ALLREDUCE)
    subprocess.run([compiler, str(source), "-o", str(tmp_path / "allreduce")], check=True, timeout=60)
    return tmp_path


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("launcher", "mode", "memory", "wide", "narrow"),
    [
        ("srun", "direct", None, 4, 200),
        ("mpirun", "direct", 1, 4, 200),
        pytest.param("srun", "slurm", 1, 4, 40, marks=pytest.mark.soak),
        pytest.param("srun", "direct", 1, 50, 2000, marks=pytest.mark.soak),
        pytest.param("mpirun", "direct", None, 50, 2000, marks=pytest.mark.soak),
    ],
)
def test_wide_tasks_are_right_and_alone_on_their_nodes(
    parallel: Cluster, folder: Path, launcher: str, mode: str, memory: float | None, wide: int, narrow: int
) -> None:
    arguments = (str(folder), launcher, mode, memory, wide, narrow)
    said = parallel.function("tests.slurm.mpi_runs:run_mixed", *arguments, cwd=folder, timeout_s=60 + 10 * wide)
    assert said == f"{wide} wide and {narrow} narrow tasks: right, and never together\n"
