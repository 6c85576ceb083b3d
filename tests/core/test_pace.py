"""How far tasks are and how fast they go, and the line that says it."""

from __future__ import annotations

import pytest

from pilotflow.core.pace import Counts, Pace, bar, clock, line, parts_of, summary, time_left_s

MIDDLE = Counts(done=1234, failed=2, running=8, waiting=3000)


def pace_of(*looks: tuple[float, Counts]) -> Pace:
    pace = Pace()
    for now, counts in looks:
        pace.look(now, counts)
    return pace


def test_counts_add_up_to_all_tasks_so_far() -> None:
    counts = MIDDLE + Counts(cancelled=5, done=1)
    assert (counts.ended, counts.pending, counts.total) == (1242, 3008, 4250)


def test_a_rate_is_that_of_the_last_seconds() -> None:
    looks = [(float(t), Counts(done=t * 100 if t < 50 else 5000 + 10 * (t - 50), waiting=10**6)) for t in range(80)]
    assert pace_of(*looks).rate == pytest.approx(10)


def test_a_rate_is_not_told_before_it_means_something() -> None:
    assert Pace().rate == 0
    assert pace_of((0.0, Counts(waiting=9))).rate == 0
    assert pace_of((0.0, Counts(waiting=9)), (0.1, Counts(done=9))).rate == 0


def test_a_pause_between_two_batches_does_not_count_as_slowness() -> None:
    idle = [(float(t), Counts(done=100)) for t in range(2, 100)]
    looks = [(0.0, Counts(waiting=100)), (1.0, Counts(done=100)), *idle, (99.25, Counts(done=100, waiting=50))]
    assert pace_of(*looks, (100.25, Counts(done=130, waiting=20))).rate == pytest.approx(24)


def test_the_rate_of_slow_tasks_is_that_of_the_last_of_them() -> None:
    minutes = [(t / 4, Counts(done=t // 240, waiting=30)) for t in range(240 * 40)]
    assert pace_of(*minutes).rate == pytest.approx(1 / 60, rel=0.1), "one a minute, most looks see no change"


def test_a_long_run_keeps_few_looks() -> None:
    pace = pace_of(*((t / 4, Counts(done=t // 9, waiting=1)) for t in range(100_000)))
    assert len(pace._looks) < 60


def test_the_time_left_is_that_of_all_that_has_not_ended() -> None:
    assert time_left_s(Counts(done=10, running=2, waiting=18), 4.0) == 5.0
    assert time_left_s(Counts(done=10), 4.0) is None
    assert time_left_s(Counts(waiting=10**9), 0.001) is None, "years are no answer"


def test_the_line_says_how_many_tasks_are_in_which_state_how_fast_and_how_long() -> None:
    assert line("runs/0007", MIDDLE, 412.0, "", 120, unicode=True) == (
        "runs/0007 ━━━━━─────────────── 1,234 done · 2 failed · 8 running · 3,000 waiting · 412/s · ETA 8s"
    )
    assert line("x", Counts(done=1, running=1), 0.0, "", 80, unicode=False) == (
        "x ##########---------- 1 done | 1 running"
    )


@pytest.mark.parametrize("width", range(1, 140))
def test_the_line_fits_any_terminal_and_keeps_what_matters_most(width: int) -> None:
    text = line("runs/0007", MIDDLE, 412.0, "no workers yet, 2 blocks pending (Priority)", width, unicode=True)
    assert len(text) <= width
    assert not text.endswith(" ")
    if width >= 60:
        assert "1,234 done · 2 failed" in text


def test_a_state_that_nothing_is_in_is_not_named() -> None:
    assert parts_of(Counts(done=3), 0.0) == ["3 done"]
    assert parts_of(Counts(cancelled=1, waiting=2), 0.0, "no workers yet") == [
        "0 done",
        "1 cancelled",
        "2 waiting",
        "no workers yet",
    ]


def test_a_bar_is_full_only_when_all_has_ended() -> None:
    assert bar(Counts(done=999, waiting=1), unicode=False) == "#" * 19 + "-"
    assert bar(Counts(done=998, failed=2), unicode=False) == "#" * 20
    assert bar(Counts(), unicode=False) == "-" * 20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.2, "1s"), (59.5, "1:00"), (125, "2:05"), (3725, "1:02:05"), (90000, "1d 01:00")],
)
def test_a_time_left_is_short_to_read(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_summary_says_what_became_of_it_and_how_fast_it_was() -> None:
    assert summary(Counts(done=120, failed=2), 3.21) == "120 done, 2 failed in 3.2s (38/s)"
    assert summary(Counts(done=2), 3600.0) == "2 done in 1h (0.033/min)"
