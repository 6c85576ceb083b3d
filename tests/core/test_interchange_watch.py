"""When a program asks whether its interchange is there, and when it gives that up."""

from __future__ import annotations

from pilotflow.core.beats import InterchangeWatch

NO = 0.0
"""The interchange is not given up."""


def test_with_something_pending_it_asks_three_times_in_the_limit_and_counts_from_the_first_without_answer() -> None:
    watch = InterchangeWatch(30.0)
    assert watch.ask(0.5, 0.0, at_stake=True) == NO
    assert watch.due_at == 10.0
    assert watch.ask(10.0, 0.6, at_stake=True) == NO  # answered; this one, and all later ones, are not
    assert [watch.ask(now, 0.6, at_stake=True) for now in (20.0, 30.0)] == [NO, NO]
    assert watch.due_at == 40.0
    assert watch.ask(40.0, 0.6, at_stake=True) == 30.0


def test_with_nothing_pending_it_asks_seldom_and_what_was_last_heard_long_ago_is_no_reason_to_give_up() -> None:
    watch = InterchangeWatch(30.0)
    watch.ask(0.5, 0.0, at_stake=False)
    assert watch.due_at == 300.0
    heard_at = 0.6
    for due_at in (300.0, 600.0, 900.0):
        assert watch.due_at == due_at
        assert watch.ask(due_at + 0.3, heard_at, at_stake=False) == NO  # woken a little late
        heard_at = due_at + 0.4


def test_as_soon_as_something_is_pending_it_asks_as_often_as_ever() -> None:
    watch = InterchangeWatch(30.0)
    watch.ask(0.5, 0.0, at_stake=False)
    watch.hurry(21.0)
    assert watch.due_at == 21.0
    assert watch.ask(21.0, 0.6, at_stake=True) == NO
    watch.hurry(29.0)
    assert watch.due_at == 30.0  # neither sooner nor later
    assert [watch.ask(now, 0.6, at_stake=True) for now in (30.0, 40.0, 50.0)] == [NO, NO, 29.0]


def test_one_that_was_stopped_hears_first_and_then_judges() -> None:
    watch = InterchangeWatch(30.0)
    watch.ask(10.0, 9.0, at_stake=True)
    assert watch.ask(500.0, 9.0, at_stake=True) == NO  # 480 s after it was due: the answer may lie in the socket
    assert watch.ask(510.0, 500.1, at_stake=True) == NO  # it did


def test_one_that_was_stopped_and_still_hears_nothing_gives_up() -> None:
    watch = InterchangeWatch(30.0)
    watch.ask(10.0, 9.0, at_stake=True)
    assert watch.ask(500.0, 9.0, at_stake=True) == NO
    assert watch.ask(510.0, 9.0, at_stake=True) == 500.0


def test_a_limit_of_tenths_of_a_second() -> None:
    watch = InterchangeWatch(0.1)
    watch.ask(1.0, 0.9, at_stake=True)
    assert 1.0 < watch.due_at <= 1.1
    assert watch.ask(1.05, 0.9, at_stake=True) == NO
    assert watch.ask(1.1, 0.9, at_stake=True) > NO
