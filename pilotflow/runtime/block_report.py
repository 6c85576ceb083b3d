"""What a run's program tells other terminals about its blocks, as JSON text."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pilotflow.core.block_records import BlockInfo, Outlook

VERB = "blocks"
"""By which it is asked for, see `pilotflow.questions.Instruct`."""


class BlockLine(msgspec.Struct, frozen=True):
    """One block.

    Attributes:
        block, executor: its name and whose it is.
        batch_id: its provider's name for it, None while it is being submitted.
        state: where it is in its life, see `pilotflow.core.block_records.Phase`.
        for_s: how long it has been so.
        reason: why it is being ended, or how it has ended.
        said: what its provider says of it, such as why it does not start.
        nodes: names of its nodes, as far as they are known.
        start_unix_s: when it started, or is expected to, in seconds since 1970.
        left_s: seconds until it is ended by its limit.
        managers, tasks: managers that are there, and tasks that they hold.
        requeues: how often its provider has put it back into the queue.
    """

    block: str
    executor: str
    batch_id: str | None
    state: str
    for_s: float
    reason: str
    said: str
    nodes: tuple[str, ...]
    start_unix_s: float | None
    left_s: float | None
    managers: int
    tasks: int
    requeues: int


class ExecutorLine(msgspec.Struct, frozen=True):
    """What becomes of an executor's blocks: how many exist and may exist, and what is in the way."""

    executor: str
    blocks: int
    max_blocks: int
    trouble: str


class BlockReport(msgspec.Struct, frozen=True):
    """All blocks of a run that exist, the last ones that have ended, and their executors."""

    blocks: tuple[BlockLine, ...]
    executors: tuple[ExecutorLine, ...]


def write_report(blocks: Sequence[BlockInfo], outlooks: Sequence[Outlook], now: float) -> str:
    """The report; `now` is by the clock of these records."""
    lines = tuple(
        BlockLine(
            info.block,
            info.executor,
            info.batch_id,
            info.phase.value,
            max(0.0, now - info.since),
            info.reason,
            info.said,
            info.nodes,
            info.start_unix_s,
            None if info.ends is None else max(0.0, info.ends - now),
            info.managers,
            info.leased,
            info.requeues,
        )
        for info in blocks
    )
    executors = tuple(ExecutorLine(one.executor, one.blocks, one.max_blocks, one.trouble) for one in outlooks)
    return msgspec.json.encode(BlockReport(lines, executors)).decode()


def read_report(text: str) -> BlockReport:
    """What `write_report` has written.

    Raises:
        ValueError: it is none.
    """
    return msgspec.json.decode(text, type=BlockReport)
