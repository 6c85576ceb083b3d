"""Parameters: what values they take, how entries multiply by them, how values get into texts.

Everything works on columns, all copies of an entry at once, so that 100,000 copies take parts of a second.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product, repeat
from pathlib import Path as FilePath
from typing import Any, Final, TypeAlias

from pilotflow.units import counted, show

Value: TypeAlias = int | float | str

MAX_COPIES: Final = 2_000_000
"""Copies of one entry; more is a slip of the pen, and would fill the memory."""

_TOKEN: Final = re.compile(r"(?<!\$)\{([^{}:]+)(?::([^{}]*))?\}")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_SLACK: Final = 1e-10
_MAX_WIDTH: Final = 64


class ParameterProblem(ValueError):
    """Parameters that mean nothing; the text says why."""


def values_of(value: object) -> list[Value]:
    """The values that a parameter takes, in order.

    Args:
        value: a range "1:100", "0:100:10" or "0.0:1.0:0.1" (the end is part of it), a list, a list as
            text "[1,'a']", or a single value.

    Raises:
        ParameterProblem: it is none of these.
    """
    if isinstance(value, list):
        return [_single(item) for item in value]
    if not isinstance(value, str):
        return [_single(value)]
    text = value.strip()
    if text.startswith("{") and text.endswith("}") and "," not in text:
        text = text[1:-1].strip()
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [_scalar(item.strip()) for item in inner.split(",")] if inner else []
    if ":" in text:
        return _range(text)
    return [_number(text, text)]


def _single(value: object) -> Value:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, str)):
        return value
    raise ParameterProblem(f"{show(value)} is no value of a parameter; write numbers or text.")


def _scalar(text: str) -> Value:
    return _number(text, text.strip("'").strip('"'))


def _number(text: str, otherwise: str) -> Value:
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else otherwise


def _range(text: str) -> list[Value]:
    parts = [part.strip() for part in text.split(":")]
    forms = 'write "start:end" or "start:end:step" with numbers, or a list ["a", "b"] for texts with colons.'
    if len(parts) > 3 or not all(_FLOAT.fullmatch(part) for part in parts[:2]):
        raise ParameterProblem(f"{show(text)} is not a range; {forms}")
    step_text = parts[2] if len(parts) == 3 and parts[2] else "1"
    whole = all(_INT.fullmatch(part) for part in parts[:2])
    if not (_INT if whole else _FLOAT).fullmatch(step_text):
        raise ParameterProblem(
            f"{show(text)}: {step_text!r} is not a step {'in whole numbers' if whole else ''}; {forms}"
        )
    start, end, step = float(parts[0]), float(parts[1]), float(step_text)
    if step == 0:
        raise ParameterProblem(f"{show(text)}: a step of 0 never arrives.")
    count = math.floor((end - start) / step + (0 if whole else _SLACK)) + 1
    if count > MAX_COPIES:
        raise ParameterProblem(f"{show(text)} has {counted(count, 'value')}; the limit is {MAX_COPIES:,}.")
    if whole:
        return list(range(int(parts[0]), int(parts[1]) + (1 if step > 0 else -1), int(step_text)))
    return [float(f"{start + index * step:.12g}") for index in range(max(count, 0))]


def written(value: Value, form: str | None = None) -> str:
    """A value as it goes into a text: whole numbers by `0Nd`, others by `.Nf`, what does not apply is ignored."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        match = re.fullmatch(r"0([0-9]{1,2})d", form or "")
        return f"{value:0{min(int(match[1]), _MAX_WIDTH)}d}" if match else str(value)
    match = re.fullmatch(r"\.([0-9]{1,2})f", form or "")
    if match:
        return f"{value:.{min(int(match[1]), _MAX_WIDTH)}f}"
    if not math.isfinite(value):
        return str(value)
    return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")


@dataclass(frozen=True)
class Copies:
    """The copies of one entry: for each parameter its distinct values, and which of them each copy has."""

    count: int = 1
    values: Mapping[str, Sequence[Value]] | None = None
    picks: Mapping[str, Sequence[int]] | None = None

    @property
    def names(self) -> frozenset[str]:
        """The names of the parameters."""
        return frozenset(self.values or ())

    def column(self, text: str) -> str | list[str]:
        """A text with the values in place, for each copy; the text itself if there are none in it."""
        if not self.values or "{" not in text:
            return text
        pieces, at = list[Iterator[str]](), 0
        for match in _TOKEN.finditer(text):
            values = self.values.get(match[1])
            if values is None or self.picks is None:
                continue
            forms = [written(value, match[2]) for value in values]
            pieces += [repeat(text[at : match.start()]), map(forms.__getitem__, self.picks[match[1]])]
            at = match.end()
        if not pieces:
            return text
        return list(map("".join, zip(*pieces, repeat(text[at:]), strict=False)))

    def tokens(self, text: str) -> list[str]:
        """The names in braces in a text that are no parameters."""
        return [match[1] for match in _TOKEN.finditer(text) if match[1] not in (self.values or ())]

    def of(self, index: int) -> dict[str, Value]:
        """The values of one copy, by name."""
        values, picks = self.values or {}, self.picks or {}
        return {name: values[name][picks[name][index]] for name in values}


