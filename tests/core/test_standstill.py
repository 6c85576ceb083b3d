"""Tasks that must not run twice wait for a suspended block: nothing of it is lost, it only stands still."""

from __future__ import annotations

from copy import copy

import pytest

from pilotflow.messages.client import (
    Cancelled,
    CancelTasks,
    ClientAlive,
    DefineClass,
    ManagerDown,
    ManagerUp,
    Submit,
    SuspendedBlocks,
)
from pilotflow.messages.manager import Cancel, ManagerAlive, Run
from pilotflow.messages.records import Status, Task
from pilotflow.resources import Capacity, Request
from tests.core.exchange_bench import NOW, Bench, done, register

LIMIT_S = 30.0
ONCE, OFTEN = 2, 1
"""Classes of tasks that may run once, and up to five times."""


class Still(Bench):
    """Two managers; the first one's block may be suspended, and has a task of each class."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.client(DefineClass(ONCE, Request(), (), 1))
        self.client(Submit([Task(1, 0, 1, ONCE, b""), Task(2, 0, 1, OFTEN, b"")]))
        self.once, self.often = map(copy, self.given())  # the exchange changes its own
        self.manager(register("m2", Capacity(4000, slots=4)), key="m2")

    def wait(self, seconds: float, *speaking: str) -> None:
        """Time goes by, in which only these managers are heard of."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 5.0)
            self.exchange.on_client("client", [ClientAlive()], (), self.now)
            for key in ("m2", *speaking):
                self.exchange.on_manager(key, [ManagerAlive(None)], (), self.now)
            self.turn("client", self.now)

    def suspended(self, *blocks: str) -> None:
        self.exchange.on_client("client", [SuspendedBlocks(list(blocks))], (), self.now)
        self.turn("client", self.now)

    def runs_elsewhere(self) -> set[int]:
        return {task.id for said in self.said.get("m2", []) if isinstance(said, Run) for task in said.tasks}

    def ended(self) -> dict[int, Status]:
        return {result.id: result.status for result in self.results()}


def test_what_may_run_again_does_so_elsewhere_and_what_may_not_waits_for_its_block() -> None:
    bench = Still()
    bench.suspended("block-m1")
    bench.wait(10 * LIMIT_S)
    assert bench.runs_elsewhere() == {2}
    assert bench.ended() == {}
    bench.exchange.on_manager("m1", [done(bench.once), done(bench.often)], (), bench.now)
    bench.turn("client", bench.now)
    assert bench.ended() == {1: Status.OK}, "of the other another attempt runs"


def test_a_manager_that_goes_on_ends_what_was_taken_from_it_and_takes_work_again() -> None:
    bench = Still()
    bench.suspended("block-m1")
    bench.wait(2 * LIMIT_S)
    assert [said.tasks for said in bench.said["m1"] if isinstance(said, Cancel)] == [[(2, bench.often.attempt)]]
    bench.client(Submit([Task(id, 0, 1, OFTEN, b"") for id in range(10, 16)]))
    assert len(bench.given()) == 2, "it is given nothing while it stands still"
    bench.wait(5.0, "m1")
    bench.suspended()
    assert len(bench.given()) > 2
    ups = [said for said in bench.said["client"] if isinstance(said, ManagerUp) and said.block == "block-m1"]
    assert len(ups) == 2, "the block keeper hears that it works again"
    bench.wait(3 * LIMIT_S, "m1")
    assert bench.ended() == {}


@pytest.mark.parametrize("suspended", [True, False])
def test_a_manager_that_stays_silent_after_its_block_was_resumed_or_has_ended_is_lost(suspended: bool) -> None:
    bench = Still()
    bench.wait(1.5 * LIMIT_S)
    assert bench.runs_elsewhere() == {2}
    if suspended:
        bench.suspended("block-m1", "block-of-others")
        bench.wait(10 * LIMIT_S)
        assert bench.ended() == {}
        bench.suspended("block-of-others")
        bench.wait(LIMIT_S / 2)
    assert bench.ended() == {}, "it has as long as any to be heard of"
    bench.wait(LIMIT_S)
    assert bench.ended() == {1: Status.LOST}
    downs = [said for said in bench.said["client"] if isinstance(said, ManagerDown)]
    assert len(downs) == 1, "the block keeper hears of it once, when it is to ask the batch system"
    assert "m1" in bench.lost


def test_a_silent_manager_of_a_suspended_block_that_has_nothing_to_wait_for_is_given_up() -> None:
    bench = Still()
    bench.manager(done(bench.once))
    bench.suspended("block-m1")
    bench.wait(2 * LIMIT_S)
    assert "m1" in bench.lost
    assert bench.runs_elsewhere() == {2}


@pytest.mark.parametrize("running", [True, False])
def test_a_task_that_stands_still_can_be_cancelled_at_once_if_running_ones_are_to_be(running: bool) -> None:
    bench = Still()
    bench.suspended("block-m1")
    bench.wait(2 * LIMIT_S)
    answers = [said for said in bench.client(CancelTasks(5, [1], running)) if isinstance(said, Cancelled)]
    assert answers == [Cancelled(5, [1], []) if running else Cancelled(5, [], [1])]
    bench.exchange.on_manager("m1", [done(bench.once)], (), bench.now)
    bench.turn("client", bench.now)
    assert bench.ended() == ({} if running else {1: Status.OK})
