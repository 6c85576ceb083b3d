"""Nodes without workers, whose manager is at the head of their allocation: they are reserved for its tasks.

To the interchange each is a manager of its own that takes part in tasks on several nodes. Such a task
begins at the head, where its program starts what it needs on the others.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import socket
from typing import Any, Final

from pilotflow.core.orders import Give, Worker
from pilotflow.core.pool import Pool
from pilotflow.errors import ConfigError, InternalError
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.crew import Crew
from pilotflow.runtime.job_nodes import job_nodes
from pilotflow.runtime.log_files import log_to
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.manager_options import Options, follower_options
from pilotflow.runtime.node_manager import NodeManager

FILES: Final = 8
"""Descriptors of a node: its log, and its connection."""
_NO_JOB: Final = "A manager of several nodes needs a block that is a job of Slurm, and SLURM_JOB_ID is not set here."


class Followers:
    """The other nodes of the allocation that this manager is at the head of.

    Args:
        found: the manager's command line.
        head: what the head is told.
        log: the head's log.

    Raises:
        ConfigError: it is in no allocation, or too few open files are allowed for so many nodes.
    """

    def __init__(self, found: argparse.Namespace, head: Options, log: logging.Logger) -> None:
        here = os.environ.get("SLURMD_NODENAME", socket.gethostname())
        nodes = job_nodes(log, _NO_JOB)
        if all(node.name != here for node in nodes):
            raise ConfigError(f"Node {here} is none of its Slurm job's: {', '.join(node.name for node in nodes)}.")
        self._options = [follower_options(found, node, head) for node in nodes if node.name != here]
        self.files = FILES * len(self._options)
        self._context: Any = None

    def managers(self, connection: Connection, loop: Loop, started: float) -> list[NodeManager]:
        """A manager for each of them."""
        import zmq  # not at the start of a manager that has one node

        self._context = zmq.Context() if self._options else None
        made: list[NodeManager] = []
        for options in self._options:
            path = options.directory / f"manager-{options.node}.log"
            log = log_to(path, f"manager {options.node}", f"pilotflow.{options.node}")
            pool = Pool(options.capacity, None, options.watch)
            crew = NoWorkers(loop, pool, options, connection, started, log)
            made.append(NodeManager(options, connection, pool, loop, crew, started, log, self._context))
        return made

    def close(self) -> None:
        """All of them have ended."""
        if self._context is not None:
            self._context.destroy(linger=500)


class NoWorkers(Crew):
    """The crew of a node that is only reserved."""

    @property
    def any(self) -> bool:
        """See `Crew.any`."""
        return False

    @property
    def due_at(self) -> float:
        """See `Crew.due_at`."""
        return math.inf

    def look(self, now: float) -> None:
        """See `Crew.look`."""

    def kill_all(self) -> None:
        """See `Crew.kill_all`."""

    def _give(self, order: Give) -> None:
        self._spawn(order.worker)

    def _recall(self, worker: Worker) -> None:
        self._spawn(worker)

    def _kill(self, worker: Worker) -> None:
        self._spawn(worker)

    def _warn(self, worker: Worker) -> None:
        self._spawn(worker)

    def _spawn(self, worker: Worker) -> None:
        raise InternalError(f"node {self._options.node} has no worker {worker.id}")
