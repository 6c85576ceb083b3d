"""The nodes of the Slurm job that this process is in, for a manager that has all of them."""

from __future__ import annotations

import logging
import os
import subprocess
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.node.slurm_nodes import SlurmNode, nodes_of_environment, read_job_nodes
from pilotflow.units import counted

SCONTROL_TIMEOUT_S: Final = 20.0


def job_nodes(log: logging.Logger, remedy: str) -> tuple[SlurmNode, ...]:
    """The nodes of the job, each with what the job has of it.

    Args:
        log: gets a line about them.
        remedy: what is to be done where there is no job.

    Raises:
        ConfigError: this process is in none.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        raise ConfigError(remedy)
    nodes: tuple[SlurmNode, ...] = ()
    try:
        argv = ["scontrol", "show", "job", "--details", job]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SCONTROL_TIMEOUT_S, check=False)
        nodes = read_job_nodes(done.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("scontrol does not say what job %s has (%s); its variables must do", job, error)
    nodes = nodes or nodes_of_environment(os.environ)
    if not nodes:
        raise ConfigError(f"Neither scontrol nor the environment says which nodes Slurm job {job} has.")
    log.info(
        "job %s has %s: %s",
        job,
        counted(len(nodes), "node"),
        ", ".join(f"{node.name} ({node.cpus} CPUs)" for node in nodes),
    )
    return nodes
