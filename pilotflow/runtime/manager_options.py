"""The manager's command line: written by the block keeper, read by the manager."""

from __future__ import annotations

import argparse
import dataclasses
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pilotflow.core.watch import Watch
from pilotflow.node.measure import measure_node
from pilotflow.node.report import NodeReport, Overrides
from pilotflow.node.slurm_nodes import SlurmNode
from pilotflow.resources import Capacity
from pilotflow.runtime.pythons import Python, this_python

SLOTS_PER_CORE = 4
"""Tasks that ask for less than a core run beside each other, at most so many for each core of the node."""
SLOTS_MAX = 4096
END_MARGIN_S = 5.0
"""A manager leaves this long before its block's walltime is over (or a tenth of it)."""


@dataclass(frozen=True)
class Options:
    """What a manager is told when it starts.

    Attributes:
        connection: path of the run's connection file.
        executor, block: which supply of workers it belongs to.
        directory: where its log goes.
        node: its name, unique among those of its run.
        host: the name of the host that the manager runs on; another than the node's at the head of an allocation.
        capacity: what it offers.
        watch: what limits of tasks it enforces, and how.
        local: its node is one of several logical ones on this machine.
        launcher: the file of the launcher that starts tasks on several nodes, if there is one.
        walltime_s: how long its block lives, in seconds from the manager's start, or None.
        python: how it starts Python on its nodes.
    """

    connection: Path
    executor: str
    block: str
    directory: Path
    node: str
    host: str
    capacity: Capacity
    watch: Watch
    local: bool
    launcher: Path | None
    walltime_s: float | None
    python: Python


@dataclass(frozen=True)
class Offer:
    """What an executor's managers are to offer, instead of what they measure; None for what is left open.

    Attributes:
        max_workers: one-CPU slots.
        max_parallel_jobs: if given, requests are ignored and this many tasks run at once.
        num_cpus, memory_bytes, num_gpus: of the node.
        resources: site-defined consumables that each node has.
        memory_margin: memory above its request that a task may use, as a part of it.
        runtime_grace_s: seconds from a task's warning to its end, after it has exceeded its runtime.
        min_time_s: seconds of its block that a task needs which does not say its runtime; None for the usual.
        pin: whether tasks may be pinned to cores.
    """

    max_workers: int | None = None
    max_parallel_jobs: int | None = None
    num_cpus: int | None = None
    memory_bytes: int | None = None
    num_gpus: int | None = None
    resources: tuple[tuple[str, int], ...] = ()
    memory_margin: float = 0.05
    runtime_grace_s: float = 5.0
    min_time_s: float | None = None
    pin: bool = True

    def argv(self) -> list[str]:
        """As options of a command line."""
        argv: list[str] = []
        for name, value in (
            ("--workers", self.max_workers),
            ("--depth", self.max_parallel_jobs),
            ("--num-cpus", self.num_cpus),
            ("--memory", self.memory_bytes),
            ("--num-gpus", self.num_gpus),
            ("--min-time", self.min_time_s),
        ):
            if value is not None:
                argv += [name, str(value)]
        for name, amount in self.resources:
            argv += ["--resource", f"{amount} {name}"]
        argv += ["--memory-margin", str(self.memory_margin), "--runtime-grace", str(self.runtime_grace_s)]
        return argv if self.pin else [*argv, "--no-pin"]


def ends_at(options: Options, started: float) -> float | None:
    """When the manager's block ends, in seconds since 1970; None if that is not known.

    Args:
        started: when it began, by the monotonic clock.
    """
    if options.walltime_s is None:
        return None
    margin = min(END_MARGIN_S, options.walltime_s / 10)
    return time.time() + max(0.0, started + options.walltime_s - margin - time.monotonic())


