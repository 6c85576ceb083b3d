"""A workflow's file as plain values that can be traced back to their lines and columns.

Files of 100,000 jobs are usual, so places are not kept for each value: the first reading notes where the
entries of the top-level lists begin, and only if something is wrong the text is read once more, for the
places that messages need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final, TypeAlias

from pilotflow.errors import ConfigError
from pilotflow.units import nearest, show
from pilotflow.workflow.records import START, Mark

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top of a file to a value."""

MAX_TEXT_BYTES: Final = 256 << 20
MAX_DEPTH: Final = 64
MAX_ALIASED: Final = 500_000
"""Values that aliases may stand for, all together; without a limit a few lines stand for billions."""

SUFFIXES: Final = (".yaml", ".yml", ".json", ".json5", ".kdl")
STDIN: Final = "-"


@dataclass(frozen=True)
class Problem:
    """What is wrong at a place of a file."""

    at: Mark
    text: str


class Broken:
    """The type of `BROKEN`."""


BROKEN: Final = Broken()
"""Stands for a value that cannot be built; why not is in `Reading.problems`."""


@dataclass
class Places:
    """Where values, and the keys of values of mappings, are in a file."""

    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)

    def of(self, path: Path, *, key: bool = False) -> Mark:
        """The place of a value (or its key), or of what it is in if it has none of its own."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, START)


def _nowhere(_wanted: Collection[Path]) -> Places:
    return Places()


@dataclass
class Reading:
    """What is in a file.

    Attributes:
        value: plain mappings, lists and scalars, with `BROKEN` in place of what is none of them.
        problems: everything that is wrong with the text itself.
        entries: for each top-level list, where its entries begin.
    """

    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    entries: dict[str, list[Mark]] = field(default_factory=dict)
    locate: Callable[[Collection[Path]], Places] = _nowhere


def read_file(name: str) -> Reading:
    """What is in a workflow's file; `-` is standard input.

    Raises:
        ConfigError: it cannot be read, or is of no kind that is known.
    """
    data = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1) if name == STDIN else _bytes(name)
    if len(data) > MAX_TEXT_BYTES:
        raise ConfigError(f"{name}: is larger than the limit of {MAX_TEXT_BYTES >> 20} MiB.")
    suffix = FilePath(name).suffix.lower()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", errors="replace")
        return Reading(BROKEN, [Problem(mark_in(before, len(before)), f"byte 0x{data[error.start]:02x} is no UTF-8.")])
    if suffix == ".kdl":
        from pilotflow.workflow.kdl_reader import read_kdl

        return read_kdl(text, name)
    if suffix in (".json", ".json5") or (suffix not in SUFFIXES and text.lstrip()[:1] in ("{", "[")):
        from pilotflow.workflow.json_reader import read_json

        return read_json(text)
    from pilotflow.workflow.yaml_reader import read_yaml

    return read_yaml(text)


def _bytes(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read(MAX_TEXT_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{name}: there is no such file{_similar(name)}.") from None
    except IsADirectoryError:
        raise ConfigError(f"{name}: is a directory, expected a workflow's file (YAML, JSON, JSON5 or KDL).") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{show(name)}: cannot be read: {reason}.") from None


def _similar(name: str) -> str:
    folder = FilePath(name).parent
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES)
    except OSError:
        return f"; there is no directory {folder} either"
    match = nearest(os.path.basename(name), names)
    return f" (did you mean '{folder / match}'?)" if match else ""


def mark_in(text: str, position: int) -> Mark:
    """The line and column of a position in a text."""
    return Mark(text.count("\n", 0, position) + 1, position - (text.rfind("\n", 0, position) + 1) + 1)


class Lines:
    """Lines and columns of positions that only grow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._line = 0
        self._start = 0

    def mark(self, position: int) -> Mark:
        """The line and column of a position."""
        if position < self._at:
            return mark_in(self._text, position)
        newlines = self._text.count("\n", self._at, position)
        if newlines:
            self._line += newlines
            self._start = self._text.rfind("\n", self._at, position) + 1
        self._at = position
        return Mark(self._line + 1, position - self._start + 1)
