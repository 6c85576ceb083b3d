"""What the block keeper knows of each executor."""

from __future__ import annotations

import glob
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import Final

from pilotflow.core.block_records import BlockLimits, BlockState, BlockStatus, KnownBlock, Outlook, Phase, RequestBlock
from pilotflow.core.blocks import BlockScaler
from pilotflow.errors import PilotflowError
from pilotflow.launchers.base import Launcher
from pilotflow.providers.base import BlockJob, Provider
from pilotflow.runtime.end_watch import EndWatch
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.tails import tail

PATIENT: Final = 1.3
"""While a block starts or ends and nothing changes, each pause between two looks is so much longer than the last..."""
QUIET_MAX: Final = 50
"""...so many times at most: a block may wait in a queue for weeks."""


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
    loop: InitVar[Loop]
    log: InitVar[logging.Logger]
    polled_at: float = float("-inf")
    looks_soon: bool = False  # something has happened that the provider may tell
    blind_since: float | None = None
    trouble: str = ""  # what its provider cannot do now
    broken: bool = False
    to_submit: deque[RequestBlock] = field(default_factory=deque)
    submit_at: float = float("-inf")  # not before this time
    handing_in: dict[str, BlockJob] = field(default_factory=dict)  # of which no batch id is known, but may exist
    postponed: str = ""  # why not
    news: dict[str, tuple[BlockState, str]] = field(default_factory=dict)  # what the last poll has told
    quiet: int = 0  # polls in a row that have told nothing new
    phases: dict[str, Phase] = field(default_factory=dict)
    ends: EndWatch = field(init=False)

    def __post_init__(self, loop: Loop, log: logging.Logger) -> None:
        """The loop shows when its blocks end."""
        self.ends = EndWatch(self.executor.provider, loop, self.look_soon, log)

    def adopt(self, blocks: Sequence[KnownBlock], directory: Path, log: logging.Logger) -> None:
        """Go on with blocks of an earlier life of the run, whose output is in `directory`; names are not used twice."""
        label, provider = self.executor.label, self.executor.provider
        used = [path.name.removeprefix(f"{label}-") for path in directory.glob(f"{glob.escape(label)}-*")]
        self.scaler.number_from(1 + max((int(number) for number in used if number.isdecimal()), default=-1))
        for block in blocks:
            if not provider.elsewhere and _is_unknown(provider, block.batch_id):  # on this machine that is final
                log.info("block %s (%s) has ended meanwhile", block.name, block.batch_id)
            else:
                self.scaler.adopt(block.name, block.batch_id, time.monotonic())

    def look_soon(self) -> None:
        """A block has ended, or probably has: ask the provider."""
        self.quiet = 0
        self.looks_soon = True

    def outlook(self) -> Outlook:
        """What is to be expected of its blocks."""
        if self.broken:
            live = len(self.scaler.live)
            return Outlook(self.executor.label, live, live, 0, "", "", float("-inf"), self.trouble)
        return replace(self.scaler.outlook(), trouble=self.trouble or self.postponed)

    def due_at(self, now: float) -> float:
        """When there may be something to do, if nothing is heard until then."""
        submit_at = self.submit_at if self.to_submit else float("inf")
        return min(submit_at, self.polls_at(now), self.scaler.due_at(now))

    def polls_at(self, now: float) -> float:
        """When to ask the provider next; never, if there is nothing to ask about."""
        if not self.scaler.live:
            return float("inf")
        provider = self.executor.provider
        over_at = float("inf") if provider.elsewhere else self.scaler.over_at  # its provider ends it when asked
        new = provider.elsewhere and self.scaler.asks_for_ends() and self.quiet < 5
        if self.looks_soon and not provider.elsewhere:
            pause_s = 0.0  # nobody minds
        elif new or now >= over_at or self.looks_soon or self.ends.ended:
            pause_s = provider.quick_poll_s
        elif self.scaler.changing:
            pause_s = min(provider.poll_s, provider.quick_poll_s * PATIENT ** min(self.quiet, QUIET_MAX))
        else:
            pause_s = provider.poll_s
        next_at = self.polled_at + max(pause_s, provider.min_poll_s)
        return min(next_at, over_at) if self.polled_at < over_at else next_at

    def poll(self, now: float, log: logging.Logger) -> str:
        """Ask its provider how its blocks are; returns why it is given up, if the provider cannot tell for too long."""
        live = self.scaler.live
        self.polled_at, self.looks_soon = now, False
        try:
            statuses = self.executor.provider.status(list(live.values()))
        except Exception as error:  # noqa: BLE001  a plugin's code, which asks a batch system that may be away
            return self._blind(error, now, log)
        self.blind_since, self.trouble = None, ""
        news = {name: (s.state, s.reason) for name, i in live.items() if (s := statuses.get(i)) is not None}
        self.quiet = self.quiet + 1 if news == self.news else 0
        self.news = news
        for name, batch_id in live.items():
            unknown = BlockStatus(BlockState.MISSING, "its provider says nothing about it")
            self.scaler.on_status(name, statuses.get(batch_id, unknown), now)
        self.ends.keep_to(self.scaler.live.values())
        return ""

    def _blind(self, error: Exception, now: float, log: logging.Logger) -> str:
        """Its provider cannot tell the state of its blocks; returns why it is given up, if that has lasted too long."""
        label, provider = self.executor.label, self.executor.provider
        said = str(error).rstrip(".") if isinstance(error, PilotflowError) else repr(error)
        self.trouble = f"Its provider cannot tell the state of its blocks now: {said}."
        if self.blind_since is None:
            self.blind_since = now
            log.warning("the provider of executor '%s' cannot tell the state of its blocks: %s", label, said)
        elif now - self.blind_since >= provider.patience_s and self.scaler.changing:
            return (
                f"For {provider.patience_s:g} s, {type(provider).__name__} could not tell the state of the blocks "
                f"of executor '{label}': {said}. Check that its batch system answers."
            )
        return ""


def _is_unknown(provider: Provider, batch_id: str) -> bool:
    try:
        return provider.status([batch_id])[batch_id].state is BlockState.MISSING
    except Exception:  # noqa: BLE001  a plugin's code; the keeper will ask it again
        return False


def log_changes(kept: Kept, run_dir: Path, log: logging.Logger) -> None:
    """A line for each block whose phase is another one than before, and the last words of one that has failed."""
    phases: dict[str, Phase] = {}
    for info in kept.scaler.describe():
        phases[info.block] = info.phase
        if kept.phases.get(info.block) is info.phase:
            continue
        why = f": {info.reason}" if info.reason else ""
        log.info("block %s (%s) is %s%s", info.block, info.batch_id, info.phase.value, why)
        failed = info.phase is Phase.ENDED and info.reason.startswith("failed")
        if failed and (text := tail(run_dir / "blocks" / info.block / "stderr", 5)):
            log.warning("the stderr of block %s ends with:\n%s", info.block, text)
    kept.phases = phases
