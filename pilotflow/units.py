"""Durations, memory sizes and names, from the way people write them and back.

Everything that a user may write as a duration or a size goes through here, so that decorators,
YAML files and the command line accept the same forms and refuse the others with the same words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

from pilotflow.errors import ConfigError

DURATION_FORMS: Final = (
    'seconds (90, 1.5), "30s", "1h 30m", "15days 2min", "01:30:00", "1-12:00:00" or ISO-8601 "PT30M"'
)
MEMORY_FORMS: Final = 'whole bytes (4294967296), or a number with a unit that counts in 1024: "512m", "4g", "1.5GiB"'

_MAX_DURATION_S: Final = 100 * 365.25 * 86400
_MAX_MEMORY: Final = 1 << 60
_MAX_TEXT: Final = 80

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(rf"[+]?{_NUMBER}(?:[eE][+-]?[0-9]{{1,3}})?")
_CLOCK = re.compile(r"(?:(?P<d>[0-9]+)-)?(?P<h>[0-9]+):(?P<m>[0-9]{1,2})(?::(?P<s>[0-9]{1,2}(?:\.[0-9]+)?))?")
_DAYS_HOURS = re.compile(r"(?P<d>[0-9]+)-(?P<h>[0-9]+)")
_ISO = re.compile(
    rf"P(?:(?P<y>{_NUMBER})Y)?(?:(?P<mo>{_NUMBER})M)?(?:(?P<w>{_NUMBER})W)?(?:(?P<d>{_NUMBER})D)?"
    rf"(?:T(?:(?P<h>{_NUMBER})H)?(?:(?P<m>{_NUMBER})M)?(?:(?P<s>{_NUMBER})S)?)?",
    re.IGNORECASE,
)
_PART = re.compile(rf"({_NUMBER})\s*([A-Za-zµ]+)\s*")
_MEMORY = re.compile(rf"({_NUMBER})\s*([A-Za-z]*)")

_SECONDS_OF: Final = {
    **dict.fromkeys(("us", "µs", "usec", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604800.0),
}
_ISO_SECONDS_OF: Final = {"y": 365.25 * 86400, "mo": 30.44 * 86400, "w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
"""Years and months in their mean lengths."""
_BYTES_OF: Final = {"": 1, "b": 1, "byte": 1, "bytes": 1} | {
    unit + suffix: 1 << (10 * power)
    for power, unit in enumerate(("k", "m", "g", "t", "p"), start=1)
    for suffix in ("", "b", "i", "ib")
}


def parse_duration(value: str | float) -> float:
    """Seconds, from a number of seconds or any of the forms people write.

    Accepts numbers and numeric strings (seconds), "30s", "1h 30m", "15days 2min", clock time
    "01:30:00" and Slurm's "days-hours", "days-hours:minutes:seconds", and ISO-8601 "PT30M",
    "P1DT2H", where a year has 365.25 days and a month 30.44. Zero is a duration; negative and infinite ones are not.

    Raises:
        ConfigError: with the value and what is accepted.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"{show(value)} is {kind(value)}, not a duration. Write {DURATION_FORMS}.")
    seconds = _duration_of_text(value) if isinstance(value, str) else _float(value)
    if not 0 <= seconds <= _MAX_DURATION_S:
        raise ConfigError(f"{show(value)} is not a duration between 0 and 100 years. Write {DURATION_FORMS}.")
    return seconds


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _duration_of_text(value: str) -> float:
    text = value.strip()
    if not text or len(text) > _MAX_TEXT:
        raise ConfigError(f"{show(value)} is not a duration. Write {DURATION_FORMS}.")
    if _PLAIN.fullmatch(text):
        return float(text)
    if match := _CLOCK.fullmatch(text) or _DAYS_HOURS.fullmatch(text):
        return _clock(value, match.groupdict())
    if (match := _ISO.fullmatch(text)) and any(match.groups()) and not text.upper().endswith("T"):
        return sum(float(amount) * _ISO_SECONDS_OF[unit] for unit, amount in match.groupdict().items() if amount)
    return _duration_of_words(value, text)


def _clock(value: str, parts: dict[str, str | None]) -> float:
    days, hours, minutes, seconds = (parts.get(name) for name in "dhms")
    if days is None and seconds is None:
        raise ConfigError(
            f"{show(value)} could be hours and minutes or minutes and seconds. "
            f'Write all three ("{parts["h"]}:{parts["m"]}:00"), or units ("1h 30m").'
        )
    if float(minutes or 0) >= 60 or float(seconds or 0) >= 60:
        raise ConfigError(f"{show(value)} is not a duration: minutes and seconds of a clock time end at 59.")
    return int(days or 0) * 86400.0 + int(hours or 0) * 3600.0 + int(minutes or 0) * 60.0 + float(seconds or 0)


