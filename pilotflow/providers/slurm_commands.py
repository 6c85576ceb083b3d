"""The commands of Slurm: run with a time limit, told which jobs they are for, and what they complained about."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pilotflow.errors import InfrastructureError

MAX_ARGS: Final = 1000
"""Jobs that one scancel is told of."""


class NoAnswer(InfrastructureError):
    """A command took too long."""


def run(
    argv: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of Slurm.

    Args:
        argv: its argument list.
        timeout_s: how long it may take (`cmd_timeout`).
        environment: its variables; this program's if not given.

    Raises:
        NoAnswer: it took too long.
        InfrastructureError: there is no such command.
    """
    try:
        return subprocess.run(
            argv,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{argv[0]} has not answered within {timeout_s:g} s (cmd_timeout)") from None
    except FileNotFoundError:
        raise InfrastructureError(
            f"There is no {argv[0]} on PATH here. Run this where Slurm's commands are, such as a login node, or load "
            "the module that has them."
        ) from None


def job_of(batch_id: str) -> str:
    """The job's number in a batch id, which may name a cluster."""
    return batch_id.partition(";")[0]


def by_cluster(ids: Iterable[str]) -> dict[str, list[str]]:
    """Job ids by their cluster, "" for the default one."""
    found = defaultdict[str, list[str]](list)
    for batch_id in ids:
        job, _, cluster = batch_id.partition(";")
        if job.isdecimal():
            found[cluster].append(job)
    return found


def cancel_commands(ids: Sequence[str]) -> list[tuple[str, ...]]:
    """The commands that cancel these jobs, some hundreds at once."""
    commands: list[tuple[str, ...]] = []
    for cluster, jobs in by_cluster(ids).items():
        where = (f"--clusters={cluster}",) if cluster else ()
        commands += [("scancel", *where, *jobs[at : at + MAX_ARGS]) for at in range(0, len(jobs), MAX_ARGS)]
    return commands


def said_by(done: subprocess.CompletedProcess[str]) -> str:
    """What a command has complained about, on one line and without its name."""
    lines = [
        line.removeprefix(f"{done.args[0]}: ").removeprefix("error: ").strip() for line in done.stderr.splitlines()
    ]
    return "; ".join(dict.fromkeys(line.rstrip(".") for line in lines if line)) or f"exit code {done.returncode}"