ONE: Final = Copies()


def combine(parameters: Mapping[str, object], mode: str | None) -> Copies:
    """The copies that parameters make, in the order in which they are written; the last one changes fastest.

    Raises:
        ParameterProblem: a value means nothing, lengths differ in `zip` mode, or the copies are too many.
    """
    values = dict[str, list[Value]]()
    for name, value in parameters.items():
        try:
            values[name] = values_of(value)
        except ParameterProblem as problem:
            raise ParameterProblem(f"{name}: {problem}") from None
    sizes = {name: len(each) for name, each in values.items()}
    empty = [name for name, size in sizes.items() if not size]
    if empty:
        raise ParameterProblem(f"{', '.join(empty)}: no values, so there would be nothing to run.")
    if mode == "zip":
        if len(set(sizes.values())) > 1:
            lengths = ", ".join(f"{name} has {size}" for name, size in sizes.items())
            raise ParameterProblem(f"zip takes parameters of equal length: {lengths}.")
        count = next(iter(sizes.values()), 1)
        return Copies(count, values, dict.fromkeys(values, range(count)))
    count = math.prod(sizes.values())
    if count > MAX_COPIES:
        times = " x ".join(map(str, sizes.values()))
        raise ParameterProblem(f"{times} = {count:,} copies; the limit is {MAX_COPIES:,}.")
    picks = zip(*product(*map(range, sizes.values())), strict=True)
    return Copies(count, values, dict(zip(values, picks, strict=True)))


def read_table(path: str, folder: FilePath) -> Copies:
    """The copies that the rows of a table make.

    Args:
        path: .csv with a header, .json (a list of mappings), .jsonl or .ndjson (a mapping a line); from
            the working directory, or from `folder` if it is not there.
        folder: where the workflow's file is.

    Raises:
        ParameterProblem: it cannot be read, or holds something else.
    """
    file = FilePath(path) if FilePath(path).exists() else folder / path
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ParameterProblem(f"the table {show(path)} cannot be read: {reason}.") from None
    rows = _rows(text, file)
    if not rows:
        raise ParameterProblem(f"the table {show(path)} has no rows.")
    if len(rows) > MAX_COPIES:
        raise ParameterProblem(f"the table {show(path)} has {counted(len(rows), 'row')}; the limit is {MAX_COPIES:,}.")
    names = list(rows[0])
    for number, row in enumerate(rows, start=1):
        if set(row) != set(names):
            different = ", ".join(sorted(map(str, set(row) ^ set(names))))
            raise ParameterProblem(
                f"row {number} of the table {show(path)} has other columns than the first: {different}."
            )
    columns = {name: [_single(row[name]) for row in rows] for name in names}
    return Copies(len(rows), columns, dict.fromkeys(columns, range(len(rows))))


def _rows(text: str, file: FilePath) -> list[dict[str, Any]]:
    kind = file.suffix.lower()
    rows: Any
    try:
        if kind == ".csv":
            rows = _csv_rows(text)
        elif kind == ".json":
            rows = json.loads(text)
        elif kind in (".jsonl", ".ndjson"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            raise ParameterProblem(
                f"{show(str(file))} is no table; the name of one ends in .csv, .json, .jsonl or .ndjson."
            )
    except (ValueError, csv.Error, RecursionError) as error:
        if isinstance(error, ParameterProblem):
            raise
        raise ParameterProblem(f"the table {show(str(file))} cannot be read: {error}.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row for row in rows):
        raise ParameterProblem(f"the table {show(str(file))} is not a list of mappings.")
    return rows


def _csv_rows(text: str) -> list[dict[str, Value]]:
    lines = [line for line in csv.reader(text.splitlines(), strict=True) if line]
    header = [name.strip() for name in lines[0]] if lines else []
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            raise ValueError(f"row {number} has {counted(len(line), 'value')} for {counted(len(header), 'column')}")
    return [{name: _number(item.strip(), item) for name, item in zip(header, line, strict=True)} for line in lines[1:]]
