"""Where and how a workflow runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilotflow.config.model import Config
from pilotflow.runtime.connection import Connection
from pilotflow.workflow.records import Workflow
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
