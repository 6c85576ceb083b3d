"""The manager at the head of a Slurm allocation: it owns all nodes, and places every task as a step of its own.

    python -m pilotflow.runtime.head_manager CONNECTION_FILE --executor LABEL --block BLOCK ...

It runs once, in the batch script. To the interchange each node is a manager of its own, with what the job
has of that node, so placing, sharing and whole nodes work as everywhere; what differs is that a task is not
handed to a worker that waits, but to an srun.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import pickle
import socket
import sys
import time
from pathlib import Path
from typing import Final

from pilotflow.core.pool import Pool
from pilotflow.errors import ConfigError
from pilotflow.ids import RUN_DIRECTORY_VARIABLE
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.node.slurm_nodes import SlurmNode
from pilotflow.runtime import limits
from pilotflow.runtime.addresses import listening_address
from pilotflow.runtime.connection import Connection, read_connection
from pilotflow.runtime.head_agent import end_with_parent
from pilotflow.runtime.job_nodes import job_nodes
from pilotflow.runtime.log_files import log_to
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager import drive
from pilotflow.runtime.manager_options import of_slurm_node, read_arguments
from pilotflow.runtime.node_manager import NodeManager
from pilotflow.runtime.process_end import DESCRIPTORS
from pilotflow.runtime.process_name import name_process
from pilotflow.runtime.relays import Relays
from pilotflow.runtime.step_crew import Start, StepCrew, inherited
from pilotflow.runtime.versions import check_versions
from pilotflow.units import counted

_NO_JOB: Final = (
    "mode: slurm needs blocks that are jobs of Slurm, and SLURM_JOB_ID is not set here. Use provider type: slurm, or "
    "mode: direct."
)
FILES_PER_STEP: Final = DESCRIPTORS + 2
"""Descriptors of a running srun: its end, its stderr, and while it starts one more."""


def main() -> int:
    """Run the manager of an allocation as its command line says."""
    name_process("pf-manager")
    started = time.monotonic()
    found = read_arguments(sys.argv[1:])
    connection = read_connection(found.connection)
    log = log_to(found.directory / "manager-head.log", "head manager")
    os.environ[RUN_DIRECTORY_VARIABLE] = connection.directory  # the steps inherit it
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        limits.say_how_ends_are_seen(log)
        loop = Loop()
        check_versions(connection, socket.gethostname(), bool(found.prefix))
        nodes = job_nodes(log, _NO_JOB)
        relays = Relays(loop, connection, _address(found.address, nodes, log), log)
        code = drive(loop, _managers(found, connection, loop, nodes, relays, started), log)
        relays.close()
        return code
    except ConfigError as error:
        log.error("cannot start: %s", error)
        sys.stderr.write(f"pilotflow manager: {error}\n")
        return 1
    except Exception as error:
        log.exception("the manager ends because of a bug")
        sys.stderr.write(f"pilotflow manager: a bug: {error!r}; see its log in {found.directory}\n")
        return 1


def _managers(
    found: argparse.Namespace,
    connection: Connection,
    loop: Loop,
    nodes: tuple[SlurmNode, ...],
    relays: Relays,
    started: float,
) -> list[NodeManager]:
    slots = sum(of_slurm_node(found, node).capacity.slots_of_one_core for node in nodes)
    limits.raise_open_files(
        limits.MANAGER_FILES * len(nodes) + FILES_PER_STEP * slots, f"a manager of {counted(len(nodes), 'node')}"
    )
    start = Start(relays, _options(found.launcher), inherited(), end_with_parent())
    managers = []
    for node in nodes:
        options = of_slurm_node(found, node)
        path = found.directory / f"manager-{node.name}.log"
        own_log = log_to(path, f"manager {node.name}", f"pilotflow.{node.name}")
        pool = Pool(options.capacity, None, options.watch, one_shot=True)
        crew = StepCrew(loop, pool, start, options, connection, started, own_log)
        managers.append(NodeManager(options, connection, pool, loop, crew, started, own_log, relays.context))
    return managers


def _address(wanted: str | None, nodes: tuple[SlurmNode, ...], log: logging.Logger) -> str:
    """Where to listen for the steps: on this host alone if it is the only node."""
    here = os.environ.get("SLURMD_NODENAME")  # not set in a shell of salloc, which may be on none of them
    others = [node.name for node in nodes if node.name != here]
    if not others:
        return "127.0.0.1"
    other = others[0]
    if wanted is not None:
        try:
            return listening_address(wanted, other)
        except ConfigError as error:  # it may be about the submitting machine alone
            log.info("the executor's address says nothing here: %s", error)
    return listening_address(None, other)


def _options(launcher: Path | None) -> tuple[str, ...]:
    """Options of the executor's launcher for every srun."""
    found = None if launcher is None else pickle.loads(launcher.read_bytes())
    return found.options if isinstance(found, SrunLauncher) else ()


if __name__ == "__main__":
    raise SystemExit(main())
