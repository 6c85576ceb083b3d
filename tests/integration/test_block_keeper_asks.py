"""How often the block keeper asks a provider when much happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pilotflow.core.block_records import BlockStatus
from pilotflow.runtime.block_keeper import BlockKeeper
from tests.integration.block_keeping import Client, Deaf, down, keeping, kept, manager_pid


@dataclass(frozen=True, kw_only=True)
class Busy(Deaf):
    """Has blocks that do not end, and is not to be asked often."""

    quick_poll_s: ClassVar[float] = 1.0
    least_s: float = 0.0
    asked: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def min_poll_s(self) -> float:
        return self.least_s

    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        self.asked.append(len(ids))
        return super().status(ids)


def test_managers_that_leave_while_blocks_end_are_no_reason_to_ask_again(tmp_path: Path) -> None:
    provider, client = Busy(), Client()
    executor = kept(tmp_path, provider=provider)
    keeper = BlockKeeper([executor], tmp_path / "run", client.send, logging.getLogger("test.blocks"))
    keeper.start()
    try:
        manager_pid(client, tmp_path, "cpu-0")
        before, heard = len(provider.asked), 0
        closing = threading.Thread(target=keeper.close, args=(2.0,))
        closing.start()
        while closing.is_alive():
            keeper.on_manager_down(down("cpu-0", planned=True))
            heard += 1
            closing.join(0.01)
        assert len(provider.asked) - before <= 6 < heard, "each half second"
    finally:
        provider.end()


def test_managers_that_are_lost_do_not_make_it_ask_more_often_than_it_may(tmp_path: Path) -> None:
    provider = Busy(least_s=3600.0)
    with keeping(tmp_path / "run", kept(tmp_path, provider=provider)) as (keeper, client):
        manager_pid(client, tmp_path, "cpu-0")
        client.until(lambda: provider.asked)
        for _ in range(20):
            keeper.on_manager_down(down("cpu-0"))
            client.until(lambda: not keeper._events)
        assert len(provider.asked) == 1
        provider.end()
