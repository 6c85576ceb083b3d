"""The task that `site check --run` tries on a partition."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as _TimeoutError  # the builtin since Python 3.11
from dataclasses import dataclass
from typing import Any

import pytest

from pilotflow.cli.site_probe import result_of


@dataclass(frozen=True)
class Block:
    said: str


class Blocks:
    """A run with one block, of which something else is said each time."""

    def __init__(self, *said: str) -> None:
        self.said = list(said)
        self.asked = 0

    def blocks(self) -> list[Block]:
        self.asked += 1
        return [Block(self.said[min(self.asked, len(self.said)) - 1])]


def test_a_partition_that_is_closed_is_not_waited_for_to_the_end() -> None:
    run: Any = Blocks("PartitionDown")
    with pytest.raises(_TimeoutError):
        result_of(run, Future(), timeout_s=1000.0, closed_s=0.0)
    assert run.asked == 1


def test_a_partition_that_opens_again_or_is_merely_full_is_waited_for() -> None:
    run: Any = Blocks("PartitionDown", "Priority", "Resources")
    future: Future[str] = Future()
    said = run.blocks

    def blocks() -> list[Block]:
        if run.asked == 2:
            future.set_result("node1")
        return said()  # type: ignore[no-any-return]

    run.blocks = blocks
    assert result_of(run, future, timeout_s=1000.0, closed_s=500.0) == "node1"
