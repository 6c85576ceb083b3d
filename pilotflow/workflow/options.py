"""How a workflow is to be run on this machine, and the configuration that comes of it."""

from __future__ import annotations

from typing import Final

import msgspec

from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.providers.local import LocalProvider
from pilotflow.workflow.records import Job, Workflow

LOCAL: Final = "local"
"""The executor that is this machine."""
KEEP_S: Final = 3600.0
GRACE_MARGIN_S: Final = 5.0


class RunOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the command line says about where jobs run; kept in the store, for those who go on with the run.

    Attributes:
        num_cpus, memory_bytes, num_gpus: what this machine offers, instead of what is measured.
        max_parallel_jobs: run so many at once and ignore what they ask for.
        local: whether this machine runs jobs at all; else all come from runners.
        open: whether jobs that fit nowhere wait for a runner, instead of failing.
        auto_recover: whether jobs that fail for lack of memory or time ask for more and run again.
        keep_s: if the run's program dies, managers finish what they run, and wait so long for another.
    """

    num_cpus: int | None = None
    memory_bytes: int | None = None
    num_gpus: int | None = None
    max_parallel_jobs: int | None = None
    local: bool = True
    open: bool = False
    auto_recover: bool = False
    keep_s: float = KEEP_S


def config_of(workflow: Workflow, options: RunOptions) -> Config:
    """The configuration of a run on this machine."""
    execution = workflow.execution
    executor = ExecutorConfig(
        label=LOCAL,
        provider=LocalProvider(init_blocks=int(options.local), min_blocks=0, max_blocks=int(options.local)),
        num_cpus=options.num_cpus,
        memory=options.memory_bytes,
        num_gpus=options.num_gpus,
        max_parallel_jobs=options.max_parallel_jobs,
        memory_margin=0.05 if execution.limit_resources else 10.0,
        runtime_grace=execution.sigterm_lead_s + GRACE_MARGIN_S,
    )
    return Config(executors=[executor], job_sort_method=workflow.sort_method.value)


def binding_of(job: Job) -> tuple[str, ...]:
    """Which executors a job may run on: here any, whatever scheduler it names, but with a label only those that have it."""
    return (job.label,) if job.label is not None else ()
