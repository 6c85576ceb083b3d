"""One task as a step of Slurm: the command line of its srun.

Seen on Slurm 22.05: without `--exact` a step takes the job's whole share of its node, and others wait; without
`--mem` in a job that was sized by `--mem` it takes all memory, and others wait; `--mem=0` books none and
lets it use what there is. srun does not read SLURM_CPUS_PER_TASK, so `--cpus-per-task` is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

_MIB: Final = 1 << 20
_LATE_S: Final = 60.0
"""Slurm ends a step so much later than the manager at the head of the allocation should have."""


@dataclass(frozen=True, kw_only=True)
class TaskStep:
    """Where one task runs, and what it may use.

    Attributes:
        name: of the step, in the batch system's lists.
        node: the node, as Slurm calls it.
        cpus: CPUs; None for whatever it takes, beside others that do the same (depth-limited dispatch).
        memory_bytes: memory, enforced where the site enforces it; 0 if the task did not say.
        gpus: GPUs; the step sees no others.
        runtime_s: when its time is over, or None.
        grace_s: seconds from the warning to the end.
    """

    name: str
    node: str
    cpus: int | None
    memory_bytes: int = 0
    gpus: int = 0
    runtime_s: float | None = None
    grace_s: float = 5.0


def task_argv(command: Sequence[str], step: TaskStep, options: Sequence[str] = ()) -> list[str]:
    """The srun that runs a command as one process on one node, with what the task has asked for and no more.

    Args:
        command: the argument list; every argument arrives as it is.
        step: what is asked for.
        options: further options, of the executor's launcher.
    """
    share = ["--overlap"] if step.cpus is None else ["--exact", f"--cpus-per-task={step.cpus}"]
    argv = [
        "srun",
        f"--job-name={step.name}",
        "--nodes=1",
        "--ntasks=1",
        f"--nodelist={step.node}",
        *share,
        f"--mem={ceil(step.memory_bytes / _MIB)}M" if step.memory_bytes else "--mem=0",
        f"--gres=gpu:{step.gpus}" if step.gpus else "--gres=none",
        "--mpi=none",
        "--export=ALL",
        "--input=none",
        "--quiet",
    ]
    if step.runtime_s is not None:  # in whole minutes, for Slurm: the manager is more exact, if it is alive
        argv.append(f"--time={ceil((step.runtime_s + step.grace_s + _LATE_S) / 60)}")
        argv.append(f"--signal=TERM@{max(1, ceil(step.grace_s))}")
    return [*argv, *options, *command]
