"""How many blocks one executor has, and what becomes of blocks that do not start.

A `BlockScaler` is told what happens (`on_...`) and asked what to do (`decide`). Both take `now`, in
seconds of a monotonic clock. How many blocks the load is worth is said by `scaling`, which looks at
all executors together: `supply` is what it must know of this one. The promises:

- never more than `max_blocks` blocks that may exist, and never fewer than `min_blocks` for long;
- no block with running work is ended, none that has just joined, and none that could run what waits;
- an end without a manager that ever joined is a start failure. Tries come one at a time, later
  and later; after `start_retries` in a row with no other block left there is one `GiveUp`, and after
  the first if its managers could not reach the run and none has ever done so;
- blocks that join and then die young are replaced later and later, too.

Only blocks that are idle as a whole are drained. To drain one that still runs something would not
end it any sooner, because its tasks are left to end; and new work does not go there anyway, since
the scheduler fills the oldest nodes first. So under low load the youngest blocks run empty.

    REQUESTED -> PENDING -> RUNNING -> WORKING -> DRAINING -> ENDING -> ENDED
    (submit)     (queued)   (no        (managers) (no more    (cancel   (final)
                            manager)              work)       was sent)

A block may skip any of the states between the first and the last. It goes back only if its batch system
puts it into the queue again, or suspends it (SUSPENDED, from any of the first four) and resumes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from pilotflow.core.block_records import (
    Action,
    BlockInfo,
    BlockLimits,
    BlockState,
    BlockStatus,
    CancelBlock,
    DrainBlock,
    DropBlock,
    GiveUp,
    Outlook,
    Phase,
    RequestBlock,
    how_it_ended,
)
from pilotflow.core.block_state import LEAVE_S, LOST_S, STARTING, Block
from pilotflow.core.node_losses import NodeLosses
from pilotflow.core.scaling import IdleBlock, Queue, Supply
from pilotflow.core.setbacks import Setbacks
from pilotflow.core.shapes import Nodes
from pilotflow.ids import UNREACHABLE
from pilotflow.messages.records import BlockLoad
from pilotflow.resources import Capacity, NodeShape

LOOK_S: Final = 1.0
"""While something is under way or waits, time may bring something to do this soon."""
MISSING_S: Final = 10.0
"""A block that its provider does not know for this long has ended."""
KEEP_ENDED: Final = 200
"""Ended blocks that are remembered, for people."""


class BlockScaler:
    """The blocks of one executor: what exists, what to request, what to end.

    Args:
        label: the executor's name. Blocks are called `label-0`, `label-1` and so on; no name is used twice.
        limits: what the executor allows.

    Attributes:
        given_up: whether `GiveUp` was said.
    """

    def __init__(self, label: str, limits: BlockLimits) -> None:
        self.label = label
        self._limits = limits
        self._live: dict[str, Block] = {}
        self._ended: dict[str, Block] = {}
        self._next_number = 0
        self._nodes = Nodes(limits.shape)
        self._bad_nodes = NodeLosses()
        self._suspects: dict[str, Block] = {}  # blocks with managers that were lost
        self._haunted: dict[str, Block] = {}  # blocks that are over, and whose managers have not gone
        self._queue = Queue()
        self._setbacks = Setbacks()
        self._asked = 0  # blocks that somebody wants whatever the load, and that have not been requested
        self._more = 0  # blocks that may exist beyond the limit, because they were asked for
        self.given_up = False

    # ---- what it tells ----------------------------------------------------------------------

    @property
    def live(self) -> dict[str, str]:
        """Name and batch id of each submitted block that has not ended."""
        return {block.name: block.batch_id for block in self._live.values() if block.batch_id is not None}

    @property
    def suspended(self) -> list[str]:
        """Names of blocks that their batch system has suspended."""
        return [block.name for block in self._live.values() if block.phase is Phase.SUSPENDED]

    @property
    def changing(self) -> bool:
        """Whether some block is on its way from one state to another."""
        return any(block.phase is not Phase.WORKING or block.deserted for block in self._live.values())

    def due_at(self, now: float) -> float:
        """When `decide` may have something to do, if nothing is heard until then; never, if nothing is under way."""
        wanted = not self.given_up and (self._queue.classes or self._asked or self._below_floor() > 0)
        if wanted or self.changing or self._suspects or self._haunted:
            hold_until = self._setbacks.hold_until
            return min(now + LOOK_S, hold_until if hold_until > now else math.inf)
        limits = self._limits
        if len(self._live) <= limits.min_blocks:
            return math.inf
        return min(block.may_go_at(limits.max_idletime_s, limits.min_life_s) for block in self._live.values())

    @property
    def over_at(self) -> float:
        """When the walltime of the first block is over; never, if there is none."""
        walltime_s = self._limits.shape.walltime_s
        return min((block.over_at(walltime_s) for block in self._live.values()), default=math.inf)

    def describe(self) -> list[BlockInfo]:
        """All blocks that exist and the last ones that have ended, oldest first."""
        blocks = sorted((*self._ended.values(), *self._live.values()), key=lambda block: block.number)
        return [block.info(self.label) for block in blocks]

    def outlook(self) -> Outlook:
        """What is to be expected."""
        setbacks = self._setbacks
        failed = self._ended.get(setbacks.last_failed) if setbacks.failures else None
        name, how = (failed.name, failed.reason) if failed is not None else ("", "")
        return Outlook(self.label, len(self._live), self._most, setbacks.failures, name, how, setbacks.hold_until)

    def take_ends(self, now: float) -> list[tuple[str, float]]:
        """Blocks whose managers have not been told when they end, or that it has changed: seconds from now."""
        return [(block.name, left) for block in self._live.values() if (left := block.new_end(now)) is not None]

    def asks_for_ends(self) -> bool:
        """Whether managers have come to a block of which nobody has said yet when it ends."""
        return any(block.managers and block.ends is None for block in self._live.values())

    def supply(self, now: float) -> Supply:
        """What its blocks offer to the queue as of the last load, and what they could."""
        limits, full = self._limits, self._limits.shape.nodes
        if self.given_up:
            return Supply(self._nodes)
        coming = Counter[int]()
        idle: dict[tuple[tuple[NodeShape, ...], int], IdleBlock] = {}  # of equal ones the one that lasts longest
        leased = 0
        for block in self._live.values():
            if block.phase in STARTING:
                coming[full] += 1
            elif block.supplies:
                missing = full - len(block.seen) if now - block.working_since < limits.start_limit_s else 0
                if missing > 0 and not block.leased:
                    coming[full] += 1  # as a whole, for tasks on several nodes
                elif nodes := max(0, missing) + len(block.arrived):
                    coming[nodes] += 1
                elif not block.leased:
                    found = block.as_idle(now, limits.shape.walltime_s)
                    known = idle.setdefault((found.kinds, found.nodes), found)
                    if known.time_left_s < found.time_left_s:
                        idle[found.kinds, found.nodes] = found
                leased += block.leased
        return Supply(
            nodes=self._nodes,
            parallelism=limits.parallelism,
            room=self._most - len(self._live),
            coming=tuple(sorted(coming.items())),
            leased=leased,
            idle=tuple(idle.values()) if self._queue.classes else (),
            failing=self._setbacks.lasting,
        )

    # ---- what it is told --------------------------------------------------------------------

    def adopt(self, name: str, batch_id: str, now: float) -> None:
        """There is this block, from an earlier life of the run. Its managers will be heard of."""
        number = int(name.rpartition("-")[2])
        self.number_from(number + 1)
        self._live[name] = Block(name, number, now, Phase.PENDING, batch_id)
        self._more = max(self._more, len(self._live) - self._limits.max_blocks)

    def number_from(self, number: int) -> None:
        """Names with smaller numbers were used in an earlier life of the run."""
        self._next_number = max(self._next_number, number)

    def ask(self, count: int) -> None:
        """Somebody wants so many blocks now, whatever the load; from now on there may be so many more."""
        self._asked += count
        self._more += count

    @property
    def _most(self) -> int:
        """Blocks that may exist."""
        return self._limits.max_blocks + self._more

    def on_submitted(self, name: str, batch_id: str, now: float) -> None:
        """The provider has taken the block."""
        if block := self._live.get(name):
            block.batch_id = batch_id
            if block.phase is Phase.REQUESTED:
                block.enter(Phase.PENDING, now)

    def on_submit_failed(self, name: str, reason: str, now: float, *, hopeless: bool = False) -> None:
        """The provider has not taken the block; `hopeless` if it takes no other like it either."""
        if block := self._live.get(name):
            self._end(block, f"could not be submitted: {reason}", now)
            if self._bad_nodes.excluded(now):
                self._bad_nodes.forgive()  # it may be that nothing is left without them
            elif hopeless and not self._nodes.kinds:
                self._setbacks.hopeless = True
            if not block.seen:
                self._setbacks.on_not_started(block, now)

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
        block.heard(status, now)
        if status.state.terminal or status.state is BlockState.MISSING:
            if status.hopeless and not self._nodes.kinds:
                self._setbacks.hopeless = True
            self._on_end(block, status, now)

    def on_manager_up(self, name: str, node: str, capacity: Capacity, now: float) -> None:
        """A manager of the block has joined, or joined again."""
        block = self._live.get(name)
        if block is None:
            if (ended := self._ended.get(name)) is not None:
                ended.managers[node] = NodeShape.of(capacity)
                ended.dropped = False
                self._haunted[name] = ended
            return
        block.managers[node] = NodeShape.of(capacity)
        block.told_ends = None
        block.seen.add(node)
        block.arrived.add(node)
        block.lost.pop(node, None)
        block.left_planned = False
        self._nodes = self._nodes.learn(capacity)
        self._setbacks.on_joined()
        if block.phase in STARTING or block.phase is Phase.SUSPENDED:
            block.started = now if block.started is None else block.started
            block.enter(Phase.WORKING, now)
            block.working_since = block.idle_since = now

    def on_manager_down(self, name: str, node: str, now: float, *, planned: bool) -> None:
        """A manager of the block has left (`planned`) or was lost. It may be known only after the block's end."""
        block = self._live.get(name) or self._ended.get(name)
        if block is None or block.managers.pop(node, None) is None:
            return
        block.left_planned = planned
        block.arrived.discard(node)
        if not planned and block.phase in {Phase.WORKING, Phase.ENDED}:
            block.lost[node] = now
            self._suspects[name] = block
        if not block.managers:
            block.empty_since, block.leased = now, 0

    def on_manager_refused(self, name: str, reason: str) -> None:
        """A manager of the block was not let in; its block will end without one."""
        if block := self._live.get(name):
            block.refusal = reason

    def on_load(self, blocks: Iterable[BlockLoad], queue: Queue, now: float) -> None:
        """What each block with managers holds, and what waits for any executor.

        Blocks of other executors are passed over.
        """
        self._queue = queue
        for block in self._live.values():
            block.arrived.clear()  # the queue is what they have left
        for load in blocks:
            known = self._live.get(load.block)
            if known is not None and not known.deserted:
                known.leased = load.leased
                known.idle_since = None if load.leased else now - load.idle_s

    # ---- what to do -------------------------------------------------------------------------

    def decide(self, now: float, wanted: int = 0) -> list[Action]:
        """What to do now, in this order, if the load is worth so many more blocks. What it returns counts as done."""
        self._judge_losses(now)
        actions: list[Action] = self._enforce_bounds(now)
        actions += self._drop_managers(now)
        if self.given_up:
            return actions
        missing = max(wanted, self._below_floor(), self._asked)
        if not self._live and missing > 0 and self._setbacks.are_enough(self._limits.start_retries):
            self.given_up = True
            last = self._setbacks.last_failed
            return [*actions, GiveUp(self._ended[last].why_given_up(self.label, self._setbacks.failures), last)]
        actions += self._scale_out(missing, now)
        actions += self._scale_in(now)
        return actions

    def _enforce_bounds(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for block in self._live.values():
            if why := block.why_end(self._limits.start_limit_s, now):
                if block.phase is Phase.RUNNING:
                    self._setbacks.on_not_started(block, now)
                elif block.deserted and block.phase is not Phase.ENDING:
                    self._setbacks.on_lost(block, now, planned=block.left_as_planned)
                block.reason = why
                block.enter(Phase.ENDING, now)
                actions.append(CancelBlock(block.name))
        return actions

    def _drop_managers(self, now: float) -> list[Action]:
        """Send managers away whose block is over for its provider, and which have not noticed."""
        actions: list[Action] = []
        for name, block in list(self._haunted.items()):
            if not block.managers:
                del self._haunted[name]
            elif not block.dropped and now - block.since >= LEAVE_S:
                block.dropped = True
                actions.append(DropBlock(name, f"its block is over: it {block.reason.rstrip('.')}"))
        return actions

    def _below_floor(self) -> int:
        limits = self._limits
        floor = limits.min_blocks if self._nodes.kinds else max(limits.min_blocks, limits.init_blocks)
        return floor - sum(block.supplies for block in self._live.values())

    def _scale_out(self, missing: int, now: float) -> list[Action]:
        if now < self._setbacks.hold_until:
            return []
        if self._setbacks.failures:  # one try at a time until something joins
            missing = min(missing, 0 if any(b.phase in STARTING for b in self._live.values()) else 1)
        requests = [self._request(now) for _ in range(min(missing, self._most - len(self._live)))]
        self._asked = max(0, self._asked - len(requests))
        return list(requests)

    def _request(self, now: float) -> RequestBlock:
        name = f"{self.label}-{self._next_number}"
        self._live[name] = Block(name, self._next_number, now)
        self._next_number += 1
        suspects = {node for block in self._suspects.values() for node in block.suspects}
        return RequestBlock(name, self._bad_nodes.excluded(now, suspects))

    def _scale_in(self, now: float) -> list[Action]:
        limits = self._limits
        working = [block for block in self._live.values() if block.phase is Phase.WORKING and block.supplies]
        spare = len(working) - limits.min_blocks
        actions: list[Action] = []
        idle = [(block.idle_since, -block.number, block) for block in working if block.idle_since is not None]
        for since, _, block in sorted(idle, key=lambda entry: entry[:2]):
            if spare <= 0:
                break
            if now < block.may_go_at(limits.max_idletime_s, limits.min_life_s):
                continue
            if self._queue.wants(self.label, block.as_idle(now, limits.shape.walltime_s), limits.shape.walltime_s):
                continue  # the load would ask for it again at once
            spare -= 1
            block.reason = f"idle for {now - since:.0f} s"
            block.enter(Phase.DRAINING, now)
            actions.append(DrainBlock(block.name))
        return actions

    # ---- ends -------------------------------------------------------------------------------

    def _on_end(self, block: Block, status: BlockStatus, now: float) -> None:
        how = how_it_ended(status)
        if block.refusal and not block.seen:
            how += f" Its manager was refused: {block.refusal}"
        asked = block.phase in {Phase.DRAINING, Phase.ENDING}
        block.excused = asked or status.state not in {BlockState.FAILED, BlockState.MISSING}
        self._end(block, f"{block.reason}; {how}" if block.reason else how, now)
        if asked:
            return
        if not block.seen:
            self._setbacks.on_not_started(block, now)
            if status.exit_code == UNREACHABLE and not self._nodes.kinds:  # and none ever has: nor will the next
                self._setbacks.hopeless = True
        else:
            ended_well = status.state in {BlockState.COMPLETED, BlockState.TIMEOUT}
            self._setbacks.on_lost(block, now, planned=block.left_planned or ended_well)

    def _end(self, block: Block, reason: str, now: float) -> None:
        del self._live[block.name]
        block.reason = reason
        block.leased = 0
        if block.managers:
            self._haunted[block.name] = block
        block.enter(Phase.ENDED, now)
        self._ended[block.name] = block
        if len(self._ended) > KEEP_ENDED:
            del self._ended[next(name for name in self._ended if name != self._setbacks.last_failed)]

    def _judge_losses(self, now: float) -> None:
        """Hold lost managers against their nodes, when it is known what has become of the rest of their block."""
        for name, block in list(self._suspects.items()):
            over = block.phase is Phase.ENDED and not block.managers
            if over or now - max(block.lost.values(), default=-math.inf) >= LOST_S:
                del self._suspects[name]
                self._bad_nodes.on_lost(block.take_suspects(), now)
