"""The JSON Schema of configuration and site files, for editors that complete and check while one writes.

It says less than `load_config` and `read_site` check: which keys there are, of which types, and what they mean.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from pilotflow.config.model import Config, ExecutorConfig, ThreadExecutorConfig
from pilotflow.config.plugins import launcher_names, load_launcher, load_provider, provider_names
from pilotflow.config.settings import Settings
from pilotflow.config.site import AccountRules, Detection, Network, Partition, Paths, Policy, Site, Source
from pilotflow.errors import ConfigError
from pilotflow.typechecks import annotations_of

_SITE_PARTS: Final = {
    "detect": Detection,
    "account": AccountRules,
    "network": Network,
    "paths": Paths,
    "policy": Policy,
    "defaults": Settings,
}
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DOTTED_PATH: Final = r"^[\w.]+:[\w.]+$"
_SECTION: Final = re.compile(r"^(?:Args|Attributes):\n(?P<body>(?:[ ]{4}.*\n|\n)+)", re.MULTILINE)
_ENTRY: Final = re.compile(r"^ {4}(?P<names>\w+(?:, \w+)*): (?P<text>.*(?:\n {8}.*)*)", re.MULTILINE)


def json_schema() -> dict[str, Any]:
    """The schema of a configuration file, with the providers and launchers that are installed here.

    Providers and launchers of installed packages that cannot be imported are left out.
    """
    executor = _record(
        ExecutorConfig,
        {
            "provider": _plugin(provider_names(), load_provider),
            "launcher": _plugin(launcher_names(), load_launcher),
        },
    )
    threads = _record(ThreadExecutorConfig, {})
    threads["required"] = ["max_threads"]
    executors = {"type": "array", "items": {"anyOf": [executor, threads]}, "minItems": 1}
    return {"$schema": _DIALECT, "title": "pilotflow configuration", **_record(Config, {"executors": executors})}


def site_schema() -> dict[str, Any]:
    """The schema of a site file, with the launchers that are installed here."""
    launcher = _plugin(launcher_names(), load_launcher)
    parts = {key: _record(cls, {}) for key, cls in _SITE_PARTS.items()}
    lists = {"sources": _record(Source, {}), "partitions": _record(Partition, {"launcher": launcher})}
    known = {**parts, **{key: {"type": "array", "items": item} for key, item in lists.items()}, "launcher": launcher}
    text = {"type": "string"}
    include = {"anyOf": [text, {"type": "array", "items": text}], "description": "Files that fill in what is not said."}
    schema = _record(Site, known)
    schema["properties"]["include"] = include
    return {"$schema": _DIALECT, "title": "pilotflow site", **schema}


def _plugin(names: list[str], load: Callable[[str], type]) -> dict[str, Any]:
    """A name alone, or a mapping with the name as `type` and the fields of that class."""
    short: list[str] = []
    shapes: list[dict[str, Any]] = []
    for name in names:
        try:
            cls = load(name)
        except ConfigError:
            continue  # a broken package is not this file's problem until it names it
        short.append(name)
        shapes.append(_record(cls, {}, {"type": {"const": name}}))
    dotted = {"type": "string", "pattern": _DOTTED_PATH}
    foreign = {"type": "object", "properties": {"type": dotted}, "required": ["type"]}
    return {"anyOf": [{"enum": short}, dotted, *shapes, foreign]}


def _record(
    cls: type, known: dict[str, dict[str, Any]], also: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The schema of a record's fields; `known` are those of fields that are records themselves."""
    texts = dict(_texts(cls))
    hints = annotations_of(cls)
    properties: dict[str, dict[str, Any]] = dict(also or {})
    required = list(properties)
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            continue
        schema = known.get(name) or _of_type(hints.get(name, Any))
        properties[name] = {**schema, **({"description": texts[name]} if name in texts else {})}
        if parameter.default is parameter.empty:
            required.append(name)
        elif isinstance(parameter.default, (str, int, float)):
            properties[name]["default"] = parameter.default
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _of_type(annotation: Any) -> dict[str, Any]:
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    if "Callable" in str(annotation):  # functions cannot be said in a file
        return {"type": "null"}
    try:
        return TypeAdapter(annotation).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError):  # a foreign class as a field's type
        return {}


def _texts(cls: type) -> Iterator[tuple[str, str]]:
    """What the docstrings of a class and its bases say about each field."""
    for base in reversed(cls.__mro__):
        section = _SECTION.search(inspect.cleandoc(base.__doc__ or "") + "\n")
        for entry in _ENTRY.finditer(section["body"]) if section else ():
            for name in entry["names"].split(", "):
                yield name, " ".join(entry["text"].split())
