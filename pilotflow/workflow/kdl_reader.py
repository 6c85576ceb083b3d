"""KDL as values and places: `job "train" { command "..." }` becomes an entry of `jobs`, and so on.

The parser is the package `ckdl` (the extra `kdl`). It knows no places, so a small scanner finds where nodes
begin; should both ever see different nodes, messages name the file's start.

A list may be written as several arguments, or as several nodes: `depends_on "a" "b"`, or `depends_on` twice.
"""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from pilotflow.errors import ConfigError
from pilotflow.workflow.model import WorkflowSpec
from pilotflow.workflow.reading import BROKEN, MAX_DEPTH, Lines, Path, Places, Problem, Reading, mark_in
from pilotflow.workflow.records import Mark
from pilotflow.workflow.sections import LISTS, inner, model_at

_ENTRIES: Final = {
    "job": "jobs",
    "file": "files",
    "user_data": "user_data",
    "resource_requirements": "resource_requirements",
    "failure_handler": "failure_handlers",
    "slurm_scheduler": "slurm_schedulers",
    "action": "actions",
}
_SINGULAR: Final = {
    "input_file": "input_files",
    "output_file": "output_files",
    "depends_on_job": "depends_on",
    "depends_on_regex": "depends_on_regexes",
    "input_file_regex": "input_file_regexes",
    "output_file_regex": "output_file_regexes",
    "executor": "executors",
    "rule": "rules",
    "exit_code": "exit_codes",
    "job": "jobs",
    "job_name_regex": "job_name_regexes",
    "command": "commands",
}
"""Nodes that stand for one entry of a list, where their section has such a list."""

_NODE: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|"(?:[^"\\]|\\.)*"|r?(#+)"(?:.*?)"\1|//[^\n]*|/-|\\[ \t]*(?://[^\n]*)?\n|[{};\n]|[^\s{};"/\\]+|/|[^\S\n]+|.',
    re.DOTALL,
)


def read_kdl(text: str, name: str) -> Reading:
    """The values in a KDL text.

    Raises:
        ConfigError: the parser is not installed; names it, and what else can be done.
    """
    try:
        import ckdl
    except ImportError:
        raise ConfigError(
            f"{name}: KDL needs a parser that is not installed. Install it with: pip install 'pilotflow[kdl]'. "
            "With it, `pilotflow convert FILE` writes the same workflow as YAML, for places without it."
        ) from None
    nodes = _scan(text)
    if isinstance(nodes, Mark):
        return Reading(BROKEN, [Problem(nodes, f"nodes are nested more than {MAX_DEPTH} deep.")])
    try:
        document = ckdl.parse(text)
    except (ckdl.ParseError, ValueError, RecursionError) as error:
        at, words = _blame(text, nodes, ckdl, str(error))
        return Reading(BROKEN, [Problem(at, f"this is not KDL: {words}.")])
    converter = _Converter()
    converter.document(document.nodes, nodes if _alike(document.nodes, nodes) else None)
    places = converter.places
    return Reading(converter.value, converter.problems, converter.entries, lambda _wanted: places)


@dataclass
class _Node:
    """Where a node begins and ends, and what is in it."""

    name: str
    start: int
    mark: Mark
    end: int = 0
    children: list[_Node] = field(default_factory=list)


def _scan(text: str) -> list[_Node] | Mark:
    """The nodes of a text, by where they begin; what is commented out by `/-` is left out.

    Nodes that are nested too deeply for anybody give the place where they are.
    """
    top = _Node("", 0, Mark(1, 1))
    stack, current, skip = [top], None, False
    lines, at = Lines(text), 0
    while at < len(text):
        if text.startswith("/*", at):
            at = _after_comment(text, at)
            continue
        match = _NODE.match(text, at)
        if match is None:
            break
        piece, start, at = match[0], at, match.end()
        if piece == "/-":
            skip = current is None
        elif piece in (";", "\n"):
            current = None
        elif piece == "{":
            if len(stack) > MAX_DEPTH:
                return mark_in(text, start)
            stack.append(current or _Node("", start, Mark(1, 1)))
            current = None
        elif piece == "}":
            if len(stack) > 1:
                stack.pop().end = at
            current = None
        elif not piece.isspace() and not piece.startswith(("//", "\\")):
            if current is None:
                current = _Node(piece.strip('"'), start, lines.mark(start))
                if not skip:
                    stack[-1].children.append(current)
                skip = False
            current.end = at
    return top.children


def _after_comment(text: str, at: int) -> int:
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(text, at):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    return len(text)


def _alike(nodes: Collection[Any], scanned: list[_Node]) -> bool:
    """Whether the parser and the scanner saw the same nodes."""
    if len(nodes) != len(scanned):
        return False
    return all(
        node.name == seen.name and _alike(node.children, seen.children)
        for node, seen in zip(nodes, scanned, strict=True)
    )


