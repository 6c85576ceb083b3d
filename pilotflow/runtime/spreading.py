"""A command that uses several nodes by itself, such as mpirun: what it finds in its environment."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pilotflow.launchers.steps import LOCALHOST, Step, program_environment
from pilotflow.resources import Request
from pilotflow.runtime import ranks_files


@contextlib.contextmanager
def spread_over(
    nodes: Sequence[str], request: Request, name: str, folder: str, inherited: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """The environment of one program that starts its own processes on nodes; their host file is there meanwhile.

    Args:
        nodes: their hosts, ours first.
        request: what the task has asked for on each. A process for each of the cores is what mpirun starts.
        name: of the task's attempt, unique in the run.
        folder: where the host files are made; every node can reach it, and it is removed in the end.
        inherited: our own environment.

    Raises:
        OSError: the host file cannot be written.
    """
    step = Step(
        name=name,
        nodes=tuple(nodes),
        ranks_per_node=max(1, request.cpus_milli // 1000),
        cpus_per_rank=None,
        local=set(nodes) == {LOCALHOST},
        directory=folder,
    )
    os.makedirs(folder, mode=0o700, exist_ok=True)
    try:
        in_turn = "".join(f"{host}\n" for host in step.hosts) * step.ranks_per_node  # srun's first tasks are on all
        ranks_files.write_text(Path(folder, "hosts"), in_turn)
        ranks_files.write_text(Path(folder, "slots"), step.slots_text)
        yield program_environment(step, inherited)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
