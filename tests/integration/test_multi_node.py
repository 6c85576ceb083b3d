"""Tasks on several nodes through apps: real MPI over logical nodes of this machine, beside small tasks."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import LocalProvider, TaskTimeout
from pilotflow.errors import RequestTooLarge
from pilotflow.launchers.mpirun import MpirunLauncher
from tests.integration import limit_tasks, mpi_tools
from tests.integration.test_mpi import ALLREDUCE
from tests.waiting import until

NODES = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    program = mpi_tools.openmpi()
    wide = pf.ExecutorConfig(
        label="wide",
        num_cpus=2,
        runtime_grace=0.5,
        launcher=MpirunLauncher(program=program),
        provider=LocalProvider(nodes_per_block=NODES, max_blocks=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", "/tmp")  # Open MPI's sockets need short paths
        with pf.load(pf.Config(run_dir=tmp_path_factory.mktemp("runs"), executors=[wide])) as run:
            yield run


pytestmark = pytest.mark.usefixtures("run")


def about_this_rank(x: int) -> tuple[int, str, str]:
    return x, os.environ["PILOTFLOW_NUM_NODES"], os.environ["OMPI_COMM_WORLD_RANK"]


def known_to_this_rank() -> tuple[pf.TaskContext, str]:
    return pf.current_task(), os.getcwd()


def command() -> str:
    return "true"


def span(seconds: float) -> tuple[int, int]:
    start = time.monotonic_ns()
    time.sleep(seconds)
    return start, time.monotonic_ns()


@pytest.mark.parametrize("ranks_per_node", [1, 2])
def test_every_rank_calls_the_function_and_all_results_or_the_first_come_back(ranks_per_node: int) -> None:
    words = {"num_nodes": 2, "ranks_per_node": ranks_per_node}
    every: Any = pf.python_app(return_ranks="all", **words)(about_this_rank)(7).result(60)
    first = pf.python_app(**words)(about_this_rank)(8).result(60)
    assert every == [(7, "2", str(rank)) for rank in range(2 * ranks_per_node)]
    assert first == (8, "2", "0")


@pytest.mark.parametrize("ranks_per_node", [1, 2])
def test_an_mpi_program_runs_over_the_nodes(tmp_path: Path, ranks_per_node: int) -> None:
    source, program = tmp_path / "allreduce.c", tmp_path / "allreduce"
    source.write_text(ALLREDUCE)
    subprocess.run([mpi_tools.openmpi_compiler(), str(source), "-o", str(program)], check=True, timeout=60)

    @pf.bash_app(num_nodes=2, ranks_per_node=ranks_per_node)
    def allreduce(path: str, stdout: str) -> str:
        return path

    assert allreduce(str(program), stdout=str(tmp_path / "out")).result(60) == 0
    ranks = 2 * ranks_per_node
    total = sum(range(ranks))
    lines = (tmp_path / "out").read_text().splitlines()
    assert sorted(lines) == [f'{{"rank": {rank}, "size": {ranks}, "sum": {total}}}' for rank in range(ranks)]


def test_nothing_else_runs_on_the_nodes_meanwhile_and_small_tasks_go_on_elsewhere() -> None:
    small = pf.python_app(span)
    wide = pf.python_app(num_nodes=2)(span)
    before = [small(0.2) for _ in range(12)]
    reserved = [wide(0.5) for _ in range(2)]
    after = [small(0.2) for _ in range(24)]
    for future in reserved:
        start, end = future.result(60)
        inside = [(s, e) for s, e in (f.result(60) for f in [*before, *after]) if s < end and e > start]
        events = sorted([(s, 1) for s, _ in inside] + [(e, -1) for _, e in inside])
        level = most = 0
        for at, step in events:
            level += step
            if start < at < end:
                most = max(most, level)
        assert most <= 2, "more small tasks at once than the one node that is left can run"


def test_a_task_that_depends_on_one_over_several_nodes_gets_its_result() -> None:
    wide = pf.python_app(num_nodes=2, return_ranks="all")(about_this_rank)
    assert pf.python_app(len)(wide(1)).result(60) == 2


def test_every_rank_knows_its_task_and_has_a_directory_of_its_own(run: pf.Run) -> None:
    app: Any = pf.python_app(return_ranks="all", num_nodes=2, scratch=True)(known_to_this_rank)
    future = app()
    known = future.result(60)
    for rank, (task, cwd) in enumerate(known):
        assert (task.id, task.name, task.run_directory) == (future.task_id, "known_to_this_rank", run.directory)
        assert task.request.num_nodes == 2
        assert cwd == str(task.scratch)
        assert cwd.endswith(f"-{rank}")
        assert not task.scratch.exists()


def test_files_that_a_task_on_several_nodes_has_promised_are_looked_for(tmp_path: Path) -> None:
    @pf.python_app(num_nodes=2)
    def write(outputs: list[str]) -> int:
        if os.environ["PILOTFLOW_RANK"] == "1":
            Path(outputs[0]).write_text("made")
        return 5

    made = write(outputs=[tmp_path / "made"])
    assert pf.python_app(Path.read_text)(made.outputs[0]).result(60) == "made"
    assert made.result(60) == 5
    with pytest.raises(pf.MissingOutputs, match=r"'write' has ended .* in outputs: .*/other\. ") as caught:
        write(outputs=[tmp_path / "made", tmp_path / "other"]).result(60)
    assert caught.value.paths == (str(tmp_path / "other"),)
    with pytest.raises(pf.MissingOutputs, match="'command' has ended"):
        pf.bash_app(num_nodes=2)(command)(outputs=[tmp_path / "third"]).result(60)


def test_an_exception_of_a_rank_fails_the_task_and_names_the_rank() -> None:
    with pytest.raises(pf.PilotflowError, match=r"'int' .*ValueError") as caught:
        pf.python_app(num_nodes=2)(int)("no number").result(60)
    assert "ValueError" in str(caught.value.__cause__)


def test_a_step_that_exceeds_its_runtime_is_ended_on_all_nodes() -> None:
    with pytest.raises(TaskTimeout, match="ran longer than its runtime or timeout of 1s"):
        pf.python_app(num_nodes=2, runtime=1)(limit_tasks.never_end)().result(60)
    assert pf.python_app(num_nodes=3)(about_this_rank)(1).result(60)[1] == "3"


def test_a_step_can_be_cancelled_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "begun"

    @pf.bash_app(num_nodes=2)
    def begin() -> str:
        return f"touch {path}; exec sleep 60"

    future = begin()
    until(lambda: path.exists() or None)
    assert future.cancel()
    assert pf.python_app(num_nodes=3)(about_this_rank)(2).result(60)[1] == "3"


def test_a_task_for_more_nodes_than_a_block_has_fails_at_once_with_others_going_on() -> None:
    future = pf.python_app(num_nodes=NODES + 1)(about_this_rank)(1)
    assert pf.python_app(span)(0.0).result(60)
    with pytest.raises(RequestTooLarge, match=f"It asks for {NODES + 1} nodes; the largest block has {NODES}"):
        future.result(60)
