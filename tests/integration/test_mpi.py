"""Steps with real MPI: programs in C and functions with mpi4py, over logical nodes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

import pilotflow as pf
from pilotflow.errors import RankError, TaskTimeout
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.mpirun import MpiexecLauncher, MpirunLauncher
from pilotflow.runtime.head_agent import StepEnd
from tests.integration import mpi_tasks as tasks
from tests.integration import mpi_tools
from tests.integration.step_tools import call_of, error_of, local, outcome, runner, value_of
from tests.processes import is_alive
from tests.waiting import until

HERE = os.uname().nodename
ALLREDUCE = r"""
#include <mpi.h>
#include <stdio.h>

int main(int argc, char **argv) {
    int rank, size, sum;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("{\"rank\": %d, \"size\": %d, \"sum\": %d}\n", rank, size, sum);
    MPI_Finalize();
    return 0;
}
"""


@pytest.fixture(autouse=True)
def a_place_for_sockets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open MPI's session directory has sockets, whose paths must be short."""
    monkeypatch.setenv("TMPDIR", "/tmp")


def compiled(tmp_path: Path, compiler: str) -> str:
    source, program = tmp_path / "allreduce.c", tmp_path / "allreduce"
    source.write_text(ALLREDUCE)
    subprocess.run([compiler, str(source), "-o", str(program)], check=True, timeout=60)
    return str(program)


def family(name: str) -> tuple[Launcher, str]:
    """A launcher, and the compiler of the same MPI."""
    if name == "openmpi":
        return MpirunLauncher(program=mpi_tools.openmpi()), mpi_tools.openmpi_compiler()
    return MpiexecLauncher(program=mpi_tools.mpich()), mpi_tools.mpich_compiler()


def openmpi() -> Launcher:
    mpi_tools.need_mpi4py()
    return MpirunLauncher(program=mpi_tools.openmpi())


@pytest.mark.parametrize("ranks_per_node", [1, 2])
@pytest.mark.parametrize("mpi", ["openmpi", "mpich"])
def test_a_program_in_c_adds_up_over_all_ranks_of_two_logical_nodes(
    tmp_path: Path, mpi: str, ranks_per_node: int
) -> None:
    launcher, compiler = family(mpi)
    command, out = [compiled(tmp_path, compiler)], tmp_path / "out"
    step = local(ranks_per_node=ranks_per_node)
    running = runner(tmp_path, launcher).command(step, command, time.monotonic(), stdout=str(out))
    assert value_of(outcome(running)) == 0
    found = sorted((json.loads(line) for line in out.read_text().splitlines()), key=lambda line: line["rank"])
    size = 2 * ranks_per_node
    assert found == [{"rank": rank, "size": size, "sum": sum(range(size))} for rank in range(size)]


@pytest.mark.parametrize("ranks_per_node", [1, 2])
def test_a_function_with_mpi4py_adds_up_over_all_ranks_of_two_logical_nodes(
    tmp_path: Path, ranks_per_node: int
) -> None:
    call = call_of(tasks.allreduce, 1.5, return_ranks="all")
    step = local(ranks_per_node=ranks_per_node)
    found = value_of(outcome(runner(tmp_path, openmpi()).call(step, call, time.monotonic())))
    size = 2 * ranks_per_node
    assert found == [(rank, size, 1.5 * sum(range(size))) for rank in range(size)]


@pytest.mark.parametrize(
    ("how", "end", "words"),
    [
        ("raises", StepEnd.ERROR, "raised tests.integration.mpi_tasks.OurError: rank 1 does not like this."),
        ("aborts", StepEnd.ERROR, ""),  # its own code, or what mpirun says if it was the faster
        ("SIGSEGV", StepEnd.LOST, f"Rank 1 of 2 of 'mpi_failing' (on {HERE}) was killed by signal 11 (SIGSEGV)."),
        ("SIGKILL", StepEnd.LOST, f"Rank 1 of 2 of 'mpi_failing' (on {HERE}) was killed by signal 9 (SIGKILL)."),
    ],
)
def test_a_rank_that_fails_ends_the_others_that_wait_for_it_in_mpi(
    tmp_path: Path, how: str, end: StepEnd, words: str
) -> None:
    done = outcome(runner(tmp_path, openmpi()).call(local(), call_of(tasks.mpi_failing, 1, how), time.monotonic()))
    error = error_of(done, end)
    assert words in str(error)
    if how == "aborts":
        assert isinstance(error, RankError)
        assert error.rank in {1, None}
        assert error.exit_code == 5
    elif how == "raises":
        assert isinstance(error, RankError)
        assert (error.rank, error.host) == (1, HERE)
        assert error.__cause__ is not None
        assert isinstance(error.__cause__.__cause__, tasks.OurError)
        assert "raise OurError(world.rank)" in str(error.__cause__)  # the line of the rank's function


def test_ranks_that_wait_in_mpi_are_ended_when_the_runtime_is_over(tmp_path: Path) -> None:
    steps = runner(tmp_path, openmpi(), grace_s=0.5)
    running = steps.call(local(runtime_s=600.0), call_of(tasks.mpi_waiting, str(tmp_path)), time.monotonic())
    ready = until(lambda: len(list(tmp_path.glob("ready.*"))) == 2 and list(tmp_path.glob("ready.*")), "both are ready")
    pids = [int(path.read_text()) for path in ready]
    assert running.advance(time.monotonic() + 600) is None
    running.due_at = time.monotonic()
    assert isinstance(error_of(outcome(running), StepEnd.TIMEOUT), TaskTimeout)
    assert not [pid for pid in pids if is_alive(pid)]


@pytest.mark.parametrize("mpi", ["openmpi", "mpich"])
def test_a_warning_reaches_ranks_before_they_are_ended(tmp_path: Path, mpi: str) -> None:
    launcher, _ = family(mpi)
    running = runner(tmp_path, launcher, grace_s=60.0).call(
        local(), call_of(tasks.saving, str(tmp_path), 0.3), time.monotonic()
    )
    until(lambda: len(list(tmp_path.glob("ready.*"))) == 2, "both are ready")
    running.stop("enough", time.monotonic())
    assert outcome(running).end is StepEnd.CANCELLED
    assert len(list(tmp_path.glob("saved.*"))) == 2


@pytest.mark.parametrize("mpi", ["openmpi", "mpich"])
def test_a_rank_that_ends_with_a_code_ends_the_others(tmp_path: Path, mpi: str) -> None:
    launcher, _ = family(mpi)
    command = ["sh", "-c", "[ $RANK = 1 ] || exec sleep 60; exit 3"]
    error = error_of(outcome(runner(tmp_path, launcher).command(local(), command, time.monotonic())))
    assert isinstance(error, RankError)
    assert (error.rank, error.exit_code) == (1, 3)


def test_managers_started_by_mpirun_run_tasks_and_tasks_can_use_mpi_alone(tmp_path: Path) -> None:
    config = pf.Config(
        executors=[
            pf.ExecutorConfig(
                launcher=openmpi(),
                provider=pf.LocalProvider(nodes_per_block=2),
                max_workers_per_node=1,
            )
        ],
        run_dir=tmp_path,
    )
    with pf.load(config):
        assert pf.python_app(tasks.alone)().result(timeout=60) == 1
        assert [pf.python_app(abs)(-n).result(timeout=60) for n in range(3)] == [0, 1, 2]
