"""YAML as values and places, from the events of libyaml: a second for 100,000 lines, and safe for any text.

No tag builds objects. Values have the types of YAML 1.2's core schema, in which `no` is a word, `1:30` is text
and `010` is ten. A key that is given twice is an error, and what aliases stand for is limited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from pilotflow.workflow.reading import BROKEN, MAX_ALIASED, MAX_DEPTH, Path, Places, Problem, Reading, mark_in
from pilotflow.workflow.records import Mark

_LOADER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_PREFIX: Final = "tag:yaml.org,2002:"
_FIRST: Final = frozenset("-+.0123456789~nNtTfF")
"""What a plain scalar that is no text begins with."""
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.nan|\.NaN"
)
_WORDS: Final[dict[str, Any]] = {
    **dict.fromkeys(("~", "null", "Null", "NULL", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NO_KEY: Final = object()


def read_yaml(text: str) -> Reading:
    """The values in a YAML text."""
    reader = _Reader(text, None)
    value = reader.read()
    return Reading(value, reader.problems, reader.entries, lambda wanted: _places(text, wanted))


def _places(text: str, wanted: Collection[Path]) -> Places:
    reader = _Reader(text, frozenset(wanted))
    reader.read()
    return reader.places


@dataclass
class _Open:
    """A mapping or a list that is being read."""

    value: Any
    mark: Mark
    anchor: str | None
    is_map: bool
    size: int = 1
    key: Any = _NO_KEY
    key_marks: dict[str, int] = field(default_factory=dict)
    bases: list[Any] = field(default_factory=list)


class _Reader:
    """One pass over the events of a text; with `wanted`, for the places of these paths."""

    def __init__(self, text: str, wanted: frozenset[Path] | None) -> None:
        self._text = text
        self._wanted = wanted
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._pending: set[str] = set()
        self._aliased = 0
        self._result: Any = None
        self._list: list[Mark] | None = None
        self.problems: list[Problem] = []
        self.entries: dict[str, list[Mark]] = {}
        self.places = Places()

    def read(self) -> Any:
        """The value of the text's one document."""
        try:
            return self._events()
        except _Stop:
            return BROKEN
        except yaml.reader.ReaderError as error:
            code = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "?")
            at = mark_in(self._text, error.position)
            self._note(at, f"character U+{code:04X} is not allowed in YAML; is this a text file?")
        except yaml.MarkedYAMLError as error:
            at = _mark(error.problem_mark or error.context_mark)
            if at.line > len(self._text.splitlines()):  # it noticed at the end of the file
                at = Mark(max(1, len(self._text.splitlines())), 1)
            self._note(at, _words(error))
        return BROKEN

    def _events(self) -> Any:
        handlers: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._start,
            yaml.SequenceStartEvent: self._start,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
            yaml.DocumentStartEvent: self._document,
        }
        self._documents = 0
        for event in yaml.parse(self._text, Loader=_LOADER):
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
        return self._result

    def _document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._note(_mark(event.start_mark), "a second document begins here; one file is one workflow.")
            raise _Stop

    def _note(self, at: Mark, text: str) -> None:
        self.problems.append(Problem(at, text))

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        if event.tag is None and event.implicit[0]:
            value = text if text and text[0] not in _FIRST else self._plain(text, event)
        elif event.tag is None or event.tag == "!":
            value = text
        else:
            value = self._tagged(text, event)
        if isinstance(value, str) and "\0" in value:
            self._note(_mark(event.start_mark), "a text cannot hold the character NUL.")
            value = BROKEN
        self._put(value, event, 1)

    def _plain(self, text: str, event: Any) -> Any:
        if text in _WORDS:
            return _WORDS[text]
        try:
            if _INT.fullmatch(text):
                return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
            if _FLOAT.fullmatch(text):
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except ValueError:  # thousands of digits
            self._note(_mark(event.start_mark), f"{text[:40]}... is too large a number.")
            return BROKEN
        return text

    def _tagged(self, text: str, event: Any) -> Any:
        kind = event.tag.removeprefix(_PREFIX)
        if kind == "str":
            return text
        value = self._plain(text, event)
        expected = {"int": int, "float": float, "bool": bool, "null": type(None)}.get(kind)
        if expected is float and type(value) is int:
            return float(value)
        if expected is not None and type(value) is expected:
            return value
        if expected is not None:
            self._note(_mark(event.start_mark), f"{text[:60]!r} is not a valid {kind}.")
        else:
            self._note(_mark(event.start_mark), f"the tag {_tag(event.tag)} is not allowed here; write plain values.")
        return BROKEN

    def _start(self, event: Any) -> None:
        is_map = type(event) is yaml.MappingStartEvent
        mark = _mark(event.start_mark)
        if event.tag not in (None, "!", f"{_PREFIX}map", f"{_PREFIX}seq"):
            self._note(mark, f"the tag {_tag(event.tag)} is not allowed here; write plain values.")
        if len(self._open) >= MAX_DEPTH:
            self._note(mark, f"lists and mappings are nested more than {MAX_DEPTH} deep.")
            raise _Stop
        if event.anchor is not None:
            self._pending.add(event.anchor)
        self._note_entry(mark)
        self._open.append(_Open({} if is_map else [], mark, event.anchor, is_map))
        if self._wanted is not None:
            self._place(mark)

    def _note_entry(self, mark: Mark) -> None:
        """Note where an entry of a top-level list begins."""
        depth = len(self._open)
        if depth == 1 and self._open[0].is_map and isinstance(self._open[0].key, str):
            self._list = self.entries.setdefault(self._open[0].key, [])
        elif depth == 2 and not self._open[1].is_map and self._list is not None:
            self._list.append(mark)

    def _end(self, event: Any) -> None:
        done = self._open.pop()
        for base in done.bases:
            for key, value in base.items():
                done.value.setdefault(key, value)
        if done.anchor is not None:
            self._pending.discard(done.anchor)
            self._anchors[done.anchor] = (done.value, done.size)
        self._attach(done.value, done.mark, done.size)

    def _alias(self, event: Any) -> None:
        mark = _mark(event.start_mark)
        value, size = BROKEN, 1
        if event.anchor in self._pending:
            self._note(mark, "an alias stands inside what it stands for.")
        elif event.anchor not in self._anchors:
            self._note(mark, f"there is no anchor '&{event.anchor}' above.")
        else:
            value, size = self._anchors[event.anchor]
            self._aliased += size
            if self._aliased > MAX_ALIASED:
                self._note(mark, f"aliases stand for more than {MAX_ALIASED} values.")
                raise _Stop
        self._note_scalar_entry(mark)
        if self._wanted is not None and (
            self._open and (not self._open[-1].is_map or self._open[-1].key is not _NO_KEY)
        ):
            self._place(mark, inner=False)
        self._attach(value, mark, size)

    def _put(self, value: Any, event: Any, size: int) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, size)
        if len(self._open) < 3:
            self._note_scalar_entry(_mark(event.start_mark))
        top = self._open[-1] if self._open else None
        if top is not None and top.is_map and top.key is _NO_KEY:
            self._key(top, value, event)
            return
        if self._wanted is not None:
            self._place(_mark(event.start_mark), inner=False)
        self._attach(value, None, size)

    def _note_scalar_entry(self, mark: Mark) -> None:
        if len(self._open) == 2 and not self._open[1].is_map and self._list is not None:
            self._list.append(mark)

    def _key(self, top: _Open, value: Any, event: Any) -> None:
        if not isinstance(value, str) or event.anchor is not None:
            self._note(
                _mark(event.start_mark),
                "a key must be text. Quote it." if event.anchor is None else "a key cannot have an anchor.",
            )
            value = BROKEN if not isinstance(value, str) else value
        elif value in top.key_marks:
            first = top.key_marks[value]
            self._note(_mark(event.start_mark), f"'{value}' is given twice, first in line {first}.")
            value = BROKEN
        elif not (value == "<<" and event.implicit[0]):
            top.key_marks[value] = event.start_mark.line + 1
        top.key = value
        if self._wanted is not None and isinstance(value, str):
            path = self._path()
            if path in self._wanted:
                self.places.keys[path] = _mark(event.start_mark)

    def _attach(self, value: Any, mark: Mark | None, size: int) -> None:
        """Put a whole value where it belongs."""
        if not self._open:
            self._result = value
            return
        top = self._open[-1]
        top.size += size
        if not top.is_map:
            top.value.append(value)
        elif top.key is _NO_KEY:
            self._note(mark or top.mark, "a key must be text.")
            top.key = BROKEN
        else:
            if top.key == "<<" and "<<" not in top.key_marks:
                self._merge(top, value, mark)
            elif isinstance(top.key, str):
                top.value[top.key] = value
            top.key = _NO_KEY

    def _merge(self, top: _Open, value: Any, mark: Mark | None) -> None:
        for base in value if isinstance(value, list) else [value]:
            if isinstance(base, dict):
                top.bases.append(base)
            elif base is not BROKEN:
                self._note(mark or top.mark, "'<<' takes a mapping or a list of mappings.")

    def _path(self) -> Path:
        return tuple(len(each.value) if not each.is_map else each.key for each in self._open)

    def _place(self, mark: Mark, inner: bool = True) -> None:
        """Note the place of the value that begins, if it is wanted; `inner` if it has just been opened."""
        path = self._path()
        if inner:
            path = path[:-1]
        if self._wanted is not None and path in self._wanted:
            self.places.values.setdefault(path, mark)


class _Stop(Exception):
    """Nothing sensible can follow; the problem has been noted."""


def _mark(mark: Any) -> Mark:
    return Mark(1, 1) if mark is None else Mark(mark.line + 1, mark.column + 1)


def _tag(tag: str) -> str:
    return tag.replace(_PREFIX, "!!")


def _words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be parsed"
    if "start any token" in problem:
        return "this is not YAML: a tab or a special character begins something here. Quote it, or use spaces."
    if "did not find expected key" in problem or "block end" in problem or "expected '-' indicator" in problem:
        return "this is not YAML: the indentation does not fit the lines above, or a quote or bracket is open."
    if "mapping values are not allowed" in problem:
        return "this is not YAML: there is a ':' where none can be. Quote text that contains ': '."
    if "could not find expected ':'" in problem:
        return "this is not YAML: a ':' is missing behind a key."
    if "',' or '}'" in problem:
        return "this is not YAML: a ',' or '}' is missing. Quote text with braces or commas in it, such as 'work_{i}'."
    context = f" {error.context}" if error.context and error.context_mark else ""
    return f"this is not YAML: {problem}{context}."
