"""How a workflow is to be run, as the command line says it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

LOCAL: Final = "local"
"""The executor that is this machine."""
KEEP_S: Final = 3600.0
GRACE_MARGIN_S: Final = 5.0


class RunOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the command line says about where jobs run; kept in the store, for those who go on with the run.

    Attributes:
        num_cpus, memory_bytes, num_gpus: what this machine offers, instead of what is measured.
        resources: what else each node offers that jobs ask for.
        max_parallel_jobs: run so many at once and ignore what they ask for.
        local: whether this machine runs jobs at all; else all come from runners.
        slurm: whether the workflow's Slurm schedulers are used.
        settings: where and how jobs run as the command line says it, see `pilotflow.config.settings`; None if
            neither it nor anybody else has a say, or the workflow says it itself.
        open: whether jobs that fit nowhere wait for a runner, instead of failing.
        auto_recover: whether jobs that fail for lack of memory or time ask for more and run again.
        keep_s: if the run's program dies, managers finish what they run, and wait so long for another.
    """

    num_cpus: int | None = None
    memory_bytes: int | None = None
    num_gpus: int | None = None
    resources: dict[str, int] = {}
    max_parallel_jobs: int | None = None
    local: bool = True
    slurm: bool = False
    settings: dict[str, Any] | None = None
    open: bool = False
    auto_recover: bool = False
    keep_s: float = KEEP_S
