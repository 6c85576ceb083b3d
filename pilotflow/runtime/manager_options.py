"""The manager's command line: written by the block keeper, read by the manager."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pilotflow.resources import Capacity


@dataclass(frozen=True)
class Options:
    """What a manager is told when it starts.

    Attributes:
        connection: path of the run's connection file.
        executor, block: which supply of workers it belongs to.
        directory: where its log goes.
        node: its name, unique among those of its run.
        capacity: what it offers.
        walltime_s: how long its block lives, in seconds from the manager's start, or None.
    """

    connection: Path
    executor: str
    block: str
    directory: Path
    node: str
    capacity: Capacity
    walltime_s: float | None


def manager_argv(
    connection: Path,
    executor: str,
    block: str,
    directory: Path,
    max_workers: int | None,
    max_parallel_jobs: int | None,
    nodes: int = 1,
    walltime_s: float | None = None,
    home: str = "",
) -> list[str]:
    """The command that starts one manager; its node is told by PILOTFLOW_NODE_INDEX.

    Args:
        max_workers: one-CPU slots to offer; None for one per usable core.
        max_parallel_jobs: if given, requests are ignored and this many tasks run at once.
        nodes: nodes of the block that are on one machine and need names of their own.
        walltime_s: the block's walltime in seconds.
        home: where to find pilotflow if it is not among the Python's packages. It comes last on
            the manager's path; as PYTHONPATH it would undo what the block's worker_init has set.
    """
    argv = [sys.executable, "-m", "pilotflow.runtime.manager"]
    if home:
        code = "from pilotflow.runtime.manager import main; sys.exit(main())"
        argv = [sys.executable, "-c", f"import sys; sys.path.append({home!r}); {code}"]
    argv.append(str(connection))
    argv += ["--executor", executor, "--block", block, "--directory", str(directory), "--nodes", str(nodes)]
    if max_workers is not None:
        argv += ["--workers", str(max_workers)]
    if max_parallel_jobs is not None:
        argv += ["--depth", str(max_parallel_jobs)]
    if walltime_s is not None:
        argv += ["--walltime", str(walltime_s)]
    return argv


def parse_options(argv: list[str]) -> Options:
    """The options of a command line made by `manager_argv`."""
    parser = argparse.ArgumentParser(prog="pilotflow-manager")
    parser.add_argument("connection", type=Path)
    parser.add_argument("--executor", required=True)
    parser.add_argument("--block", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--walltime", type=float)
    found = parser.parse_args(argv)
    index = os.environ.get("PILOTFLOW_NODE_INDEX", "0")
    node = socket.gethostname() if found.nodes == 1 else f"{socket.gethostname()}-{found.block}-{index}"
    return Options(
        connection=found.connection,
        executor=found.executor,
        block=found.block,
        directory=found.directory,
        node=node,
        capacity=_capacity(found.workers, found.depth),
        walltime_s=found.walltime,
    )


def _capacity(workers: int | None, depth: int | None) -> Capacity:
    cores = len(os.sched_getaffinity(0))
    slots = depth or workers or cores
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Capacity(1000 * (workers or cores), memory, (), slots, depth is not None)
