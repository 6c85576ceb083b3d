"""The words of block keeping: what providers say, what limits there are, what is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from pilotflow.resources import BlockShape


class BlockState(Enum):
    """What a provider says about a block."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    """It has its nodes, and none of its processes runs until it is resumed; nor does its time limit."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    MISSING = "missing"
    """The provider does not know it (any more). Not final: batch systems forget and remember."""

    @property
    def terminal(self) -> bool:
        """Whether a block in this state stays in it."""
        return self in _TERMINAL


_TERMINAL: Final = frozenset({BlockState.COMPLETED, BlockState.FAILED, BlockState.CANCELLED, BlockState.TIMEOUT})


@dataclass(frozen=True)
class BlockStatus:
    """A block's state, and in words why, where there is something to say.

    Attributes:
        state: see `BlockState`.
        reason: for people; empty if the state says it all.
        exit_code: of a block that has ended, minus the signal's number if a signal ended it.
        time_left_s: seconds until it is ended by its limit, of a running block whose provider knows it.
        start_unix_s: when it started, or of a pending one is expected to, in seconds since 1970, if that is known.
        nodes: names of its nodes, as far as they are known.
        hopeless: another block of the same configuration would fare the same.
    """

    state: BlockState
    reason: str = ""
    exit_code: int | None = None
    time_left_s: float | None = None
    start_unix_s: float | None = None
    nodes: tuple[str, ...] = ()
    hopeless: bool = False


class Phase(Enum):
    """Where a block is in its life, see `pilotflow.core.blocks`."""

    REQUESTED = "requested"
    PENDING = "pending"
    RUNNING = "running"
    WORKING = "working"
    SUSPENDED = "suspended"
    DRAINING = "draining"
    ENDING = "ending"
    ENDED = "ended"


@dataclass(frozen=True)
class BlockLimits:
    """What an executor allows its blocks.

    Attributes:
        shape: what its blocks are like, as far as that is configured.
        init_blocks: blocks to start with.
        min_blocks, max_blocks: there are always between so many.
        parallelism: slots to provide for each task, 0 to 1; less than 1 makes tasks share.
        max_idletime_s: seconds without work after which a block is drained.
        min_life_s: seconds after its first manager has joined in which no block is drained.
        start_retries: blocks in a row that may end before a manager has joined.
        start_limit_s: seconds in which a running block's first manager must join.
    """

    shape: BlockShape
    init_blocks: int
    min_blocks: int
    max_blocks: int
    parallelism: float
    max_idletime_s: float
    min_life_s: float = 0.0
    start_retries: int = 3
    start_limit_s: float = 300.0


@dataclass(frozen=True)
class RequestBlock:
    """Submit a block of this name, on other nodes than these if the provider can choose."""

    name: str
    exclude_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DrainBlock:
    """Give this block no more work."""

    name: str


@dataclass(frozen=True)
class CancelBlock:
    """End this block now."""

    name: str


@dataclass(frozen=True)
class DropBlock:
    """Send the managers of this block away, which is over."""

    name: str
    reason: str


@dataclass(frozen=True)
class GiveUp:
    """No block will come any more. `block` is the last one that did not start."""

    reason: str
    block: str


Action: TypeAlias = RequestBlock | DrainBlock | CancelBlock | DropBlock | GiveUp


class KnownBlock(NamedTuple):
    """A block that exists: whose it is, its name, and its provider's name for it."""

    executor: str
    name: str
    batch_id: str


@dataclass(frozen=True)
class BlockInfo:
    """One block, for people.

    Attributes:
        block, executor: its name and whose it is.
        batch_id: its provider's name for it, None while it is being submitted.
        phase: where it is in its life.
        reason: why it ends, or how it has ended.
        since: when it entered its phase, by the clock of whoever keeps it.
        said: what its provider last said of it.
        nodes: names of its nodes, as far as they are known.
        start_unix_s: when it started, or is expected to, in seconds since 1970, if its provider knows it.
        ends: when it is ended by its limit, by the same clock as `since`, if that is known.
        managers, leased: managers that are there, and tasks that they hold.
        requeues: how often its provider has put it back into the queue.
    """

    block: str
    executor: str
    batch_id: str | None
    phase: Phase
    reason: str
    since: float = 0.0
    said: str = ""
    nodes: tuple[str, ...] = ()
    start_unix_s: float | None = None
    ends: float | None = None
    managers: int = 0
    leased: int = 0
    requeues: int = 0


@dataclass(frozen=True)
class Outlook:
    """What becomes of an executor's blocks.

    Attributes:
        executor: its label.
        blocks, max_blocks: how many exist, and how many may.
        failures: blocks in a row that ended before a manager had joined.
        last_failed, last_failure: the last of them, and how it ended, as the end of a sentence.
        hold_until: no block is asked for before this time.
        trouble: what its provider cannot do now, in words.
    """

    executor: str
    blocks: int
    max_blocks: int
    failures: int
    last_failed: str
    last_failure: str
    hold_until: float
    trouble: str = ""


def how_it_ended(status: BlockStatus) -> str:
    """How a block ended, as the end of a sentence about it."""
    code = status.exit_code
    if code is not None and code < 0:
        how = f"was ended by signal {-code}"
    elif status.state is BlockState.FAILED:
        how = f"failed with exit code {code}" if code else "failed"  # it is 0 if its node has failed
    elif status.state is BlockState.COMPLETED:
        how = "completed" if code is None else f"ended with exit code {code}"
    elif status.state is BlockState.TIMEOUT:
        how = "reached its walltime"
    elif status.state is BlockState.CANCELLED:
        how = "was cancelled"
    else:
        how = "is unknown to its provider"
    return f"{how} ({status.reason})." if status.reason else f"{how}."