def _blame(text: str, nodes: list[_Node], parser: Any, words: str) -> tuple[Mark, str]:
    """The innermost node that cannot be parsed by itself."""
    at = Mark(1, 1)
    while True:
        for node in nodes:
            try:
                parser.parse(text[node.start : node.end] + "\n")
            except (parser.ParseError, ValueError, RecursionError) as error:
                at, words, nodes = node.mark, f"{str(error).lower()} in `{node.name}`", node.children
                break
        else:
            return at, words.rstrip(".")


class _Converter:
    """Turns nodes into the values that the same workflow has in YAML."""

    def __init__(self) -> None:
        self.value: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.entries: dict[str, list[Mark]] = {}
        self.places = Places()

    def document(self, nodes: Collection[Any], scanned: list[_Node] | None) -> None:
        """Convert all nodes of the top."""
        for node, seen in _pairs(nodes, scanned):
            mark = seen.mark if seen is not None else Mark(1, 1)
            section = _ENTRIES.get(node.name)
            if section is None:
                self._key(self.value, WorkflowSpec, node, seen, ())
                continue
            entries = self.value.setdefault(section, [])
            path: Path = (section, len(entries))
            self.entries.setdefault(section, []).append(mark)
            self.places.values[path] = mark
            entries.append(self._mapping(LISTS[section], node, seen, path))

    def _mapping(self, model: Any, node: Any, seen: _Node | None, path: Path) -> dict[str, Any]:
        """A node as a mapping: its argument is the name, its properties and children are keys."""
        made = dict[str, Any]()
        for argument in node.args:
            if "name" in made or (model is not None and "name" not in model.model_fields):
                self._note(path, f"`{node.name}` takes no argument {_plain(argument)!r} here.")
            else:
                made["name"] = _plain(argument)
        for key, value in node.properties.items():
            made[key] = _plain(value)
        for child, below in _pairs(node.children, seen.children if seen is not None else None):
            self._key(made, model, child, below, path)
        return made

    def _key(self, into: dict[str, Any], model: Any, node: Any, seen: _Node | None, path: Path) -> None:
        fields = model.model_fields if model is not None else {}
        name = _SINGULAR.get(node.name, node.name)
        if name not in fields or node.name in fields:
            name = node.name
        place: Path = (*path, name)
        mark = seen.mark if seen is not None else self.places.of(path)
        annotation = fields[name].annotation if name in fields else None
        if annotation is not None and _is_list(annotation):
            self._extend(into.setdefault(name, []), annotation, node, seen, place, mark)
        elif name in into:
            self.problems.append(Problem(mark, f"'{name}' is given twice."))
            return
        elif model is not None and (section := model_at(model, (name,))) is not None:
            into[name] = self._mapping(section, node, seen, place)
        elif node.children or node.properties:
            into[name] = self._free(node)
        else:
            values = [_plain(each) for each in node.args]
            into[name] = values[0] if len(values) == 1 else values or None
        if name == "data" and isinstance(into[name], str):
            self._data(into, place, mark)
        self.places.values.setdefault(place, mark)
        self.places.keys.setdefault(place, mark)

    def _extend(self, into: list[Any], annotation: Any, node: Any, seen: _Node | None, path: Path, mark: Mark) -> None:
        """Add what a node says to a list: its arguments, or itself if entries are mappings."""
        place: Path
        model = inner(annotation)
        if hasattr(model, "model_fields"):
            place = (*path, len(into))
            self.places.values[place] = mark
            into.append(self._mapping(model, node, seen, place))
            return
        for argument in node.args:
            place = (*path, len(into))
            self.places.values[place] = mark
            into.append(_plain(argument))

    def _free(self, node: Any) -> Any:
        """A node whose keys are the user's own, such as `parameters` or `env`."""
        made = {key: _plain(value) for key, value in node.properties.items()}
        for child in node.children:
            values = [_plain(each) for each in child.args]
            nested = child.children or child.properties
            made[child.name] = self._free(child) if nested else values[0] if len(values) == 1 else values
        return made

    def _data(self, into: dict[str, Any], path: Path, mark: Mark) -> None:
        """User data is written as JSON text."""
        try:
            into["data"] = json.loads(into["data"])
        except (ValueError, RecursionError) as error:
            self.problems.append(Problem(mark, f"data: this is not JSON: {error}."))

    def _note(self, path: Path, text: str) -> None:
        self.problems.append(Problem(self.places.of(path), text))


def _pairs(nodes: Collection[Any], scanned: list[_Node] | None) -> list[tuple[Any, _Node | None]]:
    if scanned is None:
        return [(node, None) for node in nodes]
    return list(zip(nodes, scanned, strict=True))


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is list:
        return True
    arguments = [each for each in typing.get_args(annotation) if each is not type(None)]
    return origin is not None and origin is not dict and any(map(_is_list, arguments))


def _plain(value: Any) -> Any:
    """An argument without the type that may be written before it."""
    return getattr(value, "value", value)
