"""Queues and supplies of blocks, said in few words."""

from __future__ import annotations

from typing import Any

from pilotflow.core.scaling import Planner, Queue, Supply
from pilotflow.core.shapes import Nodes
from pilotflow.messages.records import ClassLoad
from pilotflow.resources import BlockShape, NodeShape, Request

GIB = 1 << 30
INF = float("inf")


def node(cores: int | None = None, gib: int | None = None, gpus: int | None = None, **more: Any) -> NodeShape:
    cpus = None if cores is None else 1000 * cores
    return NodeShape(cpus, None if gib is None else gib * GIB, gpus, more.pop("slots", cores), **more)


def supply(
    label: str = "cpu",
    has: NodeShape | None = None,
    *,
    nodes: int = 1,
    walltime_s: float | None = None,
    room: int = 100,
    seen: tuple[NodeShape, ...] = (),
    **more: Any,
) -> Supply:
    known = Nodes(BlockShape(label, has or node(4), nodes, walltime_s), kinds=seen)
    return Supply(known, room=room, **more)


def wants(count: int = 1, *executors: str, **words: Any) -> ClassLoad:
    cores, gib, gpus = words.pop("cores", 1), words.pop("gib", 0), words.pop("gpus", 0)
    request = Request(int(1000 * cores), gib * GIB, int(1000 * gpus), **words)
    return ClassLoad(request, executors, count)


def missing(queue: list[ClassLoad], *supplies: Supply) -> dict[str, int]:
    return Planner().missing(Queue(queue), supplies)
