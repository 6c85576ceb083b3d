"""Records from a YAML document: each value in its field, and what is wrong with it by line and column.

The records check themselves when they are made; this module tells them apart from each other and
finds the line that an error is about.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from pilotflow.config import yaml_tree
from pilotflow.config.plugins import load_launcher, load_provider
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.providers.base import Provider
from pilotflow.typechecks import annotations_of, split_field_error, type_problem
from pilotflow.units import did_you_mean, kind, show

_MAX_SHOWN: Final = 50

Record = TypeVar("Record")
FieldReader: TypeAlias = Callable[[object, yaml_tree.Path], Any]
"""Makes the value of a field that is a record itself; raises `Bad` after noting what is wrong."""


def read_document(name: str) -> yaml_tree.Document:
    """The document in a file.

    Raises:
        ConfigError: it cannot be read; with a file or name that may have been meant.
    """
    try:
        with open(name, "rb") as file:
            return yaml_tree.parse(file.read(yaml_tree.MAX_TEXT_BYTES + 1))
    except FileNotFoundError:
        raise ConfigError(f"{name}: there is no such file{_similar_file(name)}.") from None
    except IsADirectoryError:
        raise ConfigError(f"{name}: is a directory, expected a YAML file{_some_file(name)}.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{show(name)}: cannot be read: {reason}.") from None


def _similar_file(name: str) -> str:
    folder = Path(name).parent
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return f"; there is no directory {folder} either"
    stem = Path(name).stem
    close = [other for other in names if other.startswith(stem) and other.endswith((".yaml", ".yml", ".json"))]
    close = close or difflib.get_close_matches(Path(name).name, names, n=1)
    return f" (did you mean '{folder / close[0]}'?)" if close else ""


def _some_file(name: str) -> str:
    found = sorted(entry for pattern in ("*.yaml", "*.yml", "*.json") for entry in Path(name).glob(pattern))
    return f", such as {found[0]}" if found else ""


def raise_problems(name: str, found: Sequence[yaml_tree.Problem]) -> None:
    """Say what is wrong with a file, all at once, one line each; nothing if nothing is.

    Raises:
        ConfigError: `file:line:column: where: what is wrong and what is allowed`, sorted.
    """
    if not found:
        return
    problems = sorted(set(found))
    lines = [f"{name}:{mark.line}:{mark.column}: {text}" for mark, text in problems[:_MAX_SHOWN]]
    if len(problems) > _MAX_SHOWN:
        lines.append(f"{name}: and {len(problems) - _MAX_SHOWN} more.")
    raise ConfigError("\n".join(lines))


class _Field(NamedTuple):
    """One field of a record that a file may set."""

    annotation: Any
    required: bool


class Bad(Exception):
    """A value that cannot be used; its problem has been noted."""


class RecordReader:
    """Makes records from a document, and collects what is wrong on the way."""

    def __init__(self, document: yaml_tree.Document) -> None:
        self.document = document
        self.problems = list(document.problems)

    def record(
        self,
        cls: type[Record],
        value: object,
        path: yaml_tree.Path,
        readers: Mapping[str, FieldReader],
        also: tuple[str, ...] = (),
    ) -> Record:
        """A `cls` from a mapping of its fields.

        Fields whose annotation is a record, or a tuple of records, are read likewise. `readers` make the
        values of fields that need more than that, there too; `also` are keys of the file that are no fields.

        Raises:
            Bad: it cannot be made; the problems have been noted.
        """
        fields = _fields_of(cls)
        if value is yaml_tree.BROKEN:
            raise Bad
        if not isinstance(value, Mapping):
            self.note(path, f"{show(value)} is {kind_in_file(value)}, expected keys and values ({', '.join(fields)}).")
            raise Bad
        good: dict[str, Any] = {}
        bad: set[str] = set()
        for key, item in value.items():
            try:
                good[key] = self._field(fields, key, item, (*path, key), readers, also)
            except Bad:
                bad.add(key)
        missing = [key for key, field in fields.items() if field.required and key not in value]
        if missing:
            self.note(path, f"{', '.join(missing)}: missing, and there is no default.")
            raise Bad
        return self._construct(cls, good, bad, path)

    def records(
        self, cls: type[Record], value: object, path: yaml_tree.Path, readers: Mapping[str, FieldReader]
    ) -> tuple[Record, ...]:
        """A `cls` from each item of a list.

        Raises:
            Bad: not all can be made; the problems have been noted.
        """
        if not isinstance(value, list):
            self.note(path, f"{show(value)} is {kind_in_file(value)}, expected a list, each item after a '-'.")
            raise Bad
        made = list[Record]()
        for index, item in enumerate(value):
            with contextlib.suppress(Bad):
                made.append(self.record(cls, item, (*path, index), readers))
        if len(made) < len(value):
            raise Bad
        return tuple(made)

    def provider(self, value: object, path: yaml_tree.Path) -> Provider:
        """A provider, from its type or a mapping with it. Raises `Bad` with the problem noted."""
        return self._plugin("provider", "local", load_provider, value, path)

    def launcher(self, value: object, path: yaml_tree.Path) -> Launcher:
        """A launcher, likewise."""
        return self._plugin("launcher", "single_node", load_launcher, value, path)

    def _plugin(
        self, word: str, example: str, load: Callable[[str], type[Record]], value: object, path: yaml_tree.Path
    ) -> Record:
        if value is yaml_tree.BROKEN:
            raise Bad
        fields = dict(value) if isinstance(value, Mapping) else {"type": value}
        at: yaml_tree.Path = (*path, "type") if isinstance(value, Mapping) and "type" in value else path
        if "type" not in fields:
            self.note(path, f"`type` is missing. Say which {word} it is, such as `type: {example}`.")
            raise Bad
        type_name = fields.pop("type")
        if type_name is yaml_tree.BROKEN:
            raise Bad
        if not isinstance(type_name, str):
            self.note(
                at, f"{show(type_name)} is {kind_in_file(type_name)}, expected the type of a {word}, such as {example}."
            )
            raise Bad
        try:
            cls = load(type_name)
        except ConfigError as error:
            self.note(at, str(error))
            raise Bad from None
        return self.record(cls, fields, path, {}, also=("type",))

    def _field(
        self,
        fields: Mapping[str, _Field],
        key: str,
        item: object,
        path: yaml_tree.Path,
        readers: Mapping[str, FieldReader],
        also: tuple[str, ...],
    ) -> object:
        """The value of one field. Raises `Bad` with the problem noted."""
        if key not in fields:
            valid = [*also, *fields]
            text = f"there is no such key{did_you_mean(key, valid)}. Valid: {', '.join(valid)}."
            self.note(path, text, at_key=True)
            raise Bad
        if key in readers:
            return readers[key](item, path)
        if _is_broken(item):
            raise Bad
        annotation = fields[key].annotation
        inner = _records_in(annotation)
        if inner is not None and item is not None:
            if typing.get_origin(annotation) is tuple:
                return self.records(inner, item, path, readers)
            return self.record(inner, item, path, readers)
        if isinstance(item, list) and typing.get_origin(annotation) is tuple:
            item = tuple(item)
        problem = type_problem(item, annotation)
        if problem is None:
            return item
        self.note(path, f"{_in_yaml(problem)}{_hint(item, annotation)}")
        raise Bad

    def _construct(self, cls: type[Record], good: dict[str, Any], bad: set[str], path: yaml_tree.Path) -> Record:
        """Make the record; each refusal takes the field it is about out, until nothing else is wrong."""
        while True:
            try:
                made = cls(**good)
            except ConfigError as error:
                keys, problem = _blame(error, _fields_of(cls), good)
            except Exception as error:  # noqa: BLE001  # a plugin's constructor: whatever it does, the file's reader gets a line
                keys, problem = (), f"{cls.__name__} cannot be made: {type(error).__name__}: {error}."
            else:
                if bad:
                    raise Bad
                return made
            if not (bad and _mentions(bad, problem, keys)):
                self.note((*path, keys[-1]) if keys else path, problem)
            if not keys:
                raise Bad
            for key in keys:
                del good[key]
            bad.update(keys)

    def note(self, path: yaml_tree.Path, text: str, at_key: bool = False) -> None:
        """Note what is wrong with the value at this path, or with its key."""
        places = self.document.keys_at if at_key else self.document.values_at
        mark = places.get(path, yaml_tree.Mark(1, 1))
        where = f"{_dotted(path)}: " if path else ""
        self.problems.append(yaml_tree.Problem(mark, f"{where}{text}"))


def _records_in(annotation: Any) -> type[Any] | None:
    """The record that an annotation is, that it may be, or that it is a tuple of."""
    if typing.get_origin(annotation) in (tuple, typing.Union, types.UnionType):
        return next(filter(None, map(_records_in, typing.get_args(annotation))), None)
    return annotation if isinstance(annotation, type) and dataclasses.is_dataclass(annotation) else None


def _fields_of(cls: type) -> dict[str, _Field]:
    """What a record's constructor takes, by name."""
    hints = annotations_of(cls)
    return {
        name: _Field(hints.get(name, Any), parameter.default is parameter.empty)
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def _blame(error: ConfigError, fields: Mapping[str, _Field], given: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Which of the given fields a record's refusal is about, and its words without the record's name.

    Records say `Owner(field=...): problem`. From others, such as a foreign provider, the first
    given field that the message mentions is taken.
    """
    parts = split_field_error(error)
    if parts is not None:
        keys = tuple(key for key in parts.keys if key in given)
        return keys, _in_yaml(parts.problem)
    problem = re.sub(r"\A\w+: ", "", str(error))
    words = re.findall(r"\w+", problem)
    mentioned = sorted((key for key in given if key in words and key in fields), key=words.index)
    return tuple(mentioned[:1]), problem


def _mentions(keys: set[str], problem: str, also: tuple[str, ...]) -> bool:
    """Whether a problem may only be there because these fields were taken out."""
    return not keys.isdisjoint(re.findall(r"\w+", problem)) or not keys.isdisjoint(also)


def _dotted(path: yaml_tree.Path) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_YAML_WORDS: Final = {"None": "null", "True": "true", "False": "false", "bool": "true or false"}


def _in_yaml(problem: str) -> str:
    """A problem's words as a file's author knows them: null, true or false."""
    value, is_, rest = problem.partition(" is ")
    value = _YAML_WORDS.get(value, value)
    given, expected_, wanted = rest.partition(", expected ")
    if expected_:
        wanted = re.sub(r"\b(None|bool)\b", lambda match: _YAML_WORDS[match[0]], wanted)
        wanted = wanted.replace("str | PathLike[str]", "str").replace("PathLike[str] | ", "")
        return f"{value}{is_}{given}{expected_}{wanted}"
    return f"{value}{is_}{rest}"


def _is_broken(value: object) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_is_broken, value.values() if isinstance(value, dict) else value))
    return value is yaml_tree.BROKEN


def kind_in_file(value: object) -> str:
    """The type of a value as a file's author calls it."""
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(type(value), kind(value))


def _hint(value: object, annotation: Any) -> str:
    """What often helps: words that YAML 1.1 took for booleans."""
    if isinstance(value, str) and value.lower() in ("yes", "no", "on", "off") and "bool" in str(annotation):
        return f" Write {'true' if value.lower() in ('yes', 'on') else 'false'} without quotes."
    return ""
