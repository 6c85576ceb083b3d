"""A workflow's Slurm schedulers as providers: what is asked of Slurm for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pilotflow.providers.base import BlockJob
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.providers.slurm_script import directives, quoted
from pilotflow.workflow.records import Deed, SlurmScheduler, Workflow

_OWN: Final = ("account", "constraint", "reservation", "qos")
"""Options of sbatch that the provider has keys for."""


def slurm_provider(scheduler: SlurmScheduler, allocations: int = 1, worker_init: str = "") -> SlurmProvider:
    """What gets the allocations of a scheduler; none is asked for by itself, that is the business of actions.

    Options that the provider has no key for go into the head of the batch script, after all others.

    Args:
        scheduler: what the workflow's file says.
        allocations: how many there may be at once.
        worker_init: shell text for the start of each.
    """
    options = dict(scheduler.options)
    known = {key: options.pop(key) for key in _OWN if options.get(key)}
    lines = [f"--{key}" if value == "" else f"--{key}={quoted(value)}" for key, value in options.items()]
    for key, said in (("mem", scheduler.mem), ("tmp", scheduler.tmp), ("ntasks-per-node", scheduler.ntasks_per_node)):
        if said is not None:
            lines.append(f"--{key}={quoted(str(said))}")
    if scheduler.serialize_allocations:
        # One name for all is what makes them wait for each other. The price: a batch job whose sbatch gave no
        # answer cannot be found by its name.
        lines += [f"--job-name={quoted(f'pilotflow:{scheduler.name}')}", "--dependency=singleton"]
    lines += [line.strip() for line in (scheduler.extra or "").splitlines() if line.strip()]
    return SlurmProvider(
        nodes_per_block=scheduler.nodes,
        walltime=scheduler.walltime_s,
        init_blocks=0,
        max_blocks=allocations,
        worker_init=worker_init,
        partition=scheduler.partition,
        account=scheduler.account or known.get("account"),
        qos=scheduler.qos or known.get("qos"),
        constraint=known.get("constraint"),
        reservation=known.get("reservation"),
        gres=scheduler.gres,
        scheduler_options="\n".join(f"#SBATCH {line}" for line in lines),
    )


def batch_heads(workflow: Workflow) -> Mapping[str, list[str]]:
    """For each scheduler, the options of its batch jobs, one a line, as their scripts begin with them.

    The names of the run, its folder and the block are only known when it runs; they are shown as such.
    """
    heads = dict[str, list[str]]()
    for index, scheduler in enumerate(workflow.slurm_schedulers):
        provider = slurm_provider(scheduler, max(1, allocations_of(workflow, index)))
        job = BlockJob(
            name=f"{scheduler.name}-1",
            command="",
            script=Path("RUN/scripts") / f"{scheduler.name}-1.sh",
            stdout=Path("RUN/blocks") / f"{scheduler.name}-1" / "stdout",
            stderr=Path("RUN/blocks") / f"{scheduler.name}-1" / "stderr",
            nodes=scheduler.nodes,
            walltime_s=scheduler.walltime_s,
            run="RUN",
        )
        lines = [f"#SBATCH {line}" for line in directives(provider, job)]
        heads[scheduler.name] = lines + [line for line in provider.scheduler_options.splitlines() if line]
    return heads


def allocations_of(workflow: Workflow, index: int) -> int:
    """How many allocations of a scheduler the workflow's actions ask for, all together."""
    return sum(
        action.num_allocations
        for action in workflow.actions
        if action.deed is Deed.SCHEDULE_NODES and action.scheduler == index
    )
