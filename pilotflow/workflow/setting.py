"""Where and how a workflow runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pilotflow.config.model import Config
from pilotflow.core.block_records import KnownBlock
from pilotflow.runtime.connection import Connection
from pilotflow.runtime.durable import Durable, Journal
from pilotflow.runtime.durable_client import DurableClient
from pilotflow.supplies import places_steps
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.store import JobStore
from pilotflow.workflow.supplies import Supplies


@dataclass(frozen=True)
class Setting:
    """Where and how a workflow runs.

    Attributes:
        workflow: what.
        directory: the run directory.
        run_id, number: the run's name, unique on this host, and as it is called on the command line.
        home: the working directory from which the jobs' relative paths start.
        supplies: which executors there are for jobs and actions.
        config: executors and the rest.
        keep_s: how long the interchange waits for another program while nothing runs.
        open: whether managers may join that nobody has asked for.
        auto_recover: whether jobs that fail for lack of memory or time ask for more and run again.
        epoch: of the interchange that is there, or the next one.
        interchange, interchange_pid: the one to take over, if it lives.
        reunites: whether a program has died whose managers may have gone on.
    """

    workflow: Workflow
    directory: Path
    run_id: str
    number: str
    home: Path
    supplies: Supplies
    config: Config
    keep_s: float
    open: bool = False
    auto_recover: bool = False
    epoch: int = 1
    interchange: Connection | None = None
    interchange_pid: int = 0
    reunites: bool = False

    @property
    def at_heads(self) -> frozenset[str]:
        """Executors whose blocks have one process each for all of their nodes, whose jobs are steps of Slurm."""
        found = (each for each in self.config.block_executors if places_steps(each, os.environ))
        return frozenset(each.label for each in found)

    def durable(
        self,
        epoch: int,
        blocks: tuple[KnownBlock, ...] | None,
        store: JobStore,
        journal: Journal,
        known: Callable[[list[KnownBlock]], None],
        prepare: Callable[[DurableClient], object],
        *,
        spare: bool,
    ) -> Durable:
        """How the run goes on with blocks that there are, or begins with None. See `Durable` for the arguments."""
        takes_over = blocks is not None and self.interchange is not None and epoch == self.epoch
        return Durable(
            directory=self.directory,
            run_id=self.run_id,
            epoch=epoch,
            store=store,
            journal=journal,
            keep_s=self.keep_s,
            known=known,
            blocks=blocks or (),
            interchange=self.interchange if takes_over else None,
            interchange_pid=self.interchange_pid if takes_over else 0,
            open=self.open,
            spare=spare,
            prepare=prepare,
        )