def manager_argv(
    connection: Path,
    executor: str,
    block: str,
    directory: Path,
    offer: Offer,
    nodes: int = 1,
    walltime_s: float | None = None,
    python: Python | None = None,
    launcher: Path | None = None,
    address: str | None = None,
    at_head: bool = False,
    one_head: bool = False,
) -> list[str]:
    """The command that starts one manager; its node is told by PILOTFLOW_NODE_INDEX.

    Or the one of all nodes of an allocation, which learns from Slurm what they are.

    Args:
        offer: what the manager is to offer.
        nodes: nodes of the block that are on one machine and need names of their own.
        walltime_s: the block's walltime in seconds.
        python: how Python is started on the nodes; by default as this one.
        launcher: the file of the launcher that starts tasks on several nodes.
        address: the executor's, by which a manager at the head of an allocation may choose its own.
        at_head: start that manager, whose tasks are steps of Slurm.
        one_head: the manager is at the head of an allocation whose other nodes follow it.
    """
    module = "pilotflow.runtime.head_manager" if at_head else "pilotflow.runtime.manager"
    python = python or this_python()
    argv = python.argv(module, str(connection))
    argv += [f"--prefix={word}" for word in python.prefix]  # for what it starts on other nodes
    argv += ["--executor", executor, "--block", block, "--directory", str(directory), "--nodes", str(nodes)]
    argv += offer.argv()
    if launcher is not None:
        argv += ["--launcher", str(launcher)]
    if walltime_s is not None:
        argv += ["--walltime", str(walltime_s)]
    if one_head:
        argv.append("--one-head")
    if at_head and address is not None:
        argv += ["--address", address]
    return argv


def read_arguments(argv: list[str]) -> argparse.Namespace:
    """What a command line made by `manager_argv` says."""
    parser = argparse.ArgumentParser(prog="pilotflow-manager")
    parser.add_argument("connection", type=Path)
    parser.add_argument("--executor", required=True)
    parser.add_argument("--block", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--nodes", type=int, default=1)
    for name in ("--workers", "--depth", "--num-cpus", "--memory", "--num-gpus"):
        parser.add_argument(name, type=int)
    parser.add_argument("--resource", action="append", default=[])
    parser.add_argument("--memory-margin", type=float, default=0.05)
    parser.add_argument("--runtime-grace", type=float, default=5.0)
    parser.add_argument("--min-time", type=float)
    parser.add_argument("--one-head", action="store_true")
    parser.add_argument("--no-pin", action="store_true")
    parser.add_argument("--walltime", type=float)
    parser.add_argument("--launcher", type=Path)
    parser.add_argument("--address")
    parser.add_argument("--prefix", action="append", default=[])
    return parser.parse_args(argv)


def measured(found: argparse.Namespace) -> tuple[Options, NodeReport]:
    """The options of a manager of the node that it runs on, which is measured."""
    index = os.environ.get("PILOTFLOW_NODE_INDEX", "0")
    node = socket.gethostname() if found.nodes == 1 else f"{socket.gethostname()}-{found.block}-{index}"
    report = measure_node(
        overrides=Overrides(
            num_cpus=found.num_cpus if found.workers is None else found.workers,
            memory_bytes=found.memory,
            num_gpus=found.num_gpus,
            pin=not found.no_pin and found.nodes == 1,
        )
    )
    memory = report.memory_bytes or 0
    if found.memory is None:
        memory //= found.nodes  # they are on one machine
    return _options(found, node, _capacity(found, report.cpus_milli, memory, report.gpu_ids)), report


def of_slurm_node(found: argparse.Namespace, node: SlurmNode) -> Options:
    """The options of a node of an allocation, for the manager at its head."""
    cpus = found.workers or found.num_cpus or node.cpus
    memory = node.memory_bytes if found.memory is None else found.memory
    gpus = node.gpus if found.num_gpus is None else found.num_gpus
    return _options(found, node.name, _capacity(found, 1000 * cpus, memory, tuple(map(str, range(gpus)))))


def follower_options(found: argparse.Namespace, node: SlurmNode, head: Options) -> Options:
    """The options of a node of an allocation that follows the manager at its head."""
    options = of_slurm_node(found, node)
    return dataclasses.replace(
        options, capacity=msgspec.structs.replace(options.capacity, slots=0, depth_limited=False), host=head.host
    )


def _options(found: argparse.Namespace, node: str, capacity: Capacity) -> Options:
    return Options(
        connection=found.connection,
        executor=found.executor,
        block=found.block,
        directory=found.directory,
        node=node,
        host=socket.gethostname(),
        capacity=capacity,
        watch=Watch(found.memory_margin, found.runtime_grace, f"on {node} (block {found.block})"),
        local=found.nodes > 1,
        launcher=found.launcher,
        walltime_s=found.walltime,
        python=this_python(tuple(found.prefix)),
    )


def _capacity(found: argparse.Namespace, cpus_milli: int, memory_bytes: int, gpus: tuple[str, ...]) -> Capacity:
    slots = found.depth or min(SLOTS_MAX, SLOTS_PER_CORE * max(1, cpus_milli // 1000))
    resources = tuple(sorted((name, int(amount)) for amount, _, name in (r.partition(" ") for r in found.resource)))
    return Capacity(cpus_milli, memory_bytes, gpus, slots, found.depth is not None, resources, found.min_time)
