"""What a provider is: something that submits, watches and cancels blocks, many at once.

A provider subclasses `Provider` as a keyword-only frozen dataclass and adds the fields its batch
system needs. `pilotflow.testing.providers.check_provider` runs the whole contract against it.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pilotflow.core.block_records import BlockState, BlockStatus
from pilotflow.errors import ConfigError, InfrastructureError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.resources import NodeShape
from pilotflow.typechecks import check_arguments, field_error
from pilotflow.units import parse_duration, show

__all__ = ["BlockJob", "BlockState", "BlockStatus", "Provider", "SubmitLater", "SubmitRefused"]


class SubmitRefused(InfrastructureError):
    """A block cannot be handed in, and none will be with this configuration: no other try is worth it."""


class SubmitLater(InfrastructureError):
    """A block cannot be handed in now, and it is nobody's mistake: it is tried again.

    Attributes:
        after_s: when to try again, in seconds.
    """

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


@dataclass(frozen=True)
class BlockJob:
    """One block to submit.

    Attributes:
        name: the block's name; safe as a file name and as the name of a batch job.
        command: shell text from the launcher that starts a manager on each node and waits for all.
            Its exit status is the block's. Text may follow it.
        script: where the provider writes the script that it submits.
        stdout, stderr: files for the script's output.
        nodes: nodes to ask for.
        walltime_s: seconds after which the block is ended, or None for no limit.
        environment: variables for all processes of the block, by which they can be found. The script
            of `script_text` exports them; a provider that starts processes itself starts them with these.
        exclude_nodes: host names of nodes that keep losing their managers. A provider that can choose
            nodes asks for others; one that cannot passes them over.
        run: the run that it belongs to, for people who look at the batch system: its id, and where it is.
        prelude: shell text for the script, before worker_init: it activates the Python environment.
    """

    name: str
    command: str
    script: Path
    stdout: Path
    stderr: Path
    nodes: int
    walltime_s: float | None
    environment: Mapping[str, str] = field(default_factory=dict)
    exclude_nodes: tuple[str, ...] = ()
    run: str = ""
    prelude: str = ""


@dataclass(frozen=True, kw_only=True)
class Provider(ABC):
    """Gets and ends blocks. One thread uses it at a time.

    Args:
        nodes_per_block: nodes of each block, at least 1.
        init_blocks: blocks to start with.
        min_blocks: blocks that are always kept.
        max_blocks: blocks that exist at most.
        walltime: how long a block may live (seconds, "30m", "1h 30m", "01:30:00"), None for no limit.
        worker_init: shell text that a block runs before its managers, to load modules or to activate
            an environment. If its last command fails, so does the block; begin it with `set -e` to
            stop at the first command that fails.
        parallelism: slots to provide for each task, 0 to 1. With 0.5, half as many slots as tasks.

    Raises:
        ConfigError: a value is out of range; the message names it.
    """

    nodes_per_block: int = 1
    init_blocks: int = 1
    min_blocks: int = 0
    max_blocks: int = 1
    walltime: str | float | None = None
    worker_init: str = ""
    parallelism: float = 1.0

    poll_s: ClassVar[float] = 15.0
    """Seconds between calls of `status` while nothing is expected to change."""
    quick_poll_s: ClassVar[float] = 2.0
    """Seconds between calls of `status` while a block starts or ends; more and more of them if nothing changes."""
    patience_s: ClassVar[float] = 60.0
    """After so many seconds in which `status` fails the executor fails, if blocks of it are starting."""
    elsewhere: ClassVar[bool] = False
    """Whether its blocks run on other machines, whose managers connect over TCP."""
    places_steps: ClassVar[bool] = False
    """Whether its blocks are jobs of Slurm, whose tasks can be steps of their own."""

    @property
    def min_poll_s(self) -> float:
        """Seconds between calls of `status` that are never undercut while the run goes on."""
        return 0.0

    def some_node(self) -> str | None:
        """Name or address of a node that blocks may run on, to find this machine's way to it; None if not known.

        Called once, when a run starts. An error or a slow answer delays or fails nothing but this.
        """
        return None

    def __post_init__(self) -> None:
        """Check the values; a subclass that has a check of its own calls this first.

        The types of a subclass's own fields are checked too.
        """
        check_arguments(self)
        for key, least in (("nodes_per_block", 1), ("init_blocks", 0), ("min_blocks", 0), ("max_blocks", 0)):
            if getattr(self, key) < least:
                raise field_error(self, key, f"{getattr(self, key)} is not a whole number of {least} or more.")
        for key in ("init_blocks", "min_blocks"):
            if getattr(self, key) > self.max_blocks:
                problem = f"{key}={getattr(self, key)} is above max_blocks={self.max_blocks}."
                raise field_error(self, (key, "max_blocks"), f"{problem} Lower {key} or raise max_blocks.")
        if not 0 <= self.parallelism <= 1:
            raise field_error(self, "parallelism", f"{show(self.parallelism)} is not a number between 0 and 1.")
        if "\0" in self.worker_init:
            raise field_error(self, "worker_init", "it contains a null character, which no shell can read.")
        try:
            walltime_s = self.walltime_s
        except ConfigError as error:
            raise field_error(self, "walltime", str(error)) from None
        if walltime_s is not None and walltime_s <= 0:
            raise field_error(self, "walltime", f"{show(self.walltime)} leaves no time. Use None for no limit.")

    @property
    def walltime_s(self) -> float | None:
        """`walltime` in seconds."""
        return None if self.walltime is None else parse_duration(self.walltime)

    def node(self) -> NodeShape:
        """What each node offers, as far as this provider asks for it; managers tell the rest."""
        return NodeShape()

    def default_launcher(self) -> Launcher:
        """How managers are started if the executor does not say it."""
        return SingleNodeLauncher()

    def check_launcher(self, launcher: Launcher) -> None:  # noqa: B027  not every provider minds
        """See that managers can be started in this way.

        Raises:
            ConfigError: they cannot.
        """

    @abstractmethod
    def submit(self, job: BlockJob) -> str:
        """Hand in a block; returns its batch id, which is never used again for another block.

        Writes `job.script` (creating folders as needed) so that people can see what was run.

        Raises:
            InfrastructureError: the batch system refused; its own words are in the message.
            SubmitLater: not now; nothing was handed in.
            SubmitRefused: never, as things are configured.
            OSError: the script or the output files cannot be written.
        """

    @abstractmethod
    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        """The state of each of these blocks, from one query. An unknown one is MISSING.

        A state that is `terminal` is final: it is reported unchanged from then on. It is reported only
        when all of the block's processes are gone. An id may be that of a block another process submitted.

        Raises:
            InfrastructureError, OSError: the batch system cannot be asked now; the caller tries again.
        """

    @abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End these blocks, pending ones too, politely at first and then for certain. Does not wait.

        Blocks that have ended, or are unknown, or are being cancelled, are passed over.
        """

    @abstractmethod
    def cancel_argv(self, ids: Sequence[str]) -> tuple[str, ...]:
        """A command that cancels these blocks by itself, for use when this process is dead."""

    def end_fd(self, batch_id: str) -> int | None:
        """A new descriptor that can be read once the block is over, or None if there is no such thing.

        With one, the block's end is seen at once however seldom `status` is called. The caller closes it.
        """
        return None

    def cancel_named_argv(self, jobs: Sequence[BlockJob]) -> tuple[str, ...]:
        """The same for blocks of which no batch id is known yet, as `submit` has not returned; () if there is none."""
        return ()


def script_text(job: BlockJob, worker_init: str, title: str, header: str = "") -> str:
    """The script of a block: interpreter line, header of the batch system, environment, `worker_init`, managers.

    Args:
        job: the block.
        worker_init: as in `Provider`.
        title: one line of comment that says where the block runs.
        header: further lines that must come first, such as `#SBATCH` directives.
    """
    parts = ["#!/bin/bash", header.rstrip("\n"), f"# pilotflow block {job.name}: {title}"]
    parts += [f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()]
    if job.prelude.strip():
        parts += ["# ---- Python environment", job.prelude.rstrip("\n")]
    if worker_init.strip():
        parts += [
            "# ---- worker_init",
            worker_init.rstrip("\n"),
            "pilotflow_code=$?",
            'if [ "$pilotflow_code" -ne 0 ]; then',
            f'  echo "pilotflow: worker_init of block {job.name} failed with exit code $pilotflow_code" >&2',
            '  exit "$pilotflow_code"',
            "fi",
        ]
    parts += ["# ---- managers", job.command.rstrip("\n")]
    return "\n".join(part for part in parts if part) + "\n"
