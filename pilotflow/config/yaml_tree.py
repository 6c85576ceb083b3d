"""A YAML (or JSON) text as plain values that remember the line and column they came from.

Safe for text from anyone: no tags build objects, aliases are followed but what they expand to is
limited, and values have the types of YAML 1.2's core schema, in which `no` is a word, `1:30` is
text and `010` is ten. A key that is given twice is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top of a document to a value."""

MAX_TEXT_BYTES: Final = 256 * 1024
_MAX_VALUES: Final = 20_000

_STR: Final = "tag:yaml.org,2002:str"
_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))


class _Broken:
    """The type of `BROKEN`."""


BROKEN: Final = _Broken()
"""Stands for a value that cannot be built; why not is in `Document.problems`."""


class Mark(NamedTuple):
    """A place in a text; both count from 1."""

    line: int
    column: int


class Problem(NamedTuple):
    """What is wrong at a place in a text."""

    mark: Mark
    text: str


@dataclass(frozen=True)
class Document:
    """A text's values and where they came from.

    Attributes:
        value: plain mappings, lists and scalars, with `BROKEN` in place of what is none of them.
        values_at, keys_at: the place of each value, and of the key of each value of a mapping.
        problems: everything that is wrong with the text itself.
    """

    value: Any = None
    values_at: dict[Path, Mark] = field(default_factory=dict)
    keys_at: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: Any = {}  # noqa: RUF012  # PyYAML's own name and shape


for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})\\Z"), _first)


class _Skip(Exception):
    """A value that cannot be built; its problem has been noted."""


def parse(data: bytes) -> Document:
    """The document in these bytes; what is wrong with it is in `Document.problems`."""
    if len(data) > MAX_TEXT_BYTES:
        return _failed(Mark(1, 1), f"the file is larger than the limit of {MAX_TEXT_BYTES // 1024} KiB.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", errors="replace")
        return _failed(_mark_in(before, len(before)), f"this is not UTF-8 text (byte 0x{data[error.start]:02x}).")
    try:
        node = yaml.compose(_json_without_tabs(text), Loader=_Loader)
    except RecursionError:
        return _failed(Mark(1, 1), "lists and mappings are nested too deeply.")
    except yaml.reader.ReaderError as error:
        character = f"character U+{error.character:04X}" if isinstance(error.character, int) else "this character"
        return _failed(_mark_in(text, error.position), f"{character} is not allowed in YAML; is this a text file?")
    except yaml.MarkedYAMLError as error:
        return _failed(_mark(error.problem_mark or error.context_mark), _words(error))
    if node is None:
        return Document()
    document = Document()
    try:
        value = _Builder(document).build(node, ())
    except (_Skip, RecursionError):
        value = BROKEN
        if not document.problems:
            document.problems.append(Problem(_mark(node.start_mark), "lists and mappings are nested too deeply."))
    return replace(document, value=value)


def _failed(mark: Mark, text: str) -> Document:
    return Document(BROKEN, problems=[Problem(mark, text)])


def _mark(mark: Any) -> Mark:
    return Mark(1, 1) if mark is None else Mark(mark.line + 1, mark.column + 1)


