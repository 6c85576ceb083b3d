"""From plain values to the models of `pilotflow.workflow.model`, with pydantic's findings in a reader's words."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, TypeVar, Union

from pydantic import BaseModel, ValidationError

from pilotflow.units import did_you_mean, show
from pilotflow.workflow.fields import words_for
from pilotflow.workflow.findings import Findings
from pilotflow.workflow.model import (
    ALIASES,
    GONE,
    ActionSpec,
    FailureHandlerSpec,
    FileEntry,
    JobSpec,
    RequirementsSpec,
    SchedulerSpec,
    UserDataEntry,
    WorkflowSpec,
)
from pilotflow.workflow.reading import BROKEN, Broken, Path

_Model = TypeVar("_Model", bound=BaseModel)

LISTS: Final[dict[str, type[BaseModel]]] = {
    "jobs": JobSpec,
    "files": FileEntry,
    "user_data": UserDataEntry,
    "resource_requirements": RequirementsSpec,
    "failure_handlers": FailureHandlerSpec,
    "slurm_schedulers": SchedulerSpec,
    "actions": ActionSpec,
}
"""Sections that are lists: their entries are checked one by one, so that one that is wrong hides no other."""


class Sections:
    """The checked content of a file.

    Attributes:
        top: everything but the lists; keys with wrong values are left out. None if there is no mapping at all.
        incomplete: the lists that lack entries, because these are wrong.
    """

    def __init__(self, value: Any, findings: Findings) -> None:
        self._findings = findings
        self.top: WorkflowSpec | None = None
        self.incomplete = set[str]()
        self._raw: dict[str, list[Any]] = {name: [] for name in LISTS}
        if value is None:
            findings.error((), "the file is empty. Write at least a `name` and `jobs` with a name and a command.")
        elif not isinstance(value, dict):
            if value is not BROKEN:
                findings.error((), f"a workflow is a mapping with `name` and `jobs`, this is {words_for(value)}.")
        else:
            self._read(dict(value))

    def _read(self, value: dict[str, Any]) -> None:
        self._rename(value, "", ())
        for name in GONE.keys() & value.keys():
            self._findings.error((name,), f"there is no section '{name}': {GONE[name]}.", key=True)
            del value[name]
        for name in LISTS:
            if isinstance(value.get(name), list):
                self._raw[name] = value[name]
                value[name] = []
            elif value.get(name) is not None:
                self.incomplete.add(name)
        if value.get("jobs") == [] and not self._raw["jobs"]:
            self._findings.error(("jobs",), "there are no jobs. Write at least one, after a '-'.")
        self.top = self._model(WorkflowSpec, value, ())
        while self.top is None:  # the rest is worth a look without what is wrong
            try:
                self.top = WorkflowSpec.model_validate(value)
            except ValidationError as error:
                for each in error.errors(include_url=False):
                    value.pop(str(each["loc"][0]), None)
                value = {"name": "?", "jobs": [], **value}

    def entries(self, name: str) -> Iterator[tuple[int, Any]]:
        """The entries of a list that are right, with their indices; each is let go of, so this is for once."""
        raw = self._raw.pop(name)
        raw.reverse()
        index = -1
        while raw:
            entry, index = raw.pop(), index + 1
            if name in ALIASES and isinstance(entry, dict) and not ALIASES[name].keys().isdisjoint(entry):
                entry = dict(entry)
                self._rename(entry, name, (name, index))
            model = self._model(LISTS[name], entry, (name, index))
            if model is None:
                self.incomplete.add(name)
            else:
                yield index, model

    def _rename(self, entry: dict[str, Any], section: str, path: Path) -> None:
        """Give keys that files from elsewhere use the names of here."""
        for old, new in ALIASES[section].items():
            if old not in entry:
                continue
            if new in entry:
                self._findings.error((*path, old), f"'{old}' is another name of '{new}', which is there too.", key=True)
                del entry[old]
                continue
            entry[new] = entry.pop(old)
            place: Path = (*path, new)
            self._findings.renamed[place] = old

    def _model(self, model: type[_Model], value: Any, path: Path) -> _Model | None:
        if value is BROKEN:
            return None
        try:
            return model.model_validate(value)
        except ValidationError as error:
            for each in error.errors(include_url=False, include_context=True):
                self._explain(model, each, path)
        except RecursionError:
            self._findings.error(path, "lists and mappings are nested too deeply.")
        return None

    def _explain(self, model: type[BaseModel], error: Mapping[str, Any], path: Path) -> None:
        """One finding of pydantic in words, at its place."""
        loc: Path = error["loc"]
        where = (*path, *loc)
        value = error["input"]
        if _is_broken(value):
            return  # the text itself has been complained about
        kind: str = error["type"]
        if kind == "extra_forbidden":
            owner = model_at(model, loc[:-1])
            valid = keys_of(owner) if owner is not None else []
            name = str(loc[-1])
            if where == ("executors",):
                text = "this is a key of configurations, which `pilotflow check` reads; a workflow has `jobs`."
                self._findings.error(where, text, key=True)
                return
            self._findings.error(
                where, f"there is no key '{name}' here{did_you_mean(name, valid)}. Valid: {', '.join(valid)}.", key=True
            )
        elif kind == "missing":
            needs = {"": "the workflow", "jobs": "a job"}.get(str(where[0]) if len(where) > 1 else "", "this entry")
            self._findings.error(where[:-1], f"{needs} needs `{loc[-1]}`.")
        else:
            key = str(where[-1]) if where and isinstance(where[-1], str) else str(where[-2]) if len(where) > 1 else ""
            self._findings.error(where, f"{key}: {_words(kind, error, value)}" if key else _words(kind, error, value))


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys of a section: its own first, then those it shares with others."""
    own = [name for name in model.model_fields if name in model.__annotations__]
    return own + [name for name in model.model_fields if name not in own]


