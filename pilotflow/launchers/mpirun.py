"""Managers and ranks by mpirun or mpiexec: Open MPI's, or Hydra's (MPICH, Intel MPI).

Seen with Open MPI 4.1.4 and MPICH 4.0.2 (Debian 12), and with Open MPI 5.0.7 (Debian 13):

- A lone ":" among the arguments begins another program for both, so commands go inside one argument.
- `mpirun --map-by seq` puts ranks on hosts in exactly the order of `--host` or `--hostfile`; `ppr` sorts them
  into the order of the allocation.
- Inside a Slurm job Open MPI counts one slot for each task of the job; with ras_slurm_use_entire_allocation
  one for each core. Its daemons are a step, so it needs `--overlap --mem=0` beside another one.
- Open MPI ends all copies when one fails. With orte_abort_on_non_zero_status=0 it does not, but then its own
  exit code is 0, and a copy that dies by a signal makes it hang. So managers report their ends as text.
- SIGTERM makes Open MPI send SIGCONT, after a second SIGTERM, after another SIGKILL (both waits are
  odls_base_sigkill_timeout; with 0 a step whose rank failed ended after 0.75 s, not 3.8); Hydra sends SIGTERM at once and SIGKILL after two seconds. Both pass SIGUSR1 on
  within a millisecond.
- Open MPI 5 ends everything within half a second of SIGTERM, whatever odls_base_sigkill_timeout says. So where all
  processes of a block get it, as when its batch job is cancelled, managers may be lost where they would have left.
- Hydra ends the other ranks only if one dies by a signal, not if it exits with another code than 0.
- MPICH over two nodes of a Slurm job hangs now and then in MPI_Finalize (Debian's build, UCX); on one node
  it works.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.checks import check_options
from pilotflow.launchers.copies import copy_text, forget_launch, started
from pilotflow.launchers.rank_text import rank_command
from pilotflow.launchers.steps import (
    LOCALHOST,
    OPENMPI_UNDER_SLURM,
    RANK_VARIABLES,
    SRUN_INPUTS,
    Step,
    step_environment,
)
from pilotflow.units import did_you_mean, show

Family: TypeAlias = Literal["openmpi", "mpich"]

_FAMILIES: Final = ("openmpi", "mpich")
_LATE_S: Final = 60.0
"""Open MPI ends a step so much later than whoever runs it should have."""
_UNDER_SLURM: Final = tuple(word for item in OPENMPI_UNDER_SLURM.items() for word in ("--mca", *item))
_END_AT_ONCE: Final = ("--mca", "odls_base_sigkill_timeout", "0")
"""Ranks are warned by SIGUSR1, with a grace of ours. With Open MPI's own seconds a failure takes three more."""

# The ends of the copies come as text; the first failure counts, in the order of the nodes. If not all have
# come, mpirun itself has failed.
_START: Final = """\
pilotflow_ends=$(mktemp)
(unset {unset}; exec {mpirun}) </dev/null >"$pilotflow_ends" &
pilotflow_pids=$!"""
_AFTER: Final = """\
pilotflow_left={nodes} pilotflow_first={nodes} pilotflow_failed=0
while read -r pilotflow_word pilotflow_node pilotflow_rc; do
  [ "$pilotflow_word" = pilotflow-end ] || continue
  pilotflow_left=$((pilotflow_left - 1))
  if [ "$pilotflow_rc" -ne 0 ] && [ "$pilotflow_node" -lt "$pilotflow_first" ]; then
    pilotflow_first=$pilotflow_node pilotflow_failed=$pilotflow_rc
  fi
done <"$pilotflow_ends"
rm -f "$pilotflow_ends"
if [ "$pilotflow_failed" -ne 0 ]; then
  pilotflow_code=$pilotflow_failed
elif [ "$pilotflow_left" -le 0 ]; then
  pilotflow_code=0
elif [ "$pilotflow_code" -eq 0 ]; then
  pilotflow_code=1
fi
"""


