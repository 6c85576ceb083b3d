"""Managers and ranks by Slurm's srun, inside a job of Slurm.

Seen on Slurm 22.05 with three and four nodes:

- The managers' step books no memory and overlaps, so that steps and `mpirun` start beside it, also in jobs
  that were sized by `--mem-per-cpu` (without `--mem=0` there: "Memory required by task is not available").
- Without `--cpus-per-task` (and SLURM_CPUS_PER_TASK) the managers' step has all of the job's cores on
  each node, also if nodes have different numbers of them; with it, Slurm refuses such jobs ("More processors
  requested than permitted") and `--exact` is implied.
- SIGTERM to srun kills all tasks at once with SIGKILL, one SIGINT does nothing; SIGUSR1 is passed on within
  a millisecond. SIGKILL to srun leaves its step running.
- In a step, Open MPI refuses to be a program of one process ("The application appears to have been direct
  launched using srun") while SLURM_STEP_ID is set, so tasks could not import mpi4py; managers drop it.
- `--distribution=arbitrary` puts ranks on nodes in exactly the order of `--nodelist`, with `--exact`,
  `--ntasks-per-node` and `--mpi=pmix`; the default sorts the nodes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.checks import check_options
from pilotflow.launchers.copies import copy_text, started
from pilotflow.launchers.rank_text import rank_command
from pilotflow.launchers.steps import OF_JOB, SRUN_INPUTS, Step

_MIB: Final = 1 << 20
_LATE_S: Final = 60.0
"""Slurm ends a step so much later than whoever runs it should have."""

# SLURM_JOB_GPUS is about the job's first node; on the others nothing says that it is not theirs.
_FORGET_STEP: Final = "unset SLURM_STEP_ID SLURM_STEPID SLURM_JOB_GPUS"
_INDEX: Final = 'export PILOTFLOW_NODE_INDEX="$SLURM_NODEID"'
_ALONE: Final = {
    "SLURM_JOB_NODELIST": "$SLURMD_NODENAME",
    "SLURM_NODELIST": "$SLURMD_NODENAME",
    "SLURM_JOB_NUM_NODES": "1",
    "SLURM_NNODES": "1",
    "SLURM_TASKS_PER_NODE": "$SLURM_CPUS_ON_NODE",
    "SLURM_JOB_CPUS_PER_NODE": "$SLURM_CPUS_ON_NODE",
}


@dataclass(frozen=True)
class SrunLauncher(Launcher):
    """Starts the managers of a block as one step of a Slurm job, and ranks as steps beside it.

    Args:
        mpi: the kind of MPI that ranks use, as `srun --mpi=list` names them, such as "pmix"; the site's
            default (MpiDefault) if not given.
        options: further options of every srun, such as ("--network=single_sn_vni",).
        step_options: further options of those that start ranks.

    Raises:
        ConfigError: an option is not a word, or `mpi` is none.
    """

    mpi: str | None = None
    options: tuple[str, ...] = ()
    step_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_options(self, "options", "step_options")
        if self.mpi is not None:
            check_options(self, "mpi")

    @property
    def starts_ranks(self) -> bool:
        """See `Launcher.starts_ranks`."""
        return True

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`. The text runs in the job's batch script."""
        srun = [*self._managers_srun(nodes), "bash", "-p", "-c", copy_text(command, f"{_INDEX}\n{_FORGET_STEP}")]
        return started(f"{_in_background(shlex.join(srun))}\npilotflow_pids=$!", "USR1")

    def _managers_srun(self, nodes: int) -> list[str]:
        """The managers' srun, up to their command. All that a site may have set otherwise is said."""
        return [
            "srun",
            "--job-name=pilotflow-managers",
            f"--nodes={nodes}",
            f"--ntasks={nodes}",
            "--ntasks-per-node=1",
            "--overlap",
            "--mem=0",
            "--cpu-bind=none",
            "--mpi=none",
            "--export=ALL",
            "--input=none",
            "--kill-on-bad-exit=0",
            "--wait=0",
            *self.options,
        ]

    def step(self, command: Sequence[str], step: Step) -> list[str]:
        """See `Launcher.step`. The command runs in the job's batch script, beside the managers.

        Raises:
            ConfigError: the step is for several logical nodes of one host, which Slurm knows nothing of.
        """
        if step.local and len(step.nodes) > 1:
            raise ConfigError(
                f"{type(self).__name__} starts ranks on nodes of a Slurm job, and step {step.name} is for logical "
                "nodes of one machine. Give the executor launcher: single_node or mpirun."
            )
        nodes = step.hostfile
        if nodes is None or step.local:  # the host file of a local step has no name that Slurm knows
            nodes = ",".join(node for node in step.nodes for _ in range(step.ranks_per_node))
        argv = [
            "srun",
            f"--job-name={step.name}",
            f"--nodelist={nodes}",
            "--distribution=arbitrary",  # --nodes beside it is refused by Slurm 24.11
            f"--ntasks={step.ranks}",
            f"--ntasks-per-node={step.ranks_per_node}",
        ]
        if step.cpus_per_rank is not None:
            argv += [f"--cpus-per-task={step.cpus_per_rank}", "--exact"]
        argv += [
            "--overlap",
            f"--mem={-(-step.memory_bytes // _MIB)}M" if step.memory_bytes else "--mem=0",
            f"--gres=gpu:{step.gpus_per_node}" if step.gpus_per_node else "--gres=none",
            "--export=ALL",
            "--input=none",
            "--kill-on-bad-exit=1",
            "--wait=0",
        ]
        if step.runtime_s is not None:
            argv.append(f"--time={-(-int(step.runtime_s + _LATE_S) // 60)}")
        if self.mpi is not None:
            argv.append(f"--mpi={self.mpi}")
        return [*argv, *self.options, *self.step_options, *rank_command(command, step)]


@dataclass(frozen=True)
class SrunMPILauncher(SrunLauncher):
    """As `SrunLauncher`, with a step of its own for each manager, whose tasks see a job of one node.

    So an `mpirun` in a task of one node uses that node, where it would otherwise use the first nodes of
    the job (seen with Open MPI 4.1). Steps that start ranks see the whole job again. See `SrunLauncher` for
    the arguments.
    """

    mpi: str | None = "pmix"

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`. The text runs in the job's batch script."""
        kept = " ".join(f"{OF_JOB}{name}=${name}" for name in _ALONE)
        shown = " ".join(f"{name}={value}" for name, value in _ALONE.items())
        head = f"export {kept}\nexport {shown}\n{_FORGET_STEP}"
        srun = [*self._managers_srun(1), "bash", "-p", "-c", copy_text(command, head)]
        at = len(self._managers_srun(1))
        text = f'{shlex.join(srun[:at])} --relative="$pilotflow_node" {shlex.join(srun[at:])}'
        start = (
            f"for pilotflow_node in {' '.join(map(str, range(nodes)))}; do\n"
            f"  export PILOTFLOW_NODE_INDEX=$pilotflow_node\n"
            f"  {_in_background(text)}\n"
            f'  pilotflow_pids="$pilotflow_pids $!"\n'
            f"done\n"
            f"unset PILOTFLOW_NODE_INDEX"
        )
        return started(start, "USR1")


def _in_background(text: str) -> str:
    """A command of srun that is started without what it would read from the environment."""
    return f"(unset {' '.join(SRUN_INPUTS)}; exec {text}) &"
