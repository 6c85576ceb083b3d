"""Programs with tasks over several real nodes that talk by MPI, beside tasks of one node."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pilotflow as pf
from pilotflow.launchers.mpirun import MpirunLauncher
from pilotflow.launchers.srun import SrunLauncher
from tests.slurm.tasks import config

LAUNCHERS = {"srun": SrunLauncher(mpi="pmix"), "mpirun": MpirunLauncher(program="mpirun.openmpi")}
SHAPES = ((2, 1), (3, 2), (4, 1), (2, 2))
"""Nodes, and ranks on each."""
Stay = tuple[str, float, float]
"""A task's node, and from when to when it ran there."""


@pf.python_app
def single(number: int, seconds: float) -> tuple[int, Stay]:
    began = time.time()
    time.sleep(seconds)
    return number, (os.uname().nodename, began, time.time())


@pf.python_app(return_ranks="all")
def allreduce(number: int) -> tuple[int, int, Stay]:
    """The sum of number * (rank + 1) over all ranks, by MPI; this rank's number; where it ran."""
    began = time.time()
    from mpi4py import MPI

    total = MPI.COMM_WORLD.allreduce(number * (MPI.COMM_WORLD.rank + 1))
    return total, MPI.COMM_WORLD.rank, (os.uname().nodename, began, time.time())


@pf.bash_app
def program(path: str, stdout: str) -> str:
    return path


def run_mixed(folder: str, launcher: str, mode: str, memory: float | None, wide: int, narrow: int) -> None:
    """Tasks over 2 to 4 nodes with 1 and 2 ranks on each, in Python and in C, mixed with tasks of one node."""
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", TMPDIR="/tmp")
    provider = {"nodes_per_block": 4, "cores_per_node": 4, "mem_per_node": memory, "export_environment": True}
    executor: dict[str, Any] = {"launcher": LAUNCHERS[launcher], "mode": mode}
    in_python: list[tuple[int, int, Any]] = []
    in_c: list[tuple[int, str, Any]] = []
    alone: list[Any] = []
    with pf.load(config(provider, executor)):
        for at in range(wide):
            nodes, ranks = SHAPES[at % len(SHAPES)]
            # MPI itself hangs at its start now and then (Slurm 22.05's pmix, a busy machine): it is ended and tried again.
            shape: dict[str, Any] = {"num_nodes": nodes, "ranks_per_node": ranks, "runtime": 25, "retries": 3}
            if (at % 2 == 0) == (launcher == "srun"):
                in_python.append((at, nodes * ranks, allreduce.options(**shape)(at)))
            else:
                out = f"{folder}/out.{at}"
                in_c.append((nodes * ranks, out, program.options(**shape)(f"{folder}/allreduce", stdout=out)))
            alone += [single(number, 0.02) for number in range(at * narrow // wide, (at + 1) * narrow // wide)]
        numbers, stays = zip(*[future.result(10 * wide + 60) for future in alone], strict=True)
        assert list(numbers) == list(range(narrow))
        reserved: list[Stay] = []
        for at, size, future in in_python:
            found = future.result(10 * wide + 60)
            assert [rank for _, rank, _ in found] == list(range(size))
            assert {total for total, _, _ in found} == {at * size * (size + 1) // 2}
            reserved += whole_stays([stay for _, _, stay in found])
        for size, out, future in in_c:
            assert future.result(10 * wide + 60) == 0
            lines = [json.loads(line) for line in Path(out).read_text().splitlines()]
            assert sorted(line["rank"] for line in lines) == list(range(size))
            assert {(line["size"], line["sum"]) for line in lines} == {(size, sum(range(size)))}
    check_nothing_beside(reserved, list(stays))
    print(f"{len(in_python) + len(in_c)} wide and {len(alone)} narrow tasks: right, and never together")


def whole_stays(stays: list[Stay]) -> list[Stay]:
    """One stay for each node of a task: from the first of its ranks there to the last."""
    nodes = {node for node, _, _ in stays}
    return [
        (node, min(a for at, a, _ in stays if at == node), max(b for at, _, b in stays if at == node)) for node in nodes
    ]


def check_nothing_beside(reserved: list[Stay], others: list[Stay]) -> None:
    """The nodes of a task over several nodes are its own while it runs."""
    for node in {node for node, _, _ in reserved}:
        whole = sorted((began, ended) for at, began, ended in reserved if at == node)
        assert all(first[1] <= second[0] for first, second in pairwise(whole)), f"two at once on {node}"
        for began, ended in whole:
            beside = [stay for stay in others if stay[0] == node and stay[1] < ended and began < stay[2]]
            assert not beside, f"{node} was shared from {began} to {ended} with {beside}"
