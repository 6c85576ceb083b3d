"""One block as its scaler knows it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from pilotflow.core.block_records import BlockInfo, BlockState, BlockStatus, Phase
from pilotflow.core.scaling import IdleBlock
from pilotflow.resources import NodeShape

STARTING: Final = frozenset({Phase.REQUESTED, Phase.PENDING, Phase.RUNNING})
MOVED_S: Final = 3.0
"""Managers are told of a new end of their block if it is so far from what they know; providers count in seconds."""
_SUPPLY: Final = STARTING | {Phase.WORKING}
_PUT_BACK: Final = frozenset({Phase.RUNNING, Phase.WORKING, Phase.SUSPENDED})
LEAVE_S: Final = 2.0
"""A block whose managers left as planned ends by itself within this time, or is cancelled."""
LOST_S: Final = 5.0
"""Lost managers may come back within this time before their block is cancelled."""
ASK_S: Final = 60.0
"""So long a block without managers is left alone if its provider has said nothing of it since they were lost."""
DRAIN_S: Final = 60.0
"""Managers that hold nothing and still do not leave a draining block are ended after this time."""
CANCEL_AGAIN_S: Final = 30.0
"""A cancelled block that does not end is cancelled again after this time."""


@dataclass(eq=False)
class Block:
    """A block, and what has become of it.

    Attributes:
        name, number: what it is called, and its place among the executor's blocks.
        since: when it entered its phase.
        managers: what the node of each manager has that is there, by the node's name.
        seen: nodes whose manager has ever joined.
        arrived: nodes whose manager has joined since the last load, which does not know them.
        lost: nodes whose manager was lost, and when, as far as nobody has judged that.
        blamed: nodes that lost their manager while others went on.
        excused: it was ended as planned or from outside, so that no node is to blame.
        started: when it was first seen to run.
        ran_s: seconds for which it had run when it was suspended, if no manager had joined.
        working_since: when its first manager joined.
        empty_since: when its last manager went.
        idle_since: since when it holds no task.
        missing_since: since when its provider does not know it.
        leased: tasks that it holds.
        left_planned: whether the last manager that went has left as planned.
        refusal: why its manager was not let in.
        counted: whether its end is accounted for already.
        reason: why it is being ended, or how it has ended.
        said: what its provider has said last about its state.
        heard_at: when that was.
        ends: when it is ended by its limit, as its provider says, by our clock.
        told_ends: what its managers were told of that.
        nodes: its nodes, as its provider says.
        start_unix_s: when it started or is expected to, as its provider says, in seconds since 1970.
        requeues: how often its provider has put it back into the queue.
        dropped: whether its managers were sent away after its end.
    """

    name: str
    number: int
    since: float
    phase: Phase = Phase.REQUESTED
    batch_id: str | None = None
    managers: dict[str, NodeShape] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    arrived: set[str] = field(default_factory=set)
    lost: dict[str, float] = field(default_factory=dict)
    blamed: set[str] = field(default_factory=set)
    excused: bool = False
    started: float | None = None
    ran_s: float = 0.0
    working_since: float = 0.0
    empty_since: float = 0.0
    idle_since: float | None = None
    missing_since: float | None = None
    leased: int = 0
    left_planned: bool = False
    refusal: str = ""
    counted: bool = False
    reason: str = ""
    said: str = ""
    heard_at: float = -math.inf
    ends: float | None = None
    told_ends: float | None = None
    nodes: tuple[str, ...] = ()
    start_unix_s: float | None = None
    requeues: int = 0
    dropped: bool = False

    @property
    def deserted(self) -> bool:
        """Whether managers have joined, and none is there."""
        return bool(self.seen) and not self.managers

    @property
    def supplies(self) -> bool:
        """Whether it runs tasks, or will."""
        return self.phase in _SUPPLY and not self.deserted

    @property
    def left_as_planned(self) -> bool:
        """Whether those of its managers that have gone were meant to."""
        return self.left_planned or self.phase is Phase.DRAINING

    def why_end(self, start_limit_s: float, now: float) -> str:
        """Why it is to be ended now, as the end of a sentence about it; empty if it is not."""
        waited = now - self.since
        if self.phase is Phase.RUNNING and waited >= start_limit_s:
            return f"had no manager {start_limit_s:g} s after it had started (start_limit)"
        if self.phase in {Phase.WORKING, Phase.DRAINING} and self.deserted:
            planned = self.left_as_planned
            if now - self.empty_since < (LEAVE_S if planned else LOST_S):
                return ""
            if not planned and self.heard_at < self.empty_since and now - self.empty_since < ASK_S:
                return ""  # it may be suspended
            return "was left by its managers" if planned else "lost its managers"
        if self.phase is Phase.DRAINING and not self.leased and waited >= DRAIN_S:
            return f"did not end within {DRAIN_S:g} s of being drained"
        return self.reason if self.phase is Phase.ENDING and waited >= CANCEL_AGAIN_S else ""

    def may_go_at(self, max_idletime_s: float, min_life_s: float) -> float:
        """When it has been idle for so long that it may be drained; never, while it holds tasks."""
        if self.idle_since is None:
            return math.inf
        return max(self.idle_since + max_idletime_s, self.working_since + min_life_s)

    def over_at(self, walltime_s: float | None) -> float:
        """When it is ended by its limit, as far as that is known."""
        if self.ends is not None:
            return self.ends
        return math.inf if walltime_s is None or self.started is None else self.started + walltime_s

    def enter(self, phase: Phase, now: float) -> None:
        """It is in this phase from now on."""
        self.phase, self.since = phase, now

    def new_end(self, now: float) -> float | None:
        """The seconds that are left, if its managers are to be told of them; then they count as told."""
        if not self.managers or self.ends is None:
            return None
        if self.told_ends is not None and abs(self.told_ends - self.ends) < MOVED_S:
            return None
        self.told_ends = self.ends
        return max(0.0, self.ends - now)

    def heard(self, status: BlockStatus, now: float) -> None:
        """Its provider has said this."""
        self.said, self.heard_at = status.reason, now
        self.nodes, self.start_unix_s = status.nodes or self.nodes, status.start_unix_s or self.start_unix_s
        self.ends = None if status.time_left_s is None else now + status.time_left_s
        match status.state:
            case BlockState.PENDING if self.phase in _PUT_BACK and not self.managers:
                self._requeue(now)
            case BlockState.SUSPENDED if self.phase in _SUPPLY:
                self.ran_s = now - self.since if self.phase is Phase.RUNNING else 0.0
                self.lost.clear()  # no node is to blame
                self.enter(Phase.SUSPENDED, now)
            case BlockState.RUNNING if self.phase is Phase.SUSPENDED:
                self._resume(now)
            case BlockState.RUNNING if self.phase in {Phase.REQUESTED, Phase.PENDING}:
                self.enter(Phase.RUNNING, now)
                self.started = now

    def info(self, executor: str) -> BlockInfo:
        """What there is to say about it."""
        return BlockInfo(
            self.name,
            executor,
            self.batch_id,
            self.phase,
            self.reason,
            self.since,
            self.said,
            nodes=self.nodes or tuple(sorted(self.seen)),
            start_unix_s=self.start_unix_s,
            ends=self.ends if self.phase is not Phase.ENDED and self.phase is not Phase.PENDING else None,
            managers=0 if self.phase is Phase.ENDED else len(self.managers),
            leased=self.leased,
            requeues=self.requeues,
        )

    def why_given_up(self, label: str, failures: int) -> str:
        """What is said when its executor is given up after so many failures in a row, of which it is the last."""
        times = "A block" if failures == 1 else f"{failures} blocks in a row"
        ended = f"of executor '{label}' ended before a manager had joined"
        return f"{times} {ended}. The last one, {self.name}, {self.reason}"

    def _requeue(self, now: float) -> None:
        """It is in the queue again, as it was before its first manager."""
        self.enter(Phase.PENDING, now)
        self.requeues += 1
        self.seen.clear()
        self.nodes = ()
        self.started = self.ends = self.idle_since = None

    def _resume(self, now: float) -> None:
        """It runs again. Managers that were missed have as long as its first ones had to join; its clock goes on."""
        self.enter(Phase.WORKING if self.managers else Phase.RUNNING, now - self.ran_s)
        self.started = now if self.started is None else self.started
        if not self.managers:
            self.seen.clear()

    def as_idle(self, now: float, walltime_s: float | None) -> IdleBlock:
        """What it could run if it holds nothing."""
        left_s = self.over_at(walltime_s) - now
        return IdleBlock(tuple(dict.fromkeys(self.managers.values())), len(self.managers), left_s)

    @property
    def suspects(self) -> list[str]:
        """Nodes that may be to blame for the loss of their managers; none if all of several went together."""
        if self.excused or 1 < len(self.seen) <= len(self.blamed) + len(self.lost):
            return []
        return list(self.lost)

    def take_suspects(self) -> list[str]:
        """The same, once: now they are to blame."""
        found = self.suspects
        self.blamed.update(found)
        self.lost.clear()
        return found