def _is_broken(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_is_broken, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Broken)


def _words(kind: str, error: Mapping[str, Any], value: Any) -> str:
    context: Mapping[str, Any] = error.get("ctx", {})
    if kind == "value_error":
        text = str(context["error"])
        twice = f"{show(value)}: {show(value)}"
        return text.replace(twice, show(value), 1)
    if kind == "literal_error":
        valid = [each.strip(" '") for each in context["expected"].replace(" or ", ", ").split(",")]
        near = did_you_mean(value, valid) if isinstance(value, str) else ""
        return f"{show(value)} is not known{near}. Valid: {', '.join(valid)}."
    expected = _EXPECTED.get(kind)
    if expected is None:
        bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
        if kind in bounds:
            name, words = bounds[kind]
            return f"{show(value)} is out of range, expected {words} {context[name]}."
        return f"{show(value)}: {error['msg']}."
    hint = ""
    if isinstance(value, str) and kind == "bool_type" and value.lower() in ("yes", "no", "on", "off", "true", "false"):
        hint = f" Write {'true' if value.lower() in ('yes', 'on', 'true') else 'false'} without quotes."
    elif isinstance(value, str) and kind == "int_type" and value.strip().lstrip("-").isdigit():
        hint = " Write it without quotes."
    return f"{show(value)} is {words_for(value)}, expected {expected}.{hint}"


_EXPECTED: Final[dict[str, str]] = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list, each entry after a '-'",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model of the mapping at a path, or None if it is no section."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(part)
            if field is None:
                return None
            here = inner(field.annotation)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def inner(annotation: Any) -> Any:
    """The model in `Model | None`, `list[Model]` or `dict[str, Model]`."""
    origin = typing.get_origin(annotation)
    if origin is None:
        return annotation
    arguments = [each for each in typing.get_args(annotation) if each is not type(None)]
    if origin in (Union, types.UnionType, list, Annotated):
        return inner(arguments[0])
    return inner(arguments[-1]) if origin is dict else annotation
