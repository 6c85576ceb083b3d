"""What others are told of a run's blocks: the interchange, the run's next program, and whoever ends them for a dead one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from pilotflow.core.block_records import KnownBlock
from pilotflow.messages.client import ClientMessage, LiveBlock, LiveBlocks, SuspendedBlocks
from pilotflow.runtime.kept import Kept

ANNOUNCE_S: Final = 0.5
"""While many blocks are submitted, those that exist are announced this often."""
CANCELS_MAX: Final = 500
"""Blocks that one command cancels when this process is dead."""


class Announcer:
    """Used by the block keeper's thread, see `BlockKeeper`.

    Args:
        kept: what is known of each executor.
        send: hands a message to the interchange.
        known: told which blocks exist, whenever that has changed.
        if_killed: told the commands that would cancel all batch jobs, before there may be another one.
        log: hears of what could not be told.
        adopted: whether there may be blocks that nobody has been told of yet.
    """

    def __init__(
        self,
        kept: Sequence[Kept],
        send: Callable[[ClientMessage], None],
        known: Callable[[list[KnownBlock]], object],
        if_killed: Callable[[list[tuple[str, ...]]], object] | None,
        log: logging.Logger,
        *,
        adopted: bool,
    ) -> None:
        self._kept = kept
        self._send = send
        self._known = known
        self._if_killed = if_killed
        self._log = log
        self._announced: frozenset[str] | None = None if adopted else frozenset()
        self._announced_at = float("-inf")
        self._suspended: tuple[str, ...] = ()

    def say(self, message: ClientMessage) -> None:
        """Tell the interchange this."""
        try:
            self._send(message)
        except Exception:  # noqa: BLE001  the link is the client's; without it there is still work here
            self._log.exception("%s could not be sent", type(message).__name__)

    def announce(self) -> None:
        """Tell everybody which blocks exist, if that has changed."""
        names = frozenset(name for kept in self._kept for name in kept.scaler.live)
        if names != self._announced:
            self._announced = names
            self._announced_at = time.monotonic()
            live = [(kept.executor.label, *each) for kept in self._kept for each in kept.scaler.live.items()]
            self._known([KnownBlock(*each) for each in live])
            self.say(LiveBlocks([block for kept in self._kept for block in _live_blocks(kept, self._log)]))
            self.leave_word()
        suspended = tuple(name for kept in self._kept for name in kept.scaler.suspended)
        if suspended != self._suspended:
            self._suspended = suspended
            self.say(SuspendedBlocks(list(suspended)))

    def announce_now_and_then(self) -> None:
        """The same, if it was not done just now; called after each of many changes."""
        if time.monotonic() - self._announced_at > ANNOUNCE_S:
            self.announce()

    def leave_word(self) -> None:
        """Leave behind what cancels the batch jobs that there are, and the one that is being handed in."""
        if self._if_killed is not None:
            try:
                self._if_killed([argv for kept in self._kept for argv in _cancel_commands(kept, self._log)])
            except OSError as error:
                self._log.warning("batch jobs would be left if this process were killed now: %s", error)


def _live_blocks(kept: Kept, log: logging.Logger) -> list[LiveBlock]:
    """The blocks of one executor. The command that cancels many is with the first of them, so that it runs once."""
    label = kept.executor.label
    return [
        LiveBlock(label, name, () if index else argv)
        for names, argv in _cancels(kept, log)
        for index, name in enumerate(names)
    ]


def _cancel_commands(kept: Kept, log: logging.Logger) -> list[tuple[str, ...]]:
    """Commands that cancel the batch jobs of one executor, those that are being handed in by their names."""
    provider = kept.executor.provider
    if not provider.elsewhere:
        return []
    named = provider.cancel_named_argv(list(kept.handing_in.values())) if kept.handing_in else ()
    return [argv for _, argv in _cancels(kept, log)] + ([named] if named else [])


def _cancels(kept: Kept, log: logging.Logger) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """Names of blocks, some hundreds at once, and the command that cancels these."""
    live = list(kept.scaler.live.items())
    for at in range(0, len(live), CANCELS_MAX):
        some = live[at : at + CANCELS_MAX]
        try:
            argv = kept.executor.provider.cancel_argv([batch_id for _, batch_id in some])
        except Exception as error:  # noqa: BLE001  a plugin's code; only the rescue from a dead client is lost
            label = kept.executor.label
            log.warning("blocks of '%s' cannot be cancelled when this process dies: %r", label, error)
            continue
        yield [name for name, _ in some], argv
