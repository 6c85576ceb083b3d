"""What tasks need and managers have, as tuples of numbers that can be compared and searched."""

from __future__ import annotations

from typing import Final, NamedTuple

from pilotflow.resources import Request, SortMethod


class Offer(NamedTuple):
    """Upper bounds of what a manager has for one more task; -1 of everything if it takes none.

    Attributes:
        cpus, memory: free thousandths of cores, and bytes.
        gpus: a thousand for each GPU that is wholly free; if there is none, the largest free part of one.
        until: tasks must have ended by then.
        start_by: tasks whose runtime is not known must have started by then.
    """

    cpus: int
    memory: int
    gpus: int
    until: float
    start_by: float


FULL: Final = Offer(-1, -1, -1, -1.0, -1.0)


class Needs(NamedTuple):
    """What a task of a class takes, or what a manager has now, in the order in which it is compared.

    Attributes:
        cpus, memory, gpus: as in `Offer`.
        runtime: seconds; 0 if it is not known.
        open_end: 1 if the runtime is not known; for a manager, whether it takes such tasks still.
        nodes: nodes; for a manager that is empty, how many of its block are.
    """

    cpus: int
    memory: int
    gpus: int
    runtime: float
    open_end: int
    nodes: int


NOTHING: Final = Needs(-1, -1, -1, -1.0, -1, -1)


def needs_of(request: Request) -> Needs:
    """What tasks with that request need, to be compared with what managers have."""
    gpus = request.gpus_milli if request.gpus_milli <= 1000 else -(-request.gpus_milli // 1000) * 1000
    runtime = request.runtime_s
    return Needs(
        request.cpus_milli, request.memory_bytes, gpus, runtime or 0.0, int(runtime is None), request.num_nodes
    )


def order_of(request: Request, method: SortMethod) -> tuple[float, ...]:
    """Which classes come first: smaller tuples do. Ties are for whoever was submitted first."""
    runtime = request.runtime_s or 0.0
    match method:
        case SortMethod.GPUS_RUNTIME_MEMORY:
            return (-request.priority, -request.gpus_milli, -runtime, -request.memory_bytes)
        case SortMethod.GPUS_MEMORY_RUNTIME:
            return (-request.priority, -request.gpus_milli, -request.memory_bytes, -runtime)
        case SortMethod.NONE:
            return (-request.priority,)
