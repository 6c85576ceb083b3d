"""What the block keeper knows of each executor."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from pilotflow.core.blocks import BlockLimits, BlockScaler, BlockState, Outlook, Phase, RequestBlock
from pilotflow.launchers.base import Launcher
from pilotflow.messages import LiveBlock
from pilotflow.providers.base import Provider

CANCELS_MAX: Final = 500
"""Blocks that one command cancels when this process is dead."""
PATIENT: Final = 1.3
"""While a block starts or ends and nothing changes, each pause between two looks is so much longer than the last."""


@dataclass(frozen=True)
class KeptExecutor:
    """An executor whose blocks are kept.

    Attributes:
        label: its name.
        provider, launcher: where its blocks come from, and how their managers are started.
        manager_argv: the argument list of one manager of the block with the given name. It is the
            caller who puts the walltime into it.
        limits: see `BlockLimits`.
        prelude: shell text that comes before a block's worker_init.
    """

    label: str
    provider: Provider
    launcher: Launcher
    manager_argv: Callable[[str], list[str]]
    limits: BlockLimits
    prelude: str = ""


@dataclass(frozen=True)
class Ask:
    """Somebody wants so many blocks of an executor."""

    executor: str
    count: int


@dataclass
class Kept:
    """What the keeper's thread knows of one executor."""

    executor: KeptExecutor
    scaler: BlockScaler
    polled_at: float = float("-inf")
    blind_since: float | None = None
    trouble: str = ""  # what its provider cannot do now
    broken: bool = False
    to_submit: deque[RequestBlock] = field(default_factory=deque)
    submit_at: float = float("-inf")  # not before this time
    postponed: str = ""  # why not
    news: dict[str, tuple[BlockState, str]] = field(default_factory=dict)  # what the last poll has told
    quiet: int = 0  # polls in a row that have told nothing new
    phases: dict[str, Phase] = field(default_factory=dict)

    def outlook(self) -> Outlook:
        """What is to be expected of its blocks."""
        if self.broken:
            live = len(self.scaler.live)
            return Outlook(self.executor.label, live, live, 0, "", "", float("-inf"), self.trouble)
        return replace(self.scaler.outlook(), trouble=self.trouble or self.postponed)

    def due_at(self) -> float:
        """When to ask the provider next; never, if there is nothing to ask about."""
        if not self.scaler.live:
            return float("inf")
        provider = self.executor.provider
        if provider.elsewhere and self.scaler.asks_for_ends() and self.quiet < 5:
            pause_s = provider.quick_poll_s
        elif not self.scaler.changing:
            pause_s = provider.poll_s
        else:
            pause_s = min(provider.poll_s, provider.quick_poll_s * PATIENT**self.quiet)
        return self.polled_at + max(pause_s, provider.min_poll_s)


def live_blocks(kept: Kept, log: logging.Logger) -> list[LiveBlock]:
    """The blocks of one executor. The command that cancels many is with the first of them, so that it runs once."""
    label, live = kept.executor.label, list(kept.scaler.live.items())
    blocks: list[LiveBlock] = []
    for at in range(0, len(live), CANCELS_MAX):
        some = live[at : at + CANCELS_MAX]
        try:
            argv = kept.executor.provider.cancel_argv([batch_id for _, batch_id in some])
        except Exception as error:  # noqa: BLE001  a plugin's code; only the rescue from a dead client is lost
            log.warning("blocks of '%s' cannot be cancelled when this process dies: %r", label, error)
            continue
        blocks += [LiveBlock(label, name, () if index else argv) for index, (name, _) in enumerate(some)]
    return blocks
