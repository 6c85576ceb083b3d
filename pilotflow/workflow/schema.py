"""The JSON Schema of workflow files, for editors that complete and check while one writes, and the reference page."""

from __future__ import annotations

import sys
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from pilotflow.workflow.model import ALIASES, WorkflowSpec
from pilotflow.workflow.sections import LISTS, inner, keys_of

_ABOUT = (
    "Every section and key of a workflow's file. This page is written by `python -m pilotflow.workflow.schema` "
    "from the same models that check files, so it is complete. Editors get the same from `pilotflow schema workflow`."
)
_RULES = (
    "Unknown keys are errors. *Required* keys have no default. Texts may hold `{name}` of `variables`, and in "
    "`jobs`, `files` and `user_data` `{parameter}`, `{parameter:03d}` or `{parameter:.2f}`; `${...}` is left to the "
    "shell, but for `${files.input.NAME}`, `${files.output.NAME}`, `${user_data.input.NAME}` and "
    "`${user_data.output.NAME}`."
)
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a workflow's file; other names of keys are in it as deprecated ones."""
    schema = WorkflowSpec.model_json_schema()
    sections = {"": schema, **{name: schema["$defs"][model.__name__] for name, model in LISTS.items()}}
    for section, names in ALIASES.items():
        properties = sections[section]["properties"]
        for old, new in names.items():
            properties[old] = {**properties[new], "deprecated": True, "description": f"Another name of `{new}`."}
    job = schema["$defs"]["JobSpec"]
    job["anyOf"] = [{"required": ["command"]}, {"required": ["function"]}]
    return {"$schema": _DIALECT, **schema, "title": "pilotflow workflow"}


def reference() -> str:
    """The page of all keys, as Markdown."""
    lines = ["# Keys of workflow files", "", _ABOUT, "", _RULES, ""]
    done = set[type[BaseModel]]()
    _section(lines, "", WorkflowSpec, done)
    return "\n".join(lines).rstrip() + "\n"


def _section(lines: list[str], path: str, model: type[BaseModel], done: set[type[BaseModel]]) -> None:
    if model in done:
        return
    done.add(model)
    text = (model.__doc__ or "").strip()
    lines += [
        f"## `{path}`" if path else "## The top level",
        "",
        text,
        "",
        "| key | value | default | meaning |",
        "|---|---|---|---|",
    ]
    below = list[tuple[str, type[BaseModel]]]()
    others = (
        {new: old for old, new in ALIASES.get(path.split(".", maxsplit=1)[0].rstrip("[]"), {}).items()}
        if "." not in path
        else {}
    )
    for name in keys_of(model):
        field = model.model_fields[name]
        nested = inner(field.annotation)
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            below.append((f"{path}.{name}".lstrip("."), nested))
        meaning = (field.description or "").replace("|", "\\|")
        if name in others:
            names = ", ".join(f"`{old}`" for old, new in ALIASES[path].items() if new == name)
            meaning += f" Also: {names}."
        lines.append(f"| `{name}` | {_kind(model, name, field)} | {_default(field)} | {meaning} |")
    lines.append("")
    for where, nested in below:
        _section(lines, where, nested, done)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "*required*"
    if field.default is None or field.default in ((), []):
        return ""
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else _plain(field.default)}`"


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """What kind of value a key takes, from its schema."""
    schema = model.model_json_schema()["properties"][name]
    nested = inner(field.annotation)
    if isinstance(nested, type) and issubclass(nested, BaseModel):
        origins = str(field.annotation)
        return "list of mappings" if "list[" in origins else "mappings by name" if "dict[" in origins else "mapping"
    choices = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    kinds = list[str]()
    for each in choices:
        if "enum" in each:
            kinds.append(", ".join(f"`{value}`" for value in each["enum"]))
        elif "type" in each:
            types = each["type"] if isinstance(each["type"], list) else [each["type"]]
            kinds += [_KINDS[kind] + _items(each, kind) for kind in types]
    return " or ".join(dict.fromkeys(kinds)) or "anything"


def _items(schema: dict[str, Any], kind: str) -> str:
    item = typing.cast("dict[str, Any]", schema.get("items") or {}).get("type") if kind == "array" else None
    return f" of {_KINDS[item]}s" if isinstance(item, str) else ""


_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}

if __name__ == "__main__":
    sys.stdout.write(reference())
