"""The page of all keys and the schema for editors say what the reader does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from msgspec import StructMeta
from pydantic import BaseModel

from pilotflow.workflow import records
from pilotflow.workflow.model import ALIASES, NOT_USED, WorkflowSpec
from pilotflow.workflow.schema import json_schema, reference
from pilotflow.workflow.sections import LISTS, inner, keys_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "workflow-reference.md"


def test_the_page_of_all_keys_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "write it anew: .venv/bin/python -m pilotflow.workflow.schema > docs/workflow-reference.md"
    )


def test_every_key_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    models: list[type[BaseModel]] = [WorkflowSpec, *LISTS.values()]
    for model in models:
        assert set(keys_of(model)) <= {key for key, _ in rows}
    assert all(len(text) > 5 for _, text in rows)


def keys_with_an_effect(model: type[BaseModel]) -> Iterator[str]:
    """The keys of a section and of those inside it, but for what says that it is not used."""
    for name, field in model.model_fields.items():
        if NOT_USED not in (field.description or ""):
            yield name
            nested = inner(field.annotation)
            if isinstance(nested, type) and issubclass(nested, BaseModel):
                yield from keys_with_an_effect(nested)


def test_what_a_file_can_say_is_read_by_somebody_or_says_that_it_is_not_used() -> None:
    package = ROOT / "pilotflow"
    code = {str(path.relative_to(package)): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    del code["workflow/model.py"]
    read = set(re.findall(r"""(?<=[."'])\w+""", "".join(code.values())))
    assert set(keys_with_an_effect(WorkflowSpec)) - read == set()
    for makers in ("settings", "spec", "jobs"):  # they fill the records; somebody must look into them, too
        del code[f"workflow/{makers}.py"]
    read = set(re.findall(r"(?<=\.)\w+", "".join(code.values())))
    fields = {
        name for each in vars(records).values() if isinstance(each, StructMeta) for name in each.__struct_fields__
    }
    assert fields - read == {"identifier"}, "that is for the user alone"


def test_the_schema_knows_every_key_and_every_other_name() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == {*WorkflowSpec.model_fields, *ALIASES[""]}
    job = schema["$defs"]["JobSpec"]
    assert set(job["properties"]) == {*LISTS["jobs"].model_fields, *ALIASES["jobs"]}
    assert job["properties"]["blocked_by"]["deprecated"] is True
    assert schema["required"] == ["name", "jobs"]
    assert schema["additionalProperties"] is False


def fits(value: object, schema: dict[str, object], root: dict[str, dict[str, dict[str, object]]]) -> bool:
    """Whether a value fits the parts of JSON Schema that this schema is made of."""
    if "$ref" in schema:
        return fits(value, root["$defs"][str(schema["$ref"]).rpartition("/")[2]], root)
    choices = schema.get("anyOf")
    if isinstance(choices, list) and all(set(each) != {"required"} for each in choices):
        return any(fits(value, each, root) for each in choices)
    kinds = schema.get("type")
    if kinds is not None and not any(_is(value, str(kind)) for kind in (kinds if isinstance(kinds, list) else [kinds])):
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert isinstance(properties, dict)
        known = all(key in properties for key in value) or schema.get("additionalProperties") is not False
        return known and all(fits(item, properties.get(key, {}), root) for key, item in value.items())
    if isinstance(value, list):
        items = schema.get("items", {})
        assert isinstance(items, dict)
        return all(fits(item, items, root) for item in value)
    return "enum" not in schema or value in list(schema["enum"])  # type: ignore[call-overload]


def _is(value: object, kind: str) -> bool:
    kinds = {
        "string": str,
        "array": list,
        "object": dict,
        "boolean": bool,
        "null": type(None),
        "integer": int,
        "number": (int, float),
    }
    return isinstance(value, kinds[kind]) and not (isinstance(value, bool) and kind in ("integer", "number"))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "workflows").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_schema_accepts_every_example(path: Path) -> None:
    schema = json_schema()
    value = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert fits(value, schema, schema)
    assert not fits({**value, "jbos": []}, schema, schema)
    assert not fits({**value, "jobs": [{"name": "a", "comand": "x"}]}, schema, schema)
