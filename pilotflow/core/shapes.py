"""What fits where: requests against what is known of an executor's nodes and blocks, and in words why not.

What nobody knows limits nothing: a node may have GPUs until a manager has come from one and has
none. What a configuration states holds until then, and is replaced by what managers tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pilotflow.core.supply import MIN_SHARE_FOR_NEW_TASKS, MIN_TIME_FOR_NEW_TASKS_S
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request
from pilotflow.units import counted, exact_memory, format_duration, format_memory

KINDS_MAX: Final = 64
"""Kinds of nodes of one executor that are told apart."""
FRESH_SHARE: Final = 0.9
"""A block that joins with less than this share of its walltime left is one that comes back, and tells nothing."""


def fits(request: Request, node: NodeShape) -> bool:
    """Whether an empty node would take a task, or its part of one on several nodes, as far as that is known."""
    if node.depth_limited:
        return request.num_nodes == 1
    if node.slots == 0 and request.num_nodes == 1:
        return False  # see `Capacity.follows`
    return (
        (node.cpus_milli is None or request.cpus_milli <= node.cpus_milli)
        and (node.memory_bytes is None or request.memory_bytes <= node.memory_bytes)
        and (node.gpus is None or request.gpus_milli <= 1000 * node.gpus)
        and (not request.resources or _has_resources(request, node))
    )


def _has_resources(request: Request, node: NodeShape) -> bool:
    if node.resources is None:
        return True
    has = dict(node.resources)
    return all(amount <= has.get(name, 0) for name, amount in request.resources)


def is_certain(request: Request, node: NodeShape) -> bool:
    """Whether everything that decides if the request fits is known of the node."""
    return node.depth_limited or not (
        node.cpus_milli is None
        or (node.memory_bytes is None and request.memory_bytes > 0)
        or (node.gpus is None and request.gpus_milli > 0)
        or (node.resources is None and bool(request.resources))
    )


def needed_s(request: Request, walltime_s: float | None) -> float:
    """How much of a block's life must be left for a task to start there, in seconds."""
    if request.runtime_s is not None:
        return request.runtime_s
    if walltime_s is None:
        return 0.0
    return min(MIN_TIME_FOR_NEW_TASKS_S, MIN_SHARE_FOR_NEW_TASKS * walltime_s)


@dataclass(frozen=True)
class Nodes:
    """What is known of one executor's nodes and of how long its blocks live.

    Attributes:
        blocks: what its configuration says.
        kinds: the kinds of nodes that managers have told about, the last one first; empty before.
            Of two kinds where one has at least as much of everything only that one is kept.
        fresh_s: the most that a new block had left of its walltime when its manager joined.
    """

    blocks: BlockShape
    kinds: tuple[NodeShape, ...] = ()
    fresh_s: float | None = None

    def learn(self, capacity: Capacity, time_left_s: float | None = None) -> Nodes:
        """What is known after a manager has joined; one that follows is like its head, whose tasks are the question."""
        if capacity.follows:
            return self
        walltime_s, fresh_s = self.blocks.walltime_s, self.fresh_s
        if time_left_s is not None and walltime_s is not None and time_left_s >= FRESH_SHARE * walltime_s:
            fresh_s = max(time_left_s, fresh_s or 0.0)
        kinds, node = self.kinds, NodeShape.of(capacity)
        if not any(_covers(kind, node) for kind in kinds) and len(kinds) < KINDS_MAX:
            kinds = (node, *(kind for kind in kinds if not _covers(node, kind)))
        return Nodes(self.blocks, kinds, fresh_s)

    @property
    def likely(self) -> tuple[NodeShape, ...]:
        """The kinds of nodes that a new block may have; what is configured if none has been seen."""
        return self.kinds or (self.blocks.node,)

    def fitting(self, request: Request) -> NodeShape | None:
        """The kind of node that would take a task: the one seen last, if there are several."""
        for kind in self.likely:
            if fits(request, kind):
                return kind
        return None

    def admits(self, request: Request) -> bool:
        """Whether a new block would take a task, as far as that is known."""
        return request.num_nodes <= self.blocks.nodes and self.lasts(request) and self.fitting(request) is not None

    def lasts(self, request: Request) -> bool:
        """Whether a new block lives long enough for a task."""
        if request.runtime_s is None or self.blocks.walltime_s is None:
            return True
        if self.fresh_s is not None:
            return request.runtime_s <= self.fresh_s
        return request.runtime_s < self.blocks.walltime_s  # to start takes some of it

    @property
    def longest_s(self) -> float:
        """How long a task can run on a new block, in seconds."""
        return math.inf if self.blocks.walltime_s is None else self.fresh_s or self.blocks.walltime_s


def _covers(large: NodeShape, small: NodeShape) -> bool:
    """Whether one kind of node has at least as much of everything as the other."""
    has = dict(large.resources or ())
    return (
        large.depth_limited is small.depth_limited
        and _at_least(large.cpus_milli, small.cpus_milli)
        and _at_least(large.memory_bytes, small.memory_bytes)
        and _at_least(large.gpus, small.gpus)
        and _at_least(large.slots, small.slots)
        and (large.resources is None or all(has.get(name, 0) >= amount for name, amount in small.resources or ()))
    )


def _at_least(large: int | None, small: int | None) -> bool:
    return large is None or (small is not None and small <= large)


# ---- why not, in words ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Lack:
    """Something of which an executor has too little, the most that it has, and both in words."""

    what: str
    most: float
    text: str


