"""Blocks that do not start, or die young: when the next one may be tried, and when enough were."""

from __future__ import annotations

import math
from typing import Final

from pilotflow.core.block_state import LEAVE_S, Block

YOUNG_S: Final = 30.0
"""A block lost within this time of its first manager is a sign that the next one will be lost as well."""
MAX_BACKOFF_S: Final = 60.0


class Setbacks:
    """Those of one executor's blocks. Each block counts once.

    Attributes:
        failures: blocks in a row that ended before a manager had joined.
        last_failed: the last of them.
        hold_until: no block is to be requested before this time.
        hopeless: no other try is worth it: managers cannot reach the run, or the provider says so.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.last_failed = ""
        self.hold_until = -math.inf
        self.hopeless = False
        self._losses = 0  # blocks lost young, in a row

    @property
    def lasting(self) -> bool:
        """Whether the last block was one."""
        return bool(self.failures or self._losses)

    def are_enough(self, start_retries: int) -> bool:
        """Whether so many blocks in a row have not started that no other is tried."""
        return self.failures >= (1 if self.hopeless else max(1, start_retries))

    def on_joined(self) -> None:
        """A manager has joined."""
        self.failures = 0
        if not self._losses:
            self.hold_until = -math.inf

    def on_not_started(self, block: Block, now: float) -> None:
        """The block has ended, or is ended, before a manager had joined."""
        if not block.counted:
            block.counted = True
            self.failures += 1
            self.last_failed = block.name
            self._hold(self.failures, now)

    def on_lost(self, block: Block, now: float, *, planned: bool) -> None:
        """The block has ended, or is ended, after its managers had left (`planned`) or were lost."""
        if not block.counted:
            block.counted = True
            young = now - block.working_since < (LEAVE_S if planned else YOUNG_S)
            self._losses = self._losses + 1 if young else 0
            self._hold(self._losses, now)

    def _hold(self, times: int, now: float) -> None:
        """Something went wrong so many times in a row: wait 0, 1, 2, 4 ... seconds."""
        pause_s = 0.0 if times <= 1 else min(2.0 ** min(times - 2, 30), MAX_BACKOFF_S)
        self.hold_until = max(self.hold_until, now + pause_s)
