"""JSON and JSON5 as values and places.

JSON5 is JSON with comments, trailing commas, names without quotes, single quotes and more numbers, so one
reader does for both. It is made of one regular expression a token: a file of 100,000 jobs takes seconds
(the `json5` package takes many minutes, and knows no places).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Final

from pilotflow.workflow.reading import BROKEN, MAX_DEPTH, Lines, Path, Places, Problem, Reading, mark_in
from pilotflow.workflow.records import Mark

_SKIP: Final = re.compile(r"(?:[\s\ufeff]+|//[^\n\r\u2028\u2029]*|/\*.*?\*/)*", re.DOTALL)
_STRING: Final = re.compile(r'"((?:[^"\\\n\r]|\\.)*)"|' + r"'((?:[^'\\\n\r]|\\.)*)'", re.DOTALL)
_NUMBER: Final = re.compile(
    r"([-+]?)(?:(0[xX][0-9a-fA-F]+)|(Infinity|NaN)|((?:0|[1-9][0-9]*)(?![0-9]))(?![.eE])"
    r"|((?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?))(?![\w$.])"
)
_WORD: Final = re.compile(r"[\w$.+-]+|.", re.DOTALL)
_NAME: Final = re.compile(r"[^\W\d][\w$]*|\$[\w$]*")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(\r\n|.))", re.DOTALL)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_CONTINUED: Final = frozenset(("\n", "\r", "\r\n", "\u2028", "\u2029"))
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}


def read_json(text: str) -> Reading:
    """The values in a JSON or JSON5 text."""
    reader = _Reader(text, None)
    value = reader.read()
    return Reading(value, reader.problems, reader.entries, lambda wanted: _places(text, wanted))


def _places(text: str, wanted: Collection[Path]) -> Places:
    reader = _Reader(text, frozenset(wanted))
    reader.read()
    return reader.places


class _Stop(Exception):
    """Nothing sensible can follow; the problem has been noted."""


class _Reader:
    def __init__(self, text: str, wanted: frozenset[Path] | None) -> None:
        self._text = text
        self._wanted = wanted
        self._lines = Lines(text)
        self._at = 0
        self.problems: list[Problem] = []
        self.entries: dict[str, list[Mark]] = {}
        self.places = Places()

    def read(self) -> Any:
        """The one value of the text."""
        try:
            self._skip()
            if self._at == len(self._text):
                return None
            value = self._value((), 0)
            self._skip()
            if self._at < len(self._text):
                self._stop("something follows the end of the workflow.")
        except _Stop:
            return BROKEN
        return value

    def _stop(self, text: str, position: int | None = None) -> None:
        at = self._lines.mark(self._at if position is None else position)
        self.problems.append(Problem(at, text))
        raise _Stop

    def _note(self, position: int, text: str) -> None:
        self.problems.append(Problem(self._lines.mark(position), text))

    def _skip(self) -> None:
        match = _SKIP.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _value(self, path: Path, depth: int) -> Any:
        text, at = self._text, self._at
        if self._wanted is not None and path in self._wanted:
            self.places.values[path] = self._lines.mark(at)
        first = text[at : at + 1]
        if first in ('"', "'"):
            return self._string()
        if first in ("{", "["):
            if depth >= MAX_DEPTH:
                self._stop(f"lists and mappings are nested more than {MAX_DEPTH} deep.")
            return self._mapping(path, depth + 1) if first == "{" else self._list(path, depth + 1)
        match = _NUMBER.match(text, at)
        if match is not None:
            self._at = match.end()
            return self._number(match, at)
        match = _NAME.match(text, at)
        if match is not None and match[0] in _WORDS:
            self._at = match.end()
            return _WORDS[match[0]]
        self._stop(f"this is not JSON: expected a value, found {self._found()}.")
        return BROKEN

    def _found(self) -> str:
        if self._at >= len(self._text):
            return "the end of the file"
        match = _WORD.match(self._text, self._at)
        word = match[0][:40] if match is not None else ""
        return repr(word) + (" (text needs quotes)" if word[:1].isalpha() else "")

    def _number(self, match: re.Match[str], at: int) -> Any:
        sign, hexadecimal, special, whole, real = match.groups()
        try:
            if hexadecimal or whole:
                value: float = int(hexadecimal or whole, 16 if hexadecimal else 10)
            else:
                value = float((special or real).lower())
        except ValueError:  # thousands of digits
            self._note(at, f"{match[0][:40]}... is too large a number.")
            return BROKEN
        return -value if sign == "-" else value

    def _string(self) -> Any:
        at = self._at
        match = _STRING.match(self._text, at)
        if match is None:
            self._stop("this text has no closing quote in its line.")
            return BROKEN
        self._at = match.end()
        body = match[1] if match[1] is not None else match[2]
        if "\\" in body:
            body = _ESCAPE.sub(_unescape, body)
            try:
                body = body.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self._note(at, "this text holds half a character (an unpaired \\u escape).")
                return BROKEN
        if "\0" in body:
            self._note(at, "a text cannot hold the character NUL.")
            return BROKEN
        return body

    def _list(self, path: Path, depth: int) -> list[Any]:
        begin = self._at
        marks = self.entries.setdefault(str(path[0]), []) if len(path) == 1 else None
        out = list[Any]()
        self._at += 1
        while True:
            self._skip()
            if self._text.startswith("]", self._at):
                self._at += 1
                return out
            if marks is not None:
                marks.append(self._lines.mark(self._at))
            out.append(self._value((*path, len(out)), depth))
            self._next("]", begin, "list")

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        begin = self._at
        out = dict[str, Any]()
        first_at = dict[str, int]()
        self._at += 1
        while True:
            self._skip()
            if self._text.startswith("}", self._at):
                self._at += 1
                return out
            at = self._at
            key = self._key()
            place = (*path, key) if isinstance(key, str) else path
            if self._wanted is not None and place in self._wanted:
                self.places.keys.setdefault(place, self._lines.mark(at))
            self._skip()
            if not self._text.startswith(":", self._at):
                self._stop(f"this is not JSON: expected ':' behind a name, found {self._found()}.")
            self._at += 1
            self._skip()
            value = self._value(place, depth)
            if not isinstance(key, str):
                pass
            elif key in out:
                line = mark_in(self._text, first_at[key]).line
                self._note(at, f"'{key}' is given twice, first in line {line}.")
            else:
                out[key], first_at[key] = value, at
            self._next("}", begin, "mapping")

    def _key(self) -> Any:
        if self._text[self._at : self._at + 1] in ('"', "'"):
            return self._string()
        match = _NAME.match(self._text, self._at)
        if match is None:
            self._stop(f"this is not JSON: expected a name, found {self._found()}.")
            return BROKEN
        self._at = match.end()
        return match[0]

    def _next(self, closing: str, begin: int, what: str) -> None:
        """Step over the comma between two entries, or stand before what closes."""
        self._skip()
        if self._text.startswith(",", self._at):
            self._at += 1
        elif not self._text.startswith(closing, self._at):
            line = mark_in(self._text, begin).line
            self._stop(
                f"this is not JSON: expected ',' or '{closing}' in the {what} that begins in line {line}, "
                f"found {self._found()}."
            )


def _unescape(match: re.Match[str]) -> str:
    if match[1] or match[2]:
        return chr(int(match[1] or match[2], 16))
    return "" if match[3] in _CONTINUED else _ESCAPES.get(match[3], match[3])
