"""How many blocks one executor has, and what becomes of blocks that do not start.

A `BlockScaler` is told what happens (`on_...`) and asked what to do (`decide`). Both take `now`, in
seconds of a monotonic clock. Its promises:

- never more than `max_blocks` blocks that may exist, and never fewer than `min_blocks` for long;
- no block with running work is ended, and none that the load would call for again at once;
- an end without a manager that ever joined is a start failure. Tries come one at a time, later
  and later; after `start_retries` in a row with no other block left there is one `GiveUp`;
- blocks that join and then die young are replaced later and later, too.

    REQUESTED -> PENDING -> RUNNING -> WORKING -> DRAINING -> ENDING -> ENDED
    (submit)     (queued)   (no        (managers) (no more    (cancel   (final)
                            manager)              work)       was sent)

A block may skip any of the states between the first and the last, and never goes back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from pilotflow.core.block_records import (
    Action,
    BlockInfo,
    BlockLimits,
    BlockState,
    BlockStatus,
    CancelBlock,
    DrainBlock,
    GiveUp,
    Outlook,
    Phase,
    RequestBlock,
    how_it_ended,
)
from pilotflow.messages import BlockLoad

__all__ = [
    "Action",
    "BlockInfo",
    "BlockLimits",
    "BlockScaler",
    "BlockState",
    "BlockStatus",
    "CancelBlock",
    "DrainBlock",
    "GiveUp",
    "Outlook",
    "Phase",
    "RequestBlock",
]

STUCK_S: Final = 1.0
"""Tasks that wait this long beside free slots are too big for what is free: another block may help."""
LEAVE_S: Final = 2.0
"""A block whose managers left as planned ends by itself within this time, or is cancelled."""
LOST_S: Final = 5.0
"""Lost managers may come back within this time before their block is cancelled."""
DRAIN_S: Final = 60.0
"""Managers that hold nothing and still do not leave a draining block are ended after this time."""
MISSING_S: Final = 10.0
"""A block that its provider does not know for this long has ended."""
CANCEL_AGAIN_S: Final = 30.0
"""A cancelled block that does not end is cancelled again after this time."""
YOUNG_S: Final = 30.0
"""A block lost within this time of its first manager is a sign that the next one will be lost as well."""
MAX_BACKOFF_S: Final = 60.0
KEEP_ENDED: Final = 200
"""Ended blocks that are remembered, for people."""
_EPSILON: Final = 1e-9


_STARTING: Final = frozenset({Phase.REQUESTED, Phase.PENDING, Phase.RUNNING})
_SUPPLY: Final = _STARTING | {Phase.WORKING}


@dataclass
class _Block:
    name: str
    number: int
    since: float  # when it entered its phase
    phase: Phase = Phase.REQUESTED
    batch_id: str | None = None
    managers: dict[str, int] = field(default_factory=dict)  # node: slots, of those that are there
    seen: set[str] = field(default_factory=set)  # nodes whose manager has ever joined
    working_since: float = 0.0
    empty_since: float = 0.0  # when the last manager went
    idle_since: float | None = None
    missing_since: float | None = None
    leased: int = 0
    left_planned: bool = False
    refusal: str = ""
    counted: bool = False  # its end is already accounted for
    reason: str = ""
    said: str = ""  # by its provider, about its state

    @property
    def deserted(self) -> bool:
        return bool(self.seen) and not self.managers

    @property
    def supplies(self) -> bool:
        return self.phase in _SUPPLY and not self.deserted

    def enter(self, phase: Phase, now: float) -> None:
        self.phase, self.since = phase, now


class BlockScaler:
    """The blocks of one executor: what exists, what to request, what to end.

    Args:
        label: the executor's name. Blocks are called `label-0`, `label-1` and so on; no name is used twice.
        limits: what the executor allows.
    """

    def __init__(self, label: str, limits: BlockLimits) -> None:
        self.label = label
        self._limits = limits
        self._live: dict[str, _Block] = {}
        self._ended: dict[str, _Block] = {}
        self._next_number = 0
        self._slots_per_node = max(1, limits.slots_per_node_guess)
        self._ever_joined = False
        self._queued = self._leased = 0
        self._waiting_since: float | None = None  # since when tasks wait although slots are free
        self._failures = 0  # start failures in a row
        self._losses = 0  # blocks lost young, in a row
        self._hold_until = -math.inf
        self._last_failed = ""
        self._given_up = False

    # ---- what it tells ----------------------------------------------------------------------

    @property
    def live(self) -> dict[str, str]:
        """Name and batch id of each submitted block that has not ended."""
        return {block.name: block.batch_id for block in self._live.values() if block.batch_id is not None}

    @property
    def changing(self) -> bool:
        """Whether some block is on its way from one state to another."""
        return any(block.phase is not Phase.WORKING or block.deserted for block in self._live.values())

    @property
    def given_up(self) -> bool:
        """Whether `GiveUp` was said."""
        return self._given_up

    @property
    def hold_until(self) -> float:
        """Nothing is requested before this time."""
        return self._hold_until

    def describe(self) -> list[BlockInfo]:
        """All blocks that exist and the last ones that have ended, oldest first."""
        blocks = sorted((*self._ended.values(), *self._live.values()), key=lambda block: block.number)
        return [BlockInfo(b.name, self.label, b.batch_id, b.phase, b.reason, b.since, b.said) for b in blocks]

    def outlook(self) -> Outlook:
        """What is to be expected."""
        failed = self._ended.get(self._last_failed) if self._failures else None
        name, how = (failed.name, failed.reason) if failed is not None else ("", "")
        live, most = len(self._live), self._limits.max_blocks
        return Outlook(self.label, live, most, self._failures, name, how, self._hold_until)

    # ---- what it is told --------------------------------------------------------------------

    def on_submitted(self, name: str, batch_id: str, now: float) -> None:
        """The provider has taken the block."""
        if block := self._live.get(name):
            block.batch_id = batch_id
            if block.phase is Phase.REQUESTED:
                block.enter(Phase.PENDING, now)

    def on_submit_failed(self, name: str, reason: str, now: float) -> None:
        """The provider has not taken the block."""
        if block := self._live.get(name):
            self._end(block, f"could not be submitted: {reason}", now)
            if not block.seen:
                self._count_start_failure(block, now)

    def on_status(self, name: str, status: BlockStatus, now: float) -> None:
        """What the provider says about the block."""
        block = self._live.get(name)
        if block is None:
            return
        if status.state is BlockState.MISSING:
            if block.missing_since is None:
                block.missing_since = now
            if now - block.missing_since < MISSING_S:
                return
        else:
            block.missing_since = None
        block.said = status.reason
        if status.state is BlockState.RUNNING and block.phase in {Phase.REQUESTED, Phase.PENDING}:
            block.enter(Phase.RUNNING, now)
        elif status.state.terminal or status.state is BlockState.MISSING:
            self._on_end(block, status, now)

    def on_manager_up(self, name: str, node: str, slots: int, now: float) -> None:
        """A manager of the block has joined, or joined again."""
        block = self._live.get(name)
        if block is None:
            return
        block.managers[node] = slots
        block.seen.add(node)
        block.left_planned = False
        self._slots_per_node = max(1, slots)
        self._ever_joined = True
        self._failures = 0
        if not self._losses:
            self._hold_until = -math.inf
        if block.phase in _STARTING:
            block.enter(Phase.WORKING, now)
            block.working_since = block.idle_since = now

    def on_manager_down(self, name: str, node: str, now: float, *, planned: bool) -> None:
        """A manager of the block has left (`planned`) or was lost."""
        block = self._live.get(name)
        if block is None or block.managers.pop(node, None) is None:
            return
        block.left_planned = planned
        if not block.managers:
            block.empty_since, block.leased = now, 0

    def on_manager_refused(self, name: str, reason: str) -> None:
        """A manager of the block was not let in; its block will end without one."""
        if block := self._live.get(name):
            block.refusal = reason

    def on_load(self, queued: int, leased: int, blocks: Iterable[BlockLoad], now: float) -> None:
        """Tasks that wait, tasks handed out, and what each block with managers holds.

        Blocks of other executors are passed over.
        """
        self._queued, self._leased = queued, leased
        for load in blocks:
            block = self._live.get(load.block)
            if block is not None and not block.deserted:
                block.leased = load.leased
                block.idle_since = None if load.leased else now - load.idle_s

    # ---- what to do -------------------------------------------------------------------------

    def decide(self, now: float) -> list[Action]:
        """What to do now, in this order. What it returns counts as done."""
        actions: list[Action] = self._enforce_bounds(now)
        if self._given_up:
            return actions
        if not self._live and self._failures >= max(1, self._limits.start_retries) and self._missing_blocks(now) > 0:
            self._given_up = True
            return [*actions, GiveUp(self._why_given_up(), self._last_failed)]
        actions += self._scale_out(now)
        actions += self._scale_in(now)
        return actions

    def _why_given_up(self) -> str:
        last = self._ended[self._last_failed]
        times = "A block" if self._failures == 1 else f"{self._failures} blocks in a row"
        return (
            f"{times} of executor '{self.label}' ended before a manager had joined. "
            f"The last one, {last.name}, {last.reason}"
        )

    def _enforce_bounds(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for block in self._live.values():
            waited = now - block.since
            why = ""
            if block.phase is Phase.RUNNING and waited >= self._limits.start_limit_s:
                why = f"had no manager {self._limits.start_limit_s:g} s after it had started"
                self._count_start_failure(block, now)
            elif block.phase in {Phase.WORKING, Phase.DRAINING} and block.deserted:
                planned = block.left_planned or block.phase is Phase.DRAINING
                if now - block.empty_since >= (LEAVE_S if planned else LOST_S):
                    why = "was left by its managers" if planned else "lost its managers"
                    self._count_loss(block, now, planned=planned)
            elif block.phase is Phase.DRAINING and not block.leased and waited >= DRAIN_S:
                why = f"did not end within {DRAIN_S:g} s of being drained"
            elif block.phase is Phase.ENDING and waited >= CANCEL_AGAIN_S:
                why = block.reason
            if why:
                block.reason = why
                block.enter(Phase.ENDING, now)
                actions.append(CancelBlock(block.name))
        return actions

    def _scale_out(self, now: float) -> list[Action]:
        wanted = self._missing_blocks(now)
        if now < self._hold_until:
            return []
        if self._failures:  # one try at a time until something joins
            wanted = min(wanted, 0 if any(b.phase in _STARTING for b in self._live.values()) else 1)
        room = self._limits.max_blocks - len(self._live)
        return [self._request(now) for _ in range(min(wanted, room))]

    def _request(self, now: float) -> RequestBlock:
        name = f"{self.label}-{self._next_number}"
        self._live[name] = _Block(name, self._next_number, now)
        self._next_number += 1
        self._waiting_since = None
        return RequestBlock(name)

    def _missing_blocks(self, now: float) -> int:
        """Blocks that the limits or the load ask for beyond those that work or will."""
        limits = self._limits
        usable = [block for block in self._live.values() if block.supplies]
        floor = limits.min_blocks if self._ever_joined else max(limits.min_blocks, limits.init_blocks)
        missing = floor - len(usable)
        need = (self._queued + self._leased) * limits.parallelism - sum(map(self._slots, usable))
        if need > _EPSILON:
            slots_per_block = limits.nodes_per_block * self._slots_per_node
            missing = max(missing, math.ceil(need / slots_per_block - _EPSILON))
        if self._is_stuck(usable, now) or (self._queued and not usable):
            missing = max(missing, 1)
        return missing

    def _is_stuck(self, usable: Sequence[_Block], now: float) -> bool:
        """Whether tasks have long waited although slots look free, and every block has something to do.

        Slots count tasks of one core; bigger ones fill a node before its slots are used up.
        """
        slots = sum(map(self._slots, usable)) * min(1.0, self._limits.parallelism)
        full = all(block.phase is Phase.WORKING and block.leased for block in usable)
        if not (self._queued and usable and full and self._leased < slots):
            self._waiting_since = None
            return False
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= STUCK_S

    def _slots(self, block: _Block) -> int:
        to_come = max(0, self._limits.nodes_per_block - len(block.seen))
        return sum(block.managers.values()) + to_come * self._slots_per_node

    def _scale_in(self, now: float) -> list[Action]:
        if self._queued:
            return []
        usable = [block for block in self._live.values() if block.supplies]
        spare = sum(block.phase is Phase.WORKING for block in usable) - self._limits.min_blocks
        slots = sum(map(self._slots, usable))
        actions: list[Action] = []
        idle = [(b.idle_since, -b.number, b) for b in usable if b.phase is Phase.WORKING and b.idle_since is not None]
        for since, _, block in sorted(idle, key=lambda entry: entry[:2]):
            if spare <= 0 or now - since < self._limits.max_idletime_s:
                break
            left = slots - self._slots(block)
            if left + _EPSILON < self._leased * self._limits.parallelism:
                continue  # the load would ask for it again at once
            slots, spare = left, spare - 1
            block.reason = f"idle for {now - since:.0f} s"
            block.enter(Phase.DRAINING, now)
            actions.append(DrainBlock(block.name))
        return actions

    # ---- ends -------------------------------------------------------------------------------

    def _on_end(self, block: _Block, status: BlockStatus, now: float) -> None:
        how = how_it_ended(status)
        if block.refusal and not block.seen:
            how += f" Its manager was refused: {block.refusal}"
        asked = block.phase in {Phase.DRAINING, Phase.ENDING}
        self._end(block, f"{block.reason}; {how}" if block.reason else how, now)
        if asked:
            return
        if not block.seen:
            self._count_start_failure(block, now)
        else:
            ended_well = status.state in {BlockState.COMPLETED, BlockState.TIMEOUT}
            self._count_loss(block, now, planned=block.left_planned or ended_well)

    def _end(self, block: _Block, reason: str, now: float) -> None:
        del self._live[block.name]
        block.reason = reason
        block.managers.clear()
        block.leased = 0
        block.enter(Phase.ENDED, now)
        self._ended[block.name] = block
        if len(self._ended) > KEEP_ENDED:
            del self._ended[next(name for name in self._ended if name != self._last_failed)]

    def _count_start_failure(self, block: _Block, now: float) -> None:
        if not block.counted:
            block.counted = True
            self._failures += 1
            self._last_failed = block.name
            self._hold_until = max(self._hold_until, now + _backoff_s(self._failures))

    def _count_loss(self, block: _Block, now: float, *, planned: bool) -> None:
        if block.counted:
            return
        block.counted = True
        young = now - block.working_since < (LEAVE_S if planned else YOUNG_S)
        self._losses = self._losses + 1 if young else 0
        self._hold_until = max(self._hold_until, now + _backoff_s(self._losses))


def _backoff_s(times: int) -> float:
    """Seconds to wait after something went wrong so many times in a row: 0, 1, 2, 4 ..."""
    return 0.0 if times <= 1 else min(2.0 ** min(times - 2, 30), MAX_BACKOFF_S)
