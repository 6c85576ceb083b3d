"""What a task asks for, per node, and what a node offers: exact integers, never floats.

Cores and GPUs are counted in thousandths (`_milli`), memory in bytes, so that taking and giving
back never drifts.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class SortMethod(Enum):
    """Which tasks come first among those of equal priority; all keys descend, then first come."""

    GPUS_RUNTIME_MEMORY = "gpus_runtime_memory"
    GPUS_MEMORY_RUNTIME = "gpus_memory_runtime"
    NONE = "none"


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What one task needs on each of its nodes. Hashable; equal requests share a class.

    Attributes:
        cpus_milli: cores in thousandths.
        memory_bytes: memory; 0 when the user did not say.
        gpus_milli: GPUs in thousandths.
        num_nodes: nodes; more than 1 reserves whole nodes.
        ranks_per_node: MPI ranks a node, for multi-node tasks.
        runtime_s: limit of one attempt in seconds, or None.
        priority: larger runs sooner.
        resources: site-defined consumables, sorted (name, amount) pairs.
        timeout_s: what is left of the task's timeout in seconds, or None. Nothing is planned with it.
        spreads_itself: a task of several nodes is one program on the first of them, which uses the others by
            itself, where the manager starts tasks (mode direct); in a step of Slurm there are ranks anyway.
    """

    cpus_milli: int = 1000
    memory_bytes: int = 0
    gpus_milli: int = 0
    num_nodes: int = 1
    ranks_per_node: int = 1
    runtime_s: float | None = None
    priority: int = 0
    resources: tuple[tuple[str, int], ...] = ()
    timeout_s: float | None = None
    spreads_itself: bool = False

    @property
    def limit_s(self) -> float | None:
        """When an attempt is ended, in seconds from its start: the shorter of runtime and timeout."""
        if self.timeout_s is None or (self.runtime_s is not None and self.runtime_s <= self.timeout_s):
            return self.runtime_s
        return self.timeout_s

    @property
    def has_ranks(self) -> bool:
        """Whether a task of several processes is asked for, which a launcher starts."""
        return self.num_nodes > 1 or self.ranks_per_node > 1


class Capacity(msgspec.Struct, frozen=True, array_like=True):
    """What one node offers to tasks.

    Attributes:
        cpus_milli: cores in thousandths.
        memory_bytes: memory that tasks may use together.
        gpus: opaque ids of its GPUs.
        slots: at most this many tasks at once, whatever they ask for; 0 for a node that follows.
        depth_limited: if true, requests are ignored and `slots` is the only limit.
        resources: site-defined consumables that the node has, sorted (name, amount) pairs.
        min_time_s: seconds of its block that a task needs which does not say its runtime; None for the usual.
    """

    cpus_milli: int
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()
    slots: int = 1
    depth_limited: bool = False
    resources: tuple[tuple[str, int], ...] = ()
    min_time_s: float | None = None

    @property
    def follows(self) -> bool:
        """Whether it takes part in tasks on several nodes only, which the manager at its block's head starts."""
        return self.slots == 0

    @property
    def slots_of_one_core(self) -> int:
        """Tasks of one core that run here at once; smaller ones may be more."""
        return self.slots if self.depth_limited else min(self.slots, max(1, self.cpus_milli // 1000))


class NodeShape(msgspec.Struct, frozen=True, array_like=True):
    """What a node of an executor has, as far as that is known; what is None limits nothing.

    Attributes:
        cpus_milli, memory_bytes: as in `Capacity`.
        gpus: how many there are.
        slots, depth_limited: as in `Capacity`.
        resources: as in `Capacity`; what is not named there is not on the node.
    """

    cpus_milli: int | None = None
    memory_bytes: int | None = None
    gpus: int | None = None
    slots: int | None = None
    depth_limited: bool = False
    resources: tuple[tuple[str, int], ...] | None = None

    @classmethod
    def of(cls, capacity: Capacity) -> NodeShape:
        """The shape of a node that a manager has told about."""
        return cls(
            capacity.cpus_milli,
            capacity.memory_bytes or None,  # 0 is a manager that does not know
            len(capacity.gpus),
            capacity.slots,
            capacity.depth_limited,
            capacity.resources,
        )


class BlockShape(msgspec.Struct, frozen=True, array_like=True):
    """What the blocks of one executor are like, before any of them has come.

    Attributes:
        executor: its label.
        node: what each node has.
        nodes: nodes of a block.
        walltime_s: how long a block lives, or None for no limit.
        one_head: one manager, at the head, has all nodes: tasks on one node run on the head alone, and those on
            several begin there.
    """

    executor: str
    node: NodeShape = NodeShape()
    nodes: int = 1
    walltime_s: float | None = None
    one_head: bool = False

    def at_once(self, num_nodes: int, on_each: int, nodes: int | None = None) -> int:
        """Tasks on so many nodes that a block runs at once, if one node takes `on_each`; `nodes` if it has others."""
        nodes = self.nodes if nodes is None else nodes
        if num_nodes > nodes:
            return 0
        if self.one_head:
            return on_each if num_nodes == 1 else 1
        return nodes * on_each if num_nodes == 1 else nodes // num_nodes


DEFAULT_REQUEST = Request()
