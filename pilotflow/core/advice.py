"""What a failed job should ask for the next time, from what was measured."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec

from pilotflow.resources import Request
from pilotflow.units import format_duration, format_memory

MARGIN: Final = 1.5
"""A limit that was too small becomes so many times what was measured, or what it was."""
FIT_MARGIN: Final = 1.2
"""Right-sized requests have so much room above what was measured."""
KILLED: Final = 137
NEAR: Final = 0.8
"""A killed job that had used so much of its memory has been killed for it."""
CORES_NOISE: Final = 0.1
"""A job that is busy on so little more than some number of cores fits on these: starting and waiting costs, too."""
MIB: Final = 1 << 20
ROUND_MEMORY: Final = 64 * MIB


class Fact(NamedTuple):
    """An ended attempt.

    Attributes:
        cause: see `pilotflow.workflow.store.ResultRow`.
        exit_code: None if there is none.
        peak_bytes: 0 if it was not measured.
        duration_s: how long it ran.
        cores: how many it kept busy on average; 0 if it was too short to tell.
    """

    cause: str
    exit_code: int | None
    peak_bytes: int
    duration_s: float
    cores: float = 0.0


class Advice(NamedTuple):
    """What to do about a failed job.

    Attributes:
        kind: "memory", "runtime", "lost" or "unknown".
        request: what it should ask for; None if nothing is to change.
        why: in words.
    """

    kind: str
    request: Request | None
    why: str


def advise(request: Request, fact: Fact) -> Advice:
    """What a job should ask for after this."""
    if _out_of_memory(request, fact):
        least = max(request.memory_bytes, fact.peak_bytes)
        wanted = _rounded(int(MARGIN * least)) if least else 0
        if not wanted:
            return Advice("memory", None, "its node had no memory left, and nothing was measured")
        used = f"it used {format_memory(fact.peak_bytes)}" if fact.peak_bytes else "it was ended for its memory"
        had = format_memory(request.memory_bytes) if request.memory_bytes else "no word about memory"
        change = f"{used} and had {had}: {format_memory(wanted)}"
        return Advice("memory", msgspec.structs.replace(request, memory_bytes=wanted), change)
    if fact.cause in ("runtime", "walltime"):
        longest = max(request.runtime_s or 0.0, fact.duration_s)
        wanted_s = float(max(1, round(MARGIN * longest)))
        had = format_duration(request.runtime_s) if request.runtime_s is not None else "no word about its runtime"
        change = f"it ran for {format_duration(round(fact.duration_s, 1))} and had {had}: {format_duration(wanted_s)}"
        return Advice("runtime", msgspec.structs.replace(request, runtime_s=wanted_s), change)
    if fact.cause == "lost":
        return Advice("lost", None, "its worker or node was lost: nothing to change")
    return Advice("unknown", None, f"exit code {fact.exit_code}: nothing that is measured explains it")


def _out_of_memory(request: Request, fact: Fact) -> bool:
    if fact.cause == "memory":
        return True
    near = request.memory_bytes and fact.peak_bytes >= NEAR * request.memory_bytes
    return bool(fact.exit_code == KILLED and near)


def fitting(request: Request, facts: list[Fact]) -> Request:
    """A request with the memory, the runtime and the cores that these attempts, which ended well, have needed."""
    peak = max((fact.peak_bytes for fact in facts), default=0)
    longest = max((fact.duration_s for fact in facts), default=0.0)
    changed = request
    busiest = max((fact.cores for fact in facts), default=0.0)
    if busiest and request.num_nodes == 1 and request.cpus_milli >= 1000:
        milli = 1000 * math.ceil(busiest - CORES_NOISE)
        changed = msgspec.structs.replace(changed, cpus_milli=max(1000, milli))
    if peak:
        changed = msgspec.structs.replace(changed, memory_bytes=_rounded(int(FIT_MARGIN * peak)))
    if longest and request.runtime_s is not None:
        changed = msgspec.structs.replace(changed, runtime_s=float(max(60, -int(-FIT_MARGIN * longest // 60) * 60)))
    return changed


def _rounded(nbytes: int) -> int:
    """Up to what people write: whole MiB, from 64 MiB on steps of 64 MiB."""
    step = ROUND_MEMORY if nbytes > ROUND_MEMORY else MIB
    return -(-nbytes // step) * step
