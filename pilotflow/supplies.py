"""What the executors of a configuration mean: commands of managers, limits of blocks, where to listen."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pilotflow.core.addresses import endpoint_of, parse_ports
from pilotflow.core.block_records import BlockLimits
from pilotflow.environments import node_environment
from pilotflow.errors import ConfigError, PilotflowError
from pilotflow.launchers.one_head import OneHeadLauncher
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.names import ImportPath
from pilotflow.providers.local import LocalProvider
from pilotflow.resources import BlockShape, NodeShape, SortMethod
from pilotflow.runtime.block_keeper import KeptExecutor
from pilotflow.runtime.connection import Connection, Keys, make_keys
from pilotflow.runtime.manager_options import Offer, manager_argv
from pilotflow.runtime.versions import versions_here

if TYPE_CHECKING:
    from pilotflow.config.model import Config, ExecutorConfig

START_LIMIT_S: Final = 300.0
START_LIMIT_HERE_S: Final = 60.0
"""A running block has had no manager for so long: it hangs. On this machine a manager comes within a second."""
LAST_WORDS_S: Final = 30.0
"""A manager that cannot connect has so long to start, and to say why once it has given up."""


def kept_executors(
    config: Config, run_directory: Path, connection_file: Path, mark: Mapping[str, str], *, write: bool = True
) -> list[KeptExecutor]:
    """The executors whose blocks are to be kept.

    Args:
        config: the run's.
        run_directory: where the logs of managers go.
        connection_file: what they are told to find the run.
        mark: variables by which their processes are found.
        write: leave in the run directory what managers read there.
    """
    return [_kept(config, executor, run_directory, connection_file, mark, write) for executor in config.block_executors]


def _kept(
    config: Config,
    executor: ExecutorConfig,
    run_directory: Path,
    connection_file: Path,
    mark: Mapping[str, str],
    write: bool,
) -> KeptExecutor:
    provider = executor.provider
    offer = _offer(config, executor)
    at_head = places_steps(executor, os.environ)
    launcher = _write_launcher(executor, run_directory, at_head, write)
    environment = node_environment(executor, run_directory, write=write)

    def argv(block: str) -> list[str]:
        return [
            "env",  # a launcher may start it where the block's environment does not reach
            *(f"{name}={value}" for name, value in mark.items()),
            *manager_argv(
                connection_file,
                executor.label,
                block,
                run_directory / "blocks" / block,
                offer,
                1 if provider.elsewhere else provider.nodes_per_block,  # here they need names of their own
                provider.walltime_s,
                environment.python,
                launcher,
                executor.address,
                at_head,
                one_head=isinstance(executor.launcher, OneHeadLauncher),
            ),
        ]

    limits = BlockLimits(
        shape=shape_of(executor),
        init_blocks=provider.init_blocks,
        min_blocks=provider.min_blocks,
        max_blocks=provider.max_blocks,
        parallelism=provider.parallelism,
        max_idletime_s=config.max_idletime_s,
        min_life_s=config.min_block_life_s,
        start_limit_s=config.start_limit_s or _usual_start_limit_s(executor, config.connect_timeout_s),
    )
    starts = OneForAllNodes() if at_head else executor.launcher
    return KeptExecutor(executor.label, provider, starts, argv, limits, environment.prelude)


def _usual_start_limit_s(executor: ExecutorConfig, connect_timeout_s: float) -> float:
    """How long the first manager of a block may take: on many nodes, Python may come from a slow file system."""
    here = not executor.provider.elsewhere and isinstance(executor.launcher, SingleNodeLauncher)
    return max(START_LIMIT_HERE_S if here else START_LIMIT_S, connect_timeout_s + LAST_WORDS_S)


def connection_of(config: Config, run_id: str, directory: Path, sockets: Path) -> Connection:
    """What the connection file of this program's run says: endpoints, keys, limits.

    Args:
        config: the run's.
        run_id, directory: its name and its directory.
        sockets: where its Unix sockets go.
    """
    client, managers, control = (f"unix:{sockets}/{name}" for name in ("client", "managers", "control"))
    for_managers = manager_endpoints(config, managers)
    over_tcp = any(endpoint.startswith("tcp:") for endpoint in for_managers)
    return Connection(
        run_id=run_id,
        epoch=1,
        directory=str(directory),
        client=(client,),
        managers=for_managers,
        control=(control, *_control_endpoints(config, for_managers)),
        keys=make_keys() if config.encrypted and over_tcp else Keys(),
        max_message_bytes=config.max_frame_bytes,
        heartbeat_limit_s=config.heartbeat_limit_s,
        client_pid=os.getpid(),
        host=socket.gethostname(),
        path=ImportPath.here(),
        job_sort_method=SortMethod(config.job_sort_method),
        connect_timeout_s=config.connect_timeout_s,
        prefix=sys.prefix,
        packages=versions_here() if any(not executor.activate for executor in config.block_executors) else (),
        scratch=config.scratch_dir or "",
    )


def manager_endpoints(config: Config, unix: str) -> tuple[str, ...]:
    """Where the interchange listens for managers, best first.

    Args:
        config: the run's.
        unix: the endpoint for this host.

    Raises:
        ConfigError: an executor's `address` is none of this machine.
    """
    ports = config.ports or "*"
    found = [] if config.tcp else [unix]
    for executor in config.block_executors:
        if executor.address is None and not executor.provider.elsewhere:
            continue
        from pilotflow.runtime.addresses import listening_address  # takes its time, and one machine needs none

        some_node = _some_node(executor) if executor.address is None else None
        try:
            address = listening_address(executor.address, some_node)
        except ConfigError as error:
            raise ConfigError(f"Executor '{executor.label}': {error}") from None
        found.append(endpoint_of(address, ports))
    if not found:
        found.append(endpoint_of("127.0.0.1", ports))
    return tuple(dict.fromkeys(found))


def _control_endpoints(config: Config, for_managers: Sequence[str]) -> list[str]:
    """Where commands at other hosts can ask, if managers there can: the same addresses, and ports of their own."""
    found = [endpoint for endpoint in for_managers if endpoint.startswith("tcp:")]
    if not config.encrypted:
        return []  # anybody could cancel
    if config.ports is not None and len(parse_ports(config.ports)) < 2 * len(found):
        return []  # managers come first
    return found


def _some_node(executor: ExecutorConfig) -> str | None:
    try:
        return executor.provider.some_node()
    except (PilotflowError, OSError):  # its batch system is away; the default route is as good a guess
        return None


class OneForAllNodes(SingleNodeLauncher):
    """Starts one manager at the head of a block, which owns all nodes."""

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        """See `Launcher.wrap`: once, however many nodes there are."""
        return super().wrap(command, 1)


def places_steps(executor: ExecutorConfig, environ: Mapping[str, str]) -> bool:
    """Whether each task of an executor is a step of Slurm, which a manager at the head of the block starts.

    Raises:
        ConfigError: that is wanted, and cannot be.
    """
    if executor.mode == "direct":
        return False
    provider = executor.provider
    inside = isinstance(provider, LocalProvider) and "SLURM_JOB_ID" in environ and shutil.which("srun") is not None
    if executor.mode == "slurm" and not (provider.places_steps or inside):
        raise ConfigError(
            f"Executor '{executor.label}': mode=slurm needs blocks that are jobs of Slurm: provider type: slurm, or a "
            "program that itself runs inside of a job, with provider type: local. Use mode: direct elsewhere."
        )
    return provider.places_steps or inside


def shape_of(executor: ExecutorConfig) -> BlockShape:
    """What an executor's blocks are like, as far as its configuration says it; managers tell the rest."""
    provider, cores = executor.provider, executor.max_workers_per_node or executor.num_cpus
    if executor.max_parallel_jobs is not None:
        node = NodeShape(slots=executor.max_parallel_jobs, depth_limited=True)
    else:
        asked = provider.node()
        node = NodeShape(
            cpus_milli=asked.cpus_milli if cores is None else 1000 * cores,
            memory_bytes=asked.memory_bytes if executor.memory_bytes is None else executor.memory_bytes,
            gpus=asked.gpus if executor.num_gpus is None else executor.num_gpus,
            resources=tuple(sorted(executor.resources.items())),  # nodes have no others
        )
    nodes = provider.nodes_per_block
    if isinstance(provider, LocalProvider) and places_steps(executor, os.environ):
        nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))  # those of the job that this program is in
    one_head = isinstance(executor.launcher, OneHeadLauncher)
    return BlockShape(executor.label, node, nodes, provider.walltime_s, one_head and nodes > 1)


def _write_launcher(executor: ExecutorConfig, run_directory: Path, at_head: bool, write: bool) -> Path | None:
    """Leave the launcher where managers find it, for tasks of several ranks."""
    launcher = executor.launcher
    if at_head and isinstance(launcher, SingleNodeLauncher):  # it knows this machine alone
        launcher = SrunLauncher()
    if not launcher.starts_ranks:
        return None
    path = run_directory / "launchers" / executor.label
    if write:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_bytes(pickle.dumps(launcher))
    return path


def _offer(config: Config, executor: ExecutorConfig) -> Offer:
    """What each node offers, as far as the configuration says it."""
    provider, pin = executor.provider, executor.pin
    if pin is None:  # several managers on one machine would pin their tasks to the same cores
        alone = len(config.block_executors) == provider.max_blocks == provider.nodes_per_block == 1
        pin = alone or not isinstance(provider, LocalProvider)
    return Offer(
        executor.max_workers_per_node,
        executor.max_parallel_jobs,
        executor.num_cpus,
        executor.memory_bytes,
        executor.num_gpus,
        tuple(sorted(executor.resources.items())),
        executor.memory_margin,
        executor.runtime_grace_s,
        executor.min_time_s,
        pin,
    )
