"""A step: one program that is started as ranks on several nodes at once. What it is, and its environment.

A launcher turns a `Step` and a command into an argument list, see `Launcher.step`. Rank r runs on
`nodes[r // ranks_per_node]`, whatever the launcher, so that rank 0 and HEAD_ADDRESS are the same node.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.node.slurm import expand_hosts
from pilotflow.resources import Request
from pilotflow.units import counted, kind, show

LOCALHOST: Final = "localhost"
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_FIRST_PORT: Final = 20_000
_PORTS: Final = 10_000
"""Ports of MASTER_PORT: below those that the kernel hands out by itself (from 32768 on, ip(7))."""

RANK_VARIABLES: Final = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
"""Where a rank finds its number, best first: an mpirun inside a Slurm job sets its own beside Slurm's.

Sources: mpirun(1) of Open MPI 4.1, "Environment Variables"; PMIX_RANK and PMI_RANK as srun(1) with
`--mpi=pmix` and `--mpi=pmi2`, and Hydra, were seen to set them; srun(1), "OUTPUT ENVIRONMENT VARIABLES".
"""
FOREIGN_PREFIXES: Final = (
    "OMPI_COMM_WORLD_",
    "OMPI_MCA_ess",
    "OMPI_MCA_orte_",
    "OMPI_MCA_pmix",
    "OMPI_WORLD_",
    "PMIX_DSTORE_",
    "PMIX_SERVER_",
    "PRTE_MCA_ess",
    "PRTE_MCA_prte_",
    "HYDI_",
)
FOREIGN_NAMES: Final = (
    "OMPI_APP_CTX_NUM_PROCS",
    "OMPI_ARGV",
    "OMPI_COMMAND",
    "OMPI_FILE_LOCATION",
    "OMPI_FIRST_RANKS",
    "OMPI_MCA_initial_wdir",
    "OMPI_MCA_mpi_oversubscribe",
    "OMPI_MCA_num_procs",
    "OMPI_NUM_APP_CTX",
    "OMPI_TOOL_NAME",
    "OMPI_UNIVERSE_SIZE",
    "PMIX_BFROP_BUFFER_TYPE",
    "PMIX_GDS_MODULE",
    "PMIX_HOSTNAME",
    "PMIX_ID",
    "PMIX_NAMESPACE",
    "PMIX_PARAM_FILE_PASSED",
    "PMIX_RANK",
    "PMIX_SECURITY_MODE",
    "PMIX_SYSTEM_TMPDIR",
    "PMIX_VERSION",
    "PRTE_LAUNCHED",
    "PRTE_SHARED_FS",
    "PMI_FD",
    "PMI_RANK",
    "PMI_SIZE",
    "MPI_LOCALNRANKS",
    "MPI_LOCALRANKID",
)
"""What a process that was started by mpirun or mpiexec has in its environment (Open MPI 4.1 and 5.0, Hydra 4.0).