def _duration_of_words(value: str, text: str) -> float:
    total, at, seen = 0.0, 0, set[float]()
    while at < len(text):
        match = _PART.match(text, at)
        if match is None:
            raise ConfigError(f"{show(value)} is not a duration. Write {DURATION_FORMS}.")
        unit = match[2] if match[2] == "M" else match[2].lower()
        seconds = _SECONDS_OF.get(unit)
        if seconds is None:
            raise ConfigError(f"{show(value)}: {_unknown_time_unit(unit)} Write {DURATION_FORMS}.")
        if seconds in seen:
            raise ConfigError(f"{show(value)} is not a duration: it has the unit '{match[2]}' twice.")
        seen.add(seconds)
        total += float(match[1]) * seconds
        at = match.end()
    return total


def _unknown_time_unit(unit: str) -> str:
    if unit == "M":
        return "'M' could be minutes or months; write 'm' or 'min' for minutes."
    return f"'{unit}' is not a unit of time{did_you_mean(unit, _SECONDS_OF)}."


def parse_memory(value: str | int) -> int:
    """Bytes, from a whole number of bytes or a size with a unit.

    Units count in 1024, in either case, with or without "b" or "ib": "4g", "4GB" and "4GiB" are
    the same. Parts of a byte are rounded up.

    Raises:
        ConfigError: with the value and what is accepted.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigError(f"{show(value)} is {kind(value)}, not a memory size. Write {MEMORY_FORMS}.")
    size = _memory_of_text(value) if isinstance(value, str) else value
    if not 0 <= size <= _MAX_MEMORY:
        raise ConfigError(f"{show(value)} is not a memory size between 0 and 1024 PiB. Write {MEMORY_FORMS}.")
    return size


def _memory_of_text(value: str) -> int:
    text = value.strip()
    match = _MEMORY.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if match is None:
        raise ConfigError(f"{show(value)} is not a memory size. Write {MEMORY_FORMS}.")
    factor: int | None = _BYTES_OF.get(match[2].lower())
    if factor is None:
        raise ConfigError(f"{show(value)}: '{match[2]}' is not a unit of memory. Write {MEMORY_FORMS}.")
    whole, _, part = match[1].partition(".")
    parts_of_unit: int = 10 ** len(part)
    return int(whole or 0) * factor - (-int(part or 0) * factor // parts_of_unit)


def format_duration(seconds: float) -> str:
    """A duration as people read it, such as "1h 30m" or "2.5s". `parse_duration` reads it back.

    From a minute on it is rounded to whole seconds, and what is less than a microsecond to nothing.
    """
    if seconds < 59.95:
        for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
            if seconds >= size * 0.9995:
                return f"{seconds / size:.3g}{unit}"
        return "0s"
    rest, parts = round(seconds), list[str]()
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, rest = divmod(rest, size)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts)


def format_memory(size_bytes: int) -> str:
    """A memory size as people read it, such as "4 GiB". `parse_memory` reads it back.

    Sizes that are not whole in their unit are rounded to one digit behind the point.
    """
    for power, unit in ((5, "PiB"), (4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        factor = 1 << (10 * power)
        if size_bytes >= factor:
            whole, rest = divmod(size_bytes, factor)
            return f"{size_bytes / factor:.1f} {unit}" if rest else f"{whole} {unit}"
    return f"{size_bytes} B"


def exact_memory(size_bytes: int) -> str:
    """A memory size as one writes it, such as "4g" or "2000m": `parse_memory` reads back the same."""
    for unit, shift in (("t", 40), ("g", 30), ("m", 20), ("k", 10)):
        if size_bytes >= 1 << shift and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{unit}"
    return str(size_bytes)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that `name` was most likely meant to be, or None if none is close."""
    import difflib

    by_plain = {_plain(candidate): candidate for candidate in valid}
    matches = difflib.get_close_matches(_plain(name[:_MAX_TEXT]), by_plain, n=1, cutoff=0.6)
    return by_plain[matches[0]] if matches else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """`nearest` as a part of a sentence, " (did you mean 'memory'?)", or nothing if no name is close."""
    match = nearest(name, valid)
    return f" (did you mean '{match}'?)" if match is not None else ""


def counted(count: int, thing: str) -> str:
    """A number of things in words: "1 job", "2,000 jobs"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def show(value: object) -> str:
    """A value as it goes into a message: its repr, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a huge number"
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."


def kind(value: object) -> str:
    """The type of a value as it goes into a message."""
    return "None" if value is None else type(value).__name__