def _mark_in(text: str, position: int) -> Mark:
    before = text[:position]
    return Mark(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


def _words(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be parsed"
    if "\\t" in problem:
        return "a tab is no indentation in YAML; use spaces."
    if problem.startswith("expected <block end>"):
        return "this is not YAML: the indentation does not fit the lines above."
    if problem == "mapping values are not allowed here":
        return "this is not YAML: there is a ':' where none can be. Quote text that contains ': '."
    context = f" {error.context}" if error.context and error.context_mark else ""
    return f"this is not YAML: {problem}{context}."


def _json_without_tabs(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses. None can be inside a JSON string."""
    if "\t" in text and text.lstrip().startswith("{"):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return text
        return text.replace("\t", " ")
    return text


class _Builder:
    """Turns composed nodes into values, and notes what cannot be one."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._active: set[int] = set()
        self._count = 0

    def build(self, node: Node, path: Path) -> Any:
        """The value of a node; its places are noted under `path`.

        Raises:
            _Skip: it has none; the problem has been noted.
        """
        self._count_one(node)
        if id(node) in self._active:
            self._note(node, "an alias stands inside what it stands for.")
            raise _Skip
        self._document.values_at[path] = _mark(node.start_mark)
        self._active.add(id(node))
        try:
            if isinstance(node, ScalarNode):
                return self._scalar(node)
            if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rpartition(":")[2] not in ("map", "seq"):
                self._note(node, f"the tag {_tag_text(node)} is not allowed here; write plain values.")
                raise _Skip
            return self._mapping(node, path) if isinstance(node, MappingNode) else self._sequence(node, path)
        finally:
            self._active.discard(id(node))

    def _count_one(self, node: Node) -> None:
        self._count += 1
        if self._count > _MAX_VALUES:
            if self._count == _MAX_VALUES + 1:
                self._note(node, f"aliases expand to more than {_MAX_VALUES} values.")
            raise _Skip

    def _note(self, node: Node, text: str) -> None:
        self._document.problems.append(Problem(_mark(node.start_mark), text))

    def _sequence(self, node: Node, path: Path) -> list[Any]:
        out = []
        assert isinstance(node, SequenceNode)
        for index, item in enumerate(node.value):
            try:
                out.append(self.build(item, (*path, index)))
            except _Skip:
                out.append(BROKEN)  # what follows keeps its index
        return out

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        out: dict[str, Any] = {}
        own: dict[str, Mark] = {}
        for key_node, value_node, merged in self._pairs(node):
            key = self._key(key_node)
            if key is None or (merged and key in out):
                continue
            if not merged and key in own:
                self._note(key_node, f"'{key}' is given twice, first in line {own[key].line}.")
                continue
            if not merged:
                own[key] = _mark(key_node.start_mark)
            place = (*path, key)
            self._document.keys_at[place] = _mark(key_node.start_mark)
            try:
                out[key] = self.build(value_node, place)
            except _Skip:
                out[key] = BROKEN
        return out

    def _pairs(self, node: MappingNode) -> Iterator[tuple[Node, Node, bool]]:
        """A mapping's own pairs, then those that `<<` merges in; `_Skip` if they are too many."""
        bases = list[Node]()
        for key, value in node.value:
            if isinstance(key, ScalarNode) and key.value == "<<" and key.style is None:
                bases += value.value if isinstance(value, SequenceNode) else [value]
            else:
                yield key, value, False
        for base in bases:
            self._count_one(base)
            if not isinstance(base, MappingNode):
                self._note(base, "'<<' takes a mapping or a list of mappings.")
            elif id(base) in self._active:
                self._note(base, "an alias stands inside what it stands for.")
            else:
                self._active.add(id(base))
                try:
                    for key, value, _ in self._pairs(base):
                        self._count_one(key)
                        yield key, value, True
                finally:
                    self._active.discard(id(base))

    def _key(self, node: Node) -> str | None:
        if isinstance(node, ScalarNode) and node.tag == _STR:
            return str(node.value)
        self._note(node, "a key must be text." + (" Quote it." if isinstance(node, ScalarNode) else ""))
        return None

    def _scalar(self, node: ScalarNode) -> Any:
        text: str = node.value
        try:
            if node.tag == _STR:
                text.encode()
                return text
            if node.tag == _NULL:
                return None
            if node.tag == _BOOL:
                return text.lower() == "true"
            if node.tag == _INT:
                return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
            if node.tag == _FLOAT:
                return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
        except ValueError:  # the tag says what the text is not, a number of thousands of digits, half a character
            self._note(node, f"{text[:60]!r} is not a valid {node.tag.rpartition(':')[2]}.")
            raise _Skip from None
        self._note(node, f"the tag {_tag_text(node)} is not allowed here; write plain values.")
        raise _Skip


def _tag_text(node: Node) -> str:
    return node.tag.replace("tag:yaml.org,2002:", "!!")
