"""What a peer's message must satisfy beyond its types, before anything of it is believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

import msgspec

from pilotflow.messages.client import DefineClass, DefineExecutors
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.manager import Register
from pilotflow.messages.records import Result, Status, Task, decode_excess
from pilotflow.units import counted

ATTEMPT_LIMIT = 1 << 62
"""Attempts are below this, so that counting on from one never leaves 64 bits."""
SLOTS_LIMIT = 1 << 20
"""Tasks at once on one manager."""
AMOUNT_LIMIT = 1 << 60
"""Any amount of cores, memory or GPUs, in its smallest unit."""


def tell_passed_over(bad: Sequence[BadMessage]) -> None:
    """Say what was wrong with those messages of a letter that were passed over.

    Raises:
        BadMessage: there are some: what was wrong with the first, and how many there are.
    """
    if bad:
        raise BadMessage(str(bad[0]), len(bad))


def frame_counts(items: Sequence[Task | Result], available: int) -> list[int]:
    """Payload frames of each item; empty if none has any.

    Raises:
        BadMessage: if the counts are wrong or more than there are frames.
    """
    for item in items:
        if item.layout:
            break
    else:
        return []
    counts = [sum(item.layout) for item in items]
    for item, count in zip(items, counts, strict=True):
        if item.layout and (count <= 0 or len(item.layout) % 2 or min(item.layout) < 0):
            raise BadMessage("a layout that is none")
    if sum(counts) > available:
        raise BadMessage(f"{counted(sum(counts), 'frame')} announced, {available} came")
    return counts


def check_class(message: DefineClass) -> None:
    """See that a request class asks for amounts that exist.

    Raises:
        BadMessage: it does not.
    """
    request = message.request
    amounts = [request.cpus_milli, request.memory_bytes, request.gpus_milli, *(n for _, n in request.resources)]
    runtime = request.runtime_s
    if (
        not all(0 <= amount < AMOUNT_LIMIT for amount in amounts)
        or not 1 <= request.num_nodes < AMOUNT_LIMIT
        or not 1 <= request.ranks_per_node < AMOUNT_LIMIT
        or abs(request.priority) > AMOUNT_LIMIT
        or (runtime is not None and not (isfinite(runtime) and runtime >= 0))
    ):
        raise BadMessage(f"request class {message.cls} asks for impossible amounts")


def check_executors(message: DefineExecutors) -> None:
    """See that executors have blocks that can exist.

    Raises:
        BadMessage: they have not.
    """
    for blocks in message.executors:
        node, walltime_s = blocks.node, blocks.walltime_s
        known = [node.cpus_milli, node.memory_bytes, node.gpus, node.slots, *(n for _, n in node.resources or ())]
        if (
            not all(amount is None or 0 <= amount < AMOUNT_LIMIT for amount in known)
            or not 1 <= blocks.nodes < AMOUNT_LIMIT
            or not (walltime_s is None or (isfinite(walltime_s) and walltime_s > 0))
        ):
            raise BadMessage(f"executor {blocks.executor[:200]!r} has impossible blocks")


def check_attempts(pairs: Iterable[tuple[int, int]]) -> None:
    """See that (task, attempt) pairs can be counted on from.

    Raises:
        BadMessage: they cannot.
    """
    if any(not 0 <= attempt < ATTEMPT_LIMIT for _, attempt in pairs):
        raise BadMessage("an attempt with an impossible number")


def is_crash(result: Result) -> bool:
    """Whether an attempt ended with the loss of its worker; so does one whose limit cannot be told from its payload."""
    if result.status is not Status.EXCEEDED:
        return result.status > Status.ERROR
    try:
        excess = decode_excess(result.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    return not all(isfinite(amount) and amount >= 0 for amount in (excess.asked, excess.taken))


def how_it_crashed(result: Result) -> str:
    """How an attempt crashed, in its manager's words."""
    if result.status is Status.EXCEEDED:
        return "its manager said that it exceeded a limit, and which cannot be read"
    return bytes(result.payload).decode("utf-8", "replace")


def check_times(times_s: Iterable[float]) -> None:
    """See that durations are some.

    Raises:
        BadMessage: they are not.
    """
    if not all(isfinite(time_s) and time_s >= 0 for time_s in times_s):
        raise BadMessage("a duration that is negative, endless or no number")


def check_time_left(time_left_s: float | None) -> None:
    """See that a remaining time is one.

    Raises:
        BadMessage: it is not.
    """
    if time_left_s is not None and not (isfinite(time_left_s) and time_left_s >= 0):
        raise BadMessage(f"a remaining time of {time_left_s} s")


def why_not_join(message: Register, version: str, python: str) -> str:
    """Why a manager cannot be let in, in words; empty if it can."""
    where = f"The manager on {message.node[:200]} (block {message.block[:200]})"
    if message.version != version:
        return f"{where} has pilotflow {message.version[:50]}, the run has {version}. Install the same on both."
    if message.python.split(".")[:2] != python.split(".")[:2]:
        return (
            f"{where} runs Python {message.python[:50]}, the run has {python}. Functions and results cannot "
            "travel between them: set the provider's worker_init so that the blocks use the same Python."
        )
    capacity = message.capacity
    if not int(capacity.depth_limited) <= capacity.slots <= SLOTS_LIMIT:  # 0: it follows, see `Capacity`
        return f"{where} offers {counted(capacity.slots, 'slot')} for tasks; 1 to {SLOTS_LIMIT} make sense."
    if not (0 <= capacity.cpus_milli < AMOUNT_LIMIT and 0 <= capacity.memory_bytes < AMOUNT_LIMIT):
        return (
            f"{where} offers {capacity.cpus_milli} thousandths of a core and {capacity.memory_bytes} bytes of memory."
        )
    return ""
