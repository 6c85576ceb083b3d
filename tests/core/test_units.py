"""Durations, sizes and names are read in every documented form and refused with words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotflow.errors import ConfigError
from pilotflow.units import exact_memory, format_duration, format_memory, nearest, parse_duration, parse_memory, show


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (0, 0),
        (90, 90),
        (1.5, 1.5),
        ("90", 90),
        ("1.5", 1.5),
        (" 2 ", 2),
        ("1e2", 100),
        (".5s", 0.5),
        ("30s", 30),
        ("30 sec", 30),
        ("250ms", 0.25),
        ("1h 30m", 5400),
        ("1h30m", 5400),
        ("1.5 hours", 5400),
        ("15days 2min", 15 * 86400 + 120),
        ("1 Week", 604800),
        ("2d", 172800),
        ("01:30:00", 5400),
        ("100:00:00", 360000),
        ("00:00:01.5", 1.5),
        ("1-12", 129600),
        ("1-12:30", 131400),
        ("1-00:00:01", 86401),
        ("PT30M", 1800),
        ("pt30m", 1800),
        ("P1DT2H", 93600),
        ("P1W", 604800),
        ("PT0.5S", 0.5),
    ],
)
def test_a_duration_is_read_in_every_documented_form(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


NO_DURATIONS = """
    soon|5 fortnights|-1|1h -3m|1h 2h|5M|01:30|1:60:00|00:00:61|P|PT|P1DT|1h 30|1_000|1,5|inf|nan|1.2.3|１０s
""".strip().split("|")


@pytest.mark.parametrize(
    "text",
    [*NO_DURATIONS, "", "  ", -1, math.inf, math.nan, 1e300, "9" * 5000, True, None, [1], b"30s", "1h\x00"],
)
def test_what_is_no_duration_is_refused_with_the_value_in_the_message(text: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_duration(text)
    assert show(text) in str(caught.value)


def test_a_misspelt_unit_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_duration("5 minuts")
    assert "'minuts' is not a unit of time (did you mean 'minutes'?)" in str(caught.value)


def test_a_number_too_long_to_print_is_refused_all_the_same() -> None:
    for parse in (parse_duration, parse_memory):
        with pytest.raises(ConfigError, match="a huge number is not a"):
            parse(10**5000)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (1024, 1024),
        ("1024", 1024),
        ("10b", 10),
        ("4g", 4 << 30),
        ("4G", 4 << 30),
        ("4GB", 4 << 30),
        ("4GiB", 4 << 30),
        ("4 gib", 4 << 30),
        ("4Gi", 4 << 30),
        ("512m", 512 << 20),
        ("2k", 2048),
        ("1t", 1 << 40),
        ("1.5g", 3 << 29),
        ("0.1k", 103),
        (".5k", 512),
        ("1p", 1 << 50),
    ],
)
def test_a_size_is_read_in_every_documented_form(text: str | int, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "4x", "g", "-1", -1, "4 g b", "1e9", "1_0", 1.5, True, None, "2000p", "9" * 5000])
def test_what_is_no_size_is_refused_with_the_value_in_the_message(text: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_memory(text)
    assert show(text) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (0.9999, "1s"),
        (2.5, "2.5s"),
        (2e-5, "20us"),
        (1e-9, "0s"),
        (59.99, "1m"),
        (5400, "1h 30m"),
        (90061, "1d 1h 1m 1s"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (4 << 30, "4 GiB"), (3 << 29, "1.5 GiB"), (1 << 60, "1024 PiB")]
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert format_memory(size) == text


@given(st.integers(0, 10**9))
def test_whole_seconds_survive_being_written_and_read(seconds: int) -> None:
    text = format_duration(seconds)
    assert parse_duration(text) == seconds


@given(st.floats(0, 1e6))
def test_a_written_duration_is_within_a_percent(seconds: float) -> None:
    assert math.isclose(parse_duration(format_duration(seconds)), seconds, rel_tol=0.01, abs_tol=1e-6)


@given(st.integers(0, 1 << 60))
def test_a_written_size_is_within_a_tenth_of_its_unit(size: int) -> None:
    assert math.isclose(parse_memory(format_memory(size)), size, rel_tol=0.051)


@given(st.text(max_size=100))
def test_any_text_is_a_value_or_a_config_error(text: str) -> None:
    for parse in (parse_duration, parse_memory):
        try:
            assert parse(text) >= 0
        except ConfigError:
            pass


@pytest.mark.parametrize(
    ("name", "match"), [("max_block", "max_blocks"), ("Max-Blocks", "max_blocks"), ("zzz", None), ("", None)]
)
def test_the_nearest_name_is_found_or_none(name: str, match: str | None) -> None:
    assert nearest(name, ["max_blocks", "walltime", "label"]) == match


@given(st.integers(0, 1 << 60))
def test_a_size_to_write_down_is_read_back_the_same(size: int) -> None:
    assert parse_memory(exact_memory(size)) == size


@pytest.mark.parametrize(("size", "text"), [(2000 << 20, "2000m"), (8 << 30, "8g"), (1500, "1500"), (0, "0")])
def test_a_size_to_write_down_is_short(size: int, text: str) -> None:
    assert exact_memory(size) == text