def why_nowhere(request: Request, executors: Sequence[Nodes]) -> str:
    """Why none of these executors, of which there is at least one, would ever take a task, as a sentence.

    It names what all of them have too little of, and the most that there is: "It asks for 9 cores a
    node; the largest node has 8 (executor 'cpu')." Where one lacks this and another that, each is named.
    """
    lacks = {nodes.blocks.executor: {lack.what: lack for lack in _lacks(request, nodes)} for nodes in executors}
    everything = dict.fromkeys(what for found in lacks.values() for what in found)
    common = [what for what in everything if all(what in found for found in lacks.values())]
    if common:
        parts: list[str] = []
        for what in common:
            label, lack = max(((label, found[what]) for label, found in lacks.items()), key=lambda x: x[1].most)
            parts.append(f"{lack.text} (executor '{label}')")
        text = f"It asks for {', and for '.join(parts)}.{_if_totals(request, executors, common)}"
        if "GPUs" in common and not any(found["GPUs"].most for found in lacks.values()):
            text += " To have nodes with GPUs, set gpus_per_node or gres of a Slurm provider, or the partition that has them."
        return text
    lines = [
        f"executor '{label}': it asks for {', and for '.join(lack.text for lack in found.values())}"
        for label, found in lacks.items()
    ]
    return f"No executor has all that it asks for. {'. '.join(lines)}."


def why_not_there(request: Request, executor: Nodes) -> str:
    """Why no new block of an executor would take a task that it does not admit, as a sentence."""
    return f"It asks for {', and for '.join(lack.text for lack in _lacks(request, executor))}."


def _if_totals(request: Request, executors: Sequence[Nodes], lacking: Sequence[str]) -> str:
    """What to say instead, if what is too much for one node may have been meant for all nodes together."""
    count = request.num_nodes
    each = msgspec.structs.replace(
        request,
        cpus_milli=-(-request.cpus_milli // count),
        memory_bytes=-(-request.memory_bytes // count),
        gpus_milli=-(-request.gpus_milli // (1000 * count)) * 1000,
    )
    amounts = {
        "cores": f"num_cpus={each.cpus_milli / 1000:g}",
        "GPUs": f"num_gpus={each.gpus_milli // 1000}",
        "memory": f"memory='{exact_memory(each.memory_bytes)}'",
    }
    if (
        count == 1
        or not amounts.keys() >= set(lacking)
        or all(_lacks_of_nodes(each, nodes.likely) for nodes in executors)
    ):
        return ""
    said = ", ".join(amounts[what] for what in lacking)
    return f" These are amounts of each node: if they were meant for all {count} nodes together, say {said}."


def _lacks(request: Request, nodes: Nodes) -> list[_Lack]:
    """What every node, or every block, of an executor has too little of; never empty if it fits nowhere there."""
    lacks: list[_Lack] = []
    blocks = nodes.blocks.nodes
    if not nodes.lasts(request):
        asked, longest = format_duration(request.runtime_s or 0.0), format_duration(nodes.longest_s)
        has = f"a moment less than {longest}" if asked == longest else longest
        text = f"a runtime of {asked}; the longest block has {has} for tasks"
        lacks.append(_Lack("runtime", nodes.longest_s, text))
    if request.num_nodes > 1 and all(kind.depth_limited for kind in nodes.likely):  # however many nodes there are
        text = f"{counted(request.num_nodes, 'node')}; with max_parallel_jobs each task runs on one"
        lacks.append(_Lack("nodes", 1, text))
    elif request.num_nodes > blocks:
        lacks.append(_Lack("nodes", blocks, f"{counted(request.num_nodes, 'node')}; the largest block has {blocks}"))
    lacks += _lacks_of_nodes(request, [kind for kind in nodes.likely if not kind.depth_limited])
    return lacks or [_Lack("all at once", 0, "more than any one of its nodes has of everything at once")]


def _lacks_of_nodes(request: Request, kinds: Sequence[NodeShape]) -> list[_Lack]:
    lacks: list[_Lack] = []
    most = _most(kind.cpus_milli for kind in kinds)
    if most is not None and request.cpus_milli > most:
        lacks.append(_Lack("cores", most, _too_many(request.cpus_milli, "core", most)))
    most = _most(None if kind.gpus is None else 1000 * kind.gpus for kind in kinds)
    if most is not None and request.gpus_milli > most:
        lacks.append(_Lack("GPUs", most, _too_many(request.gpus_milli, "GPU", most)))
    most = _most(kind.memory_bytes for kind in kinds)
    if most is not None and request.memory_bytes > most:
        asked, has = format_memory(request.memory_bytes), format_memory(most)
        if request.memory_bytes - most < most // 50:  # rounded they would look the same
            asked, has = f"{request.memory_bytes} bytes", f"{most} bytes"
        lacks.append(_Lack("memory", most, f"{asked} of memory a node; the largest node has {has}"))
    for name, amount in request.resources:
        most = _most(None if kind.resources is None else dict(kind.resources).get(name, 0) for kind in kinds)
        if most is not None and amount > most:
            text = f"{amount} of '{name}' a node; the largest node has {most or 'none'}"
            lacks.append(_Lack(f"resource {name}", most, text))
    return lacks


def _too_many(asked_milli: int, what: str, most_milli: int) -> str:
    plural = "" if asked_milli == 1000 else "s"
    return f"{asked_milli / 1000:g} {what}{plural} a node; the largest node has {most_milli / 1000:g}"


def _most(amounts: Iterable[int | None]) -> int | None:
    """The largest, or None if there is none or one is not known."""
    known = list(amounts)
    return None if not known or None in known else max(amount for amount in known if amount is not None)
