"""The batch script of a block, for Slurm: directives from a provider's fields. Pure.

Source of the directives: sbatch(1) of Slurm 22.05. Seen there: of two directives for one option the last
one counts, so a user's own lines come after ours; a value in double quotes is taken as it is but for
backslash and quote; `%` in file names begins a pattern and is doubled to be itself.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from pilotflow.providers.base import BlockJob, script_text

if TYPE_CHECKING:
    from pilotflow.providers.slurm import SlurmProvider

_PLAIN: Final = re.compile(r"[A-Za-z0-9_./:@%+=,\[\]*|&!?-]+")
_JOB_NAME: Final = re.compile(r"[^A-Za-z0-9_.:-]")

INPUTS: Final = {
    "account": "SBATCH_ACCOUNT",
    "clusters": "SBATCH_CLUSTERS",
    "comment": "SBATCH_COMMENT",
    "constraint": "SBATCH_CONSTRAINT",
    "exclusive": "SBATCH_EXCLUSIVE",
    "export": "SBATCH_EXPORT",
    "gpus-per-node": "SBATCH_GPUS_PER_NODE",
    "gres": "SBATCH_GRES",
    "job-name": "SBATCH_JOB_NAME",
    "mem": "SBATCH_MEM_PER_NODE",
    "no-requeue": "SBATCH_NO_REQUEUE",
    "open-mode": "SBATCH_OPEN_MODE",
    "partition": "SBATCH_PARTITION",
    "qos": "SBATCH_QOS",
    "requeue": "SBATCH_REQUEUE",
    "reservation": "SBATCH_RESERVATION",
    "time": "SBATCH_TIMELIMIT",
}
"""Variables that sbatch reads, and that would go before a directive of the script."""


def batch_script(provider: SlurmProvider, job: BlockJob) -> str:
    """The whole script of a block."""
    header = "\n".join(f"#SBATCH {line}" for line in directives(provider, job))
    own = provider.scheduler_options.strip("\n")
    header = f"{header}\n# ---- scheduler_options\n{own}" if own.strip() else header
    if not provider.export_environment:  # sbatch sets it, and then an srun of a task would start with no PATH
        header += "\nunset SLURM_EXPORT_ENV"
    return script_text(job, provider.worker_init, f"{job.nodes} node(s) from Slurm", header)


def directives(provider: SlurmProvider, job: BlockJob) -> list[str]:
    """The options of the block's job, one a line, as in `--nodes=2`."""
    options: dict[str, str | None] = {
        "job-name": job_name(job),
        "comment": f"pilotflow block {job.name}" + (f" of run {job.run}" if job.run else ""),
        "output": _file(str(job.stdout)),
        "error": _file(str(job.stderr)),
        "open-mode": "append",
        "nodes": str(job.nodes),
        "ntasks-per-node": "1",
    }
    if job.walltime_s is not None:
        options["time"] = time_text(job.walltime_s)
    options["requeue" if provider.requeue else "no-requeue"] = None
    options["export"] = "ALL" if provider.export_environment else "NONE"
    for key in ("partition", "account", "qos", "constraint", "reservation", "gres"):
        if (value := getattr(provider, key)) is not None:
            options[key] = value
    if provider.gpus_per_node is not None:
        options["gpus-per-node"] = str(provider.gpus_per_node)
    if provider.cores_per_node is not None:
        options["cpus-per-task"] = str(provider.cores_per_node)
    if provider.mem_per_node is not None:
        options["mem"] = f"{math.ceil(provider.mem_per_node * 1024)}M"
    if provider.is_exclusive:
        options["exclusive"] = None
    if job.exclude_nodes:
        options["exclude"] = ",".join(job.exclude_nodes)
    return [f"--{name}" if value is None else f"--{name}={quoted(value)}" for name, value in options.items()]


def job_name(job: BlockJob) -> str:
    """The batch job's name, which says whose it is; no other job has it, if the run has a name."""
    return _JOB_NAME.sub("-", f"pilotflow:{job.run.split()[0]}:{job.name}" if job.run else f"pilotflow:{job.name}")


def time_text(seconds: float) -> str:
    """A duration as `--time` takes it, "HOURS:MM:SS"; Slurm itself counts in whole minutes, rounded up."""
    whole = max(1, math.ceil(seconds))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def quoted(value: str) -> str:
    """A value for a directive."""
    if _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _file(path: str) -> str:
    return path.replace("%", "%%")
