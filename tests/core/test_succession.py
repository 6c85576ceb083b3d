"""Which program a run works for, when one is killed and another one comes."""

from __future__ import annotations

from math import inf

from pilotflow.core.succession import Succession


def test_a_killed_program_whose_connection_is_not_read_to_its_end_does_not_follow_itself() -> None:
    programs = Succession(17, keep_s=60)
    programs.end(now=100)
    assert not programs.follow(17)
    assert (programs.program, programs.waits) == (0, True)
    assert not programs.follow(0)
    assert programs.follow(18)
    assert (programs.program, programs.waits, programs.due(101, runs_something=False)) == (18, False, inf)


def test_the_next_program_may_have_the_number_of_the_one_before() -> None:
    programs = Succession(17, keep_s=60)
    programs.end(now=100)
    programs.follow(0)
    assert programs.follow(17)
    assert not programs.follow(17), "it has come already"


def test_another_program_is_waited_for_from_when_the_last_task_has_ended() -> None:
    programs = Succession(17, keep_s=60)
    assert programs.due(99, runs_something=True) == inf
    programs.end(now=100)
    assert programs.due(110, runs_something=False) == 160
    assert programs.due(150, runs_something=True) == 210
    assert programs.due(180, runs_something=False) == 210