A process that starts others must drop it: `mpirun` refuses to run inside another ("mpirun does not
support recursive calls"), and a program of one process would believe it is a rank of that other program.
"""

SRUN_INPUTS: Final = (
    "SLURM_CORE_SPEC",
    "SLURM_CPUS_PER_GPU",
    "SLURM_CPUS_PER_TASK",
    "SLURM_CPU_BIND",
    "SLURM_DISTRIBUTION",
    "SLURM_DIST_PLANESIZE",
    "SLURM_EXACT",
    "SLURM_EXCLUSIVE",
    "SLURM_GPUS",
    "SLURM_GPUS_PER_NODE",
    "SLURM_GPUS_PER_SOCKET",
    "SLURM_GPUS_PER_TASK",
    "SLURM_GPU_BIND",
    "SLURM_GRES",
    "SLURM_HINT",
    "SLURM_HOSTFILE",
    "SLURM_IMMEDIATE",
    "SLURM_LABELIO",
    "SLURM_MEM_BIND",
    "SLURM_NTASKS_PER_CORE",
    "SLURM_NTASKS_PER_GPU",
    "SLURM_NTASKS_PER_SOCKET",
    "SLURM_SPREAD_JOB",
    "SLURM_STDERRMODE",
    "SLURM_STDOUTMODE",
    "SLURM_STEP_GRES",
    "SLURM_THREAD_SPEC",
    "SLURM_THREADS_PER_CORE",
    "SLURM_TIMELIMIT",
    "SLURM_TRES_PER_TASK",
    "SLURM_USE_MIN_NODES",
    "SRUN_CPUS_PER_TASK",
)
"""Variables from which srun takes options that it was not given: what somebody asked for the job, or likes.

They would give a manager one core (SLURM_CPUS_PER_TASK before Slurm 22.05), one of a node's GPUs
(SLURM_GPUS_PER_TASK), or contradict our own options. Source: srun(1), "INPUT ENVIRONMENT VARIABLES"; those
that our options override (SLURM_NTASKS, SLURM_MEM_PER_CPU, SLURM_EXPORT_ENV, ...) are not in the list.
"""

OF_JOB: Final = "PILOTFLOW_OF_JOB_"
"""Before the names of variables that a launcher has changed for its managers' tasks: what they are in the job."""
OPENMPI_UNDER_SLURM: Final = MappingProxyType(
    {"plm_slurm_args": "--overlap --mem=0 --export=ALL", "ras_slurm_use_entire_allocation": "1"}
)
"""Parameters with which Open MPI starts its daemons beside another step, and counts cores, not tasks, as slots.

Source: `ompi_info --all --level 9` of Open MPI 4.1, `prte_info --all` of 5.0; they mean nothing outside of Slurm.
"""

_OPENMPI: Final = ("OMPI_MCA_", "PRTE_MCA_")
"""Before the names of parameters that start processes, up to Open MPI 4 and from 5 on."""
_OF_RANKS: Final = frozenset(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "PET_NNODES", "PET_MASTER_ADDR", "PET_MASTER_PORT"))
"""Variables of a step that are wrong for a program that has no ranks yet."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Which ranks to start where.

    Attributes:
        name: names the step in the batch system's lists; unique in the run, safe as a file name.
        nodes: the nodes as the launcher knows them (for Slurm, SLURMD_NODENAME), rank 0's first. For
            `local` steps only their number counts.
        ranks_per_node: ranks on each node.
        cpus_per_rank: cores for each rank; None for all of the node's, shared by its ranks.
        memory_bytes: memory on each node; None for all of it.
        gpus_per_node: GPUs on each node.
        runtime_s: seconds after which the step is ended by whoever runs it, or None. Launchers that can
            end it too do so about a minute later, in case that process is dead.
        local: the nodes are logical ones, all on the host of the process that starts the step.
        directory: the step's own directory, which all nodes can reach, or None. It has the host file,
            and ranks that fail leave word in it.

    Raises:
        ConfigError: a value is wrong; the message names it.
    """

    name: str
    nodes: tuple[str, ...]
    ranks_per_node: int = 1
    cpus_per_rank: int | None = 1
    memory_bytes: int | None = None
    gpus_per_node: int = 0
    runtime_s: float | None = None
    local: bool = False
    directory: str | None = None

    def __post_init__(self) -> None:
        name, nodes, directory = map(_as_given, (self.name, self.nodes, self.directory))
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _error("name", name, "Use letters, digits and _ . - (at most 128, a letter or digit first).")
        if not isinstance(nodes, tuple) or not nodes:
            raise _error("nodes", nodes, "Give a tuple of at least one node.")
        for node in nodes:
            if not isinstance(node, str) or not _NODE.fullmatch(node):
                raise _error("nodes", node, "A node is given by its host name.")
        if len(set(nodes)) < len(nodes) and not self.local:
            twice = next(node for node in nodes if nodes.count(node) > 1)
            raise _error("nodes", twice, "It is in the list twice; raise ranks_per_node to run more on each node.")
        if directory is not None and (
            not isinstance(directory, str) or not directory.startswith("/") or "\0" in directory
        ):
            raise _error("directory", directory, "Give an absolute path: ranks start in directories of their own.")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for key, least in (("ranks_per_node", 1), ("cpus_per_rank", 1), ("memory_bytes", 1), ("gpus_per_node", 0)):
            value = getattr(self, key)
            if value is None and key in {"cpus_per_rank", "memory_bytes"}:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise _error(key, value, f"It is {kind(value)}; give a whole number of {least} or more.")
        if self.runtime_s is not None and not 0 < self.runtime_s < float("inf"):
            raise _error("runtime_s", self.runtime_s, "Give more than 0 seconds, or None for no limit.")

    @classmethod
    def of(
        cls, name: str, request: Request, nodes: tuple[str, ...], *, local: bool = False, directory: str | None = None
    ) -> Step:
        """The step of a task: what it asked for, per node, shared by the ranks of a node.

        Args:
            name, nodes, local, directory: see the attributes.
            request: what the task asked for. Its cores are divided by `ranks_per_node` and rounded down,
                to at least one each; parts of GPUs are rounded up.

        Raises:
            ConfigError: as for the constructor, or the request is for another number of nodes.
        """
        if len(nodes) != request.num_nodes:
            raise ConfigError(
                f"Step {name}: the task asks for {counted(request.num_nodes, 'node')} and was given {len(nodes)}."
            )
        return cls(
            name=name,
            nodes=nodes,
            ranks_per_node=request.ranks_per_node,
            cpus_per_rank=max(1, request.cpus_milli // (1000 * request.ranks_per_node)),
            memory_bytes=request.memory_bytes or None,
            gpus_per_node=-(-request.gpus_milli // 1000),
            runtime_s=request.limit_s,
            local=local,
            directory=directory,
        )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Addresses of the nodes: their names, or this host's once for each logical node."""
        return (LOCALHOST,) * len(self.nodes) if self.local else self.nodes

    @property
    def host_of_rank(self) -> tuple[str, ...]:
        """The host of each rank."""
        return tuple(host for host in self.hosts for _ in range(self.ranks_per_node))

    @property
    def ranks(self) -> int:
        """Ranks on all nodes together."""
        return len(self.nodes) * self.ranks_per_node

    @property
    def hostfile(self) -> str | None:
        """Path of the host file, if the step has a directory."""
        return None if self.directory is None else f"{self.directory}/hosts"

    @property
    def slots_file(self) -> str | None:
        """Path of the host file for programs that start Open MPI themselves, if the step has a directory."""
        return None if self.directory is None else f"{self.directory}/slots"

    @property
    def slots_text(self) -> str:
        """One line for each host, with its ranks as slots, as Open MPI reads it."""
        slots = Counter(self.host_of_rank)
        return "".join(f"{host} slots={count}\n" for host, count in slots.items())

    @property
    def hostfile_text(self) -> str:
        """One line for each rank, its host, in the order of the ranks.

        This form is read by Open MPI (`--hostfile`), Hydra (`-f`), Slurm (`--nodelist`, SLURM_HOSTFILE)
        and Julia (`--machine-file`), and is that of PBS_NODEFILE.
        """
        return "".join(f"{host}\n" for host in self.host_of_rank)


def _as_given(value: object) -> object:
    """A field whatever its annotation says: callers may not have been checked."""
    return value


def _error(key: str, value: object, advice: str) -> ConfigError:
    return ConfigError(f"Step({key}=...): {show(value)} cannot be used. {advice}")


def step_environment(step: Step) -> dict[str, str]:
    """What every rank finds in its environment about the step as a whole.

    PILOTFLOW_NODES             hosts, rank 0's first, with commas between
    PILOTFLOW_NUM_NODES         how many
    PILOTFLOW_RANKS_PER_NODE    ranks on each
    PILOTFLOW_NUM_RANKS         ranks on all
    PILOTFLOW_HEAD_ADDRESS      host of rank 0
    PILOTFLOW_HOSTFILE          path of a file with one line per rank, its host (if there is a directory)
    WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT    for `torch.distributed` with env://
    PET_NNODES, PET_MASTER_ADDR, PET_MASTER_PORT              defaults of torchrun's flags
    OMP_NUM_THREADS             cores of each rank (if that is limited)

    `pilotflow.launchers.rank_text` adds what differs from rank to rank. MASTER_PORT follows from the step's
    name: nobody can reserve a port on another host, and steps of one host should not meet on it.

    Sources: docs.pytorch.org, "Distributed communication package", environment variable initialization;
    torch/distributed/argparse_util.py, by which torchrun takes the default of `--master-addr` from
    PET_MASTER_ADDR, and so on.
    """
    head, port = step.hosts[0], str(_FIRST_PORT + zlib.crc32(step.name.encode()) % _PORTS)
    found = {
        "PILOTFLOW_NODES": ",".join(step.hosts),
        "PILOTFLOW_NUM_NODES": str(len(step.nodes)),
        "PILOTFLOW_RANKS_PER_NODE": str(step.ranks_per_node),
        "PILOTFLOW_NUM_RANKS": str(step.ranks),
        "PILOTFLOW_HEAD_ADDRESS": head,
        "WORLD_SIZE": str(step.ranks),
        "LOCAL_WORLD_SIZE": str(step.ranks_per_node),
        "MASTER_ADDR": head,
        "MASTER_PORT": port,
        "PET_NNODES": str(len(step.nodes)),
        "PET_MASTER_ADDR": head,
        "PET_MASTER_PORT": port,
    }
    if step.hostfile is not None:
        found["PILOTFLOW_HOSTFILE"] = step.hostfile
    if step.cpus_per_rank is not None:
        found["OMP_NUM_THREADS"] = str(step.cpus_per_rank)
    return found


def without_foreign(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what would change the start of a step, and with what belongs to the whole job.

    See `FOREIGN_NAMES`, `SRUN_INPUTS`, `OF_JOB`.
    """
    gone = {*FOREIGN_NAMES, *SRUN_INPUTS}
    prefixes = (*FOREIGN_PREFIXES, OF_JOB)
    kept = {name: value for name, value in environment.items() if name not in gone and not name.startswith(prefixes)}
    of_job = {name.removeprefix(OF_JOB): value for name, value in environment.items() if name.startswith(OF_JOB)}
    return kept | of_job


def program_environment(step: Step, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of one program on the step's head that starts its ranks itself, with mpirun, srun, ...

    What was inherited, and of `step_environment` what is about nodes and not about ranks, which nobody has started:
    torchrun would wait for its like on the other nodes. Inside a Slurm job the variables of the job are about the
    step's nodes alone, with `ranks_per_node` tasks on each: from them Open MPI and Hydra learn what they may use (a
    default host file is not looked at there, seen with Open MPI 4.1), and srun and mpirun can start beside the
    managers' step. On one machine Open MPI takes a host file with slots: of a host on many lines 5.0 would use each core once.
    """
    found = without_foreign(inherited)
    for name in ("SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU"):
        found.pop(name, None)  # srun refuses more than one of the three
    about_nodes = {name: value for name, value in step_environment(step).items() if name not in _OF_RANKS}
    found |= about_nodes | {"SLURM_OVERLAP": "1", "SLURM_MEM_PER_NODE": "0"}
    found |= {f"{prefix}plm_slurm_args": OPENMPI_UNDER_SLURM["plm_slurm_args"] for prefix in _OPENMPI}
    if step.local:
        found |= {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":OVERSUBSCRIBE"}
    elif "SLURM_JOB_ID" in found:
        all_nodes = expand_hosts(found.get("SLURM_JOB_NODELIST", ""))
        found |= _as_job(step, has_all=all_nodes is not None and tuple(all_nodes) == step.nodes)
    if step.slots_file is not None:
        found |= dict.fromkeys(("OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile"), step.slots_file)
    return found


def _as_job(step: Step, *, has_all: bool) -> dict[str, str]:
    """What Slurm would say in a job of the step's nodes alone; srun takes them from the host file, in its order.

    Beside that file srun of Slurm 24.11 refuses `--nodes`. So a step that has all nodes of its job gets none.
    """
    nodes, each = ",".join(step.nodes), f"{step.ranks_per_node}(x{len(step.nodes)})"
    found = dict.fromkeys(("SLURM_JOB_NODELIST", "SLURM_NODELIST"), nodes)
    found |= dict.fromkeys(("SLURM_JOB_NUM_NODES", "SLURM_NNODES"), str(len(step.nodes)))
    found |= dict.fromkeys(("SLURM_TASKS_PER_NODE", "SLURM_JOB_CPUS_PER_NODE"), each)
    found |= dict.fromkeys(("SLURM_NTASKS", "SLURM_NPROCS"), str(step.ranks))
    found["SLURM_NTASKS_PER_NODE"] = str(step.ranks_per_node)
    if step.hostfile is not None and not has_all:
        found["SLURM_HOSTFILE"] = step.hostfile
    return found