@dataclass(frozen=True)
class MpirunLauncher(Launcher):
    """Starts managers and ranks with `mpirun`, which finds the nodes by itself: those of the batch job.

    On one machine it starts all there. The managers' stdout goes to the block's stderr. Memory and GPUs
    of a step are not limited by mpirun.

    Args:
        mpi: whose mpirun it is: "openmpi", or "mpich" for Hydra's (MPICH, Intel MPI). Of MPICH, steps on
            one node are known to work.
        options: further options of every mpirun, such as ("--mca", "btl", "^openib").
        step_options: further options of those that start ranks. Open MPI binds them to nothing, unless
            this says so, for example ("--bind-to", "core").
        program: the program to run.

    Raises:
        ConfigError: `mpi` is unknown, or an option is not a word.
    """

    mpi: Family = "openmpi"
    options: tuple[str, ...] = ()
    step_options: tuple[str, ...] = ()
    program: str = "mpirun"

    def __post_init__(self) -> None:
        if self.mpi not in _FAMILIES:
            raise ConfigError(
                f"{type(self).__name__}(mpi=...): {show(self.mpi)} is unknown{did_you_mean(str(self.mpi), _FAMILIES)}. "
                f"Valid: {', '.join(_FAMILIES)}."
            )
        check_options(self, "options", "step_options", "program")

    @property
    def starts_ranks(self) -> bool:
        """See `Launcher.starts_ranks`."""
        return True

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`."""
        if self.mpi == "openmpi":
            where = [*_UNDER_SLURM, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--map-by", "node"]
            argv = [self.program, *where, *self.options, "-np", str(nodes)]
        else:
            argv = [self.program, "-bind-to", "none", "-ppn", "1", *self.options, "-n", str(nodes)]
        rank = ""
        for name in reversed(RANK_VARIABLES):
            rank = f"${{{name}:-{rank}}}"
        head = f"export PILOTFLOW_NODE_INDEX={rank}\n{forget_launch()}"
        mpirun = shlex.join([*argv, "bash", "-p", "-c", copy_text(command, head, report=True)])
        return started(_START.format(unset=" ".join(SRUN_INPUTS), mpirun=mpirun), "USR1", _AFTER.format(nodes=nodes))

    def step(self, command: Sequence[str], step: Step) -> list[str]:
        """See `Launcher.step`."""
        compose = openmpi_step if self.mpi == "openmpi" else hydra_step
        return compose(self.program, command, step, (*self.options, *self.step_options))


@dataclass(frozen=True)
class MpiexecLauncher(MpirunLauncher):
    """As `MpirunLauncher`, with `mpiexec`, of MPICH or Intel MPI if `mpi` does not say "openmpi".

    See `MpirunLauncher` for the arguments.
    """

    mpi: Family = "mpich"
    program: str = "mpiexec"


def openmpi_step(program: str, command: Sequence[str], step: Step, options: Sequence[str] = ()) -> list[str]:
    """A step by Open MPI: one rank on each line of the host file, in its order.

    Logical nodes of one machine are all "localhost", with a slot for each rank; under their own names mpirun
    would log in to them, and the sequential mapper does not know that name.

    Source: mpirun(1) of Open MPI 4.1.
    """
    argv = [program, *_UNDER_SLURM, *_END_AT_ONCE, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
    if step.local:
        argv += ["--host", f"{LOCALHOST}:{step.ranks}"]
    else:
        argv += ["--map-by", "seq"]
        argv += ["--hostfile", step.hostfile] if step.hostfile else ["--host", ",".join(step.host_of_rank)]
    for name in step_environment(step):
        argv += ["-x", name]
    if step.runtime_s is not None:
        argv += ["--timeout", str(int(step.runtime_s + _LATE_S))]
    return [*argv, *options, "-np", str(step.ranks), *rank_command(command, step)]


def hydra_step(program: str, command: Sequence[str], step: Step, options: Sequence[str] = ()) -> list[str]:
    """A step by Hydra: as many ranks on each host as the host file has lines of it.

    Source: mpiexec.hydra -help of MPICH 4.0.
    """
    argv = [program, "-bind-to", "none", "-genvall"]
    if step.local:
        argv += ["-hosts", f"{LOCALHOST}:{step.ranks}"]
    elif step.hostfile:
        argv += ["-f", step.hostfile]
    else:
        argv += ["-hosts", ",".join(f"{host}:{step.ranks_per_node}" for host in step.hosts)]
    return [*argv, *options, "-n", str(step.ranks), *rank_command(command, step, kill_on_failure=True)]
