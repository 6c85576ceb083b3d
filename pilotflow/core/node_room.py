"""How many tasks find room on a node, and what they leave of it: arithmetic for blocks that are still to come.

What nobody knows of a node is unlimited. GPUs are counted as a sum: parts of one are never split over
two, so a task of 0.4 GPUs takes half of one here.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from pilotflow.resources import NodeShape, Request

Room: TypeAlias = tuple[int, int, int, int, "dict[str, int] | None"]
"""What is free on a node: thousandths of cores, bytes, thousandths of GPUs, slots, consumables (None: any)."""
UNLIMITED: Final = 1 << 100


def empty_room(node: NodeShape) -> Room:
    """What a node has."""
    slots = UNLIMITED if node.slots is None else node.slots
    if node.depth_limited:
        return UNLIMITED, UNLIMITED, UNLIMITED, slots, None
    return (
        UNLIMITED if node.cpus_milli is None else node.cpus_milli,
        UNLIMITED if node.memory_bytes is None else node.memory_bytes,
        UNLIMITED if node.gpus is None else 1000 * node.gpus,
        slots,
        None if node.resources is None else dict(node.resources),
    )


def tasks_in(request: Request, room: Room) -> int:
    """How many tasks find room on a node."""
    cpus, memory, gpus, count, resources = room
    if request.cpus_milli:
        count = min(count, cpus // request.cpus_milli)
    if request.memory_bytes:
        count = min(count, memory // request.memory_bytes)
    if request.gpus_milli:
        count = min(count, gpus // _share_of_gpus(request.gpus_milli))
    if resources is not None:
        for name, amount in request.resources:
            count = min(count, resources.get(name, 0) // amount)
    return count


def less(room: Room, request: Request, tasks: int) -> Room:
    """What is left on a node when so many tasks have found room there."""
    cpus, memory, gpus, slots, resources = room
    if resources is not None and request.resources:
        resources = dict(resources)
        for name, amount in request.resources:
            resources[name] -= amount * tasks
    if request.gpus_milli:
        gpus -= tasks * _share_of_gpus(request.gpus_milli)
    return cpus - tasks * request.cpus_milli, memory - tasks * request.memory_bytes, gpus, slots - tasks, resources


def _share_of_gpus(milli: int) -> int:
    """What a task takes of a node's GPUs: parts of one are never split over two."""
    return milli if milli >= 1000 else 1000 // (1000 // milli)
