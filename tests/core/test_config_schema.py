"""The JSON Schema of configuration files: what editors are told agrees with what is loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pilotflow.config import yaml_tree
from pilotflow.config.file import load_config
from pilotflow.config.schema import json_schema
from pilotflow.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json_schema()
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
NOTES = {"$schema", "title", "description", "default", "format"}


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits, for the keywords that our schema uses; others are an error of the test."""
    out = True
    for keyword, wanted in schema.items():
        match keyword:
            case "type":
                out &= isinstance(value, TYPES[wanted]) and (not isinstance(value, bool) or wanted == "boolean")
            case "anyOf":
                out &= any(accepts(part, value) for part in wanted)
            case "enum":
                out &= value in wanted
            case "const":
                out &= value == wanted
            case "pattern":
                out &= isinstance(value, str) and re.search(wanted, value) is not None
            case "items":
                out &= isinstance(value, list) and all(accepts(wanted, item) for item in value)
            case "minItems":
                out &= isinstance(value, list) and len(value) >= wanted
            case "required":
                out &= isinstance(value, dict) and value.keys() >= set(wanted)
            case "additionalProperties":
                out &= isinstance(value, dict) and value.keys() <= schema["properties"].keys()
            case "properties":
                out &= isinstance(value, dict) and all(
                    accepts(wanted[key], item) for key, item in value.items() if key in wanted
                )
            case _:
                assert keyword in NOTES, keyword
    return out


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_file_in_configs_fits_the_schema(path: Path) -> None:
    assert accepts(SCHEMA, yaml_tree.parse(path.read_bytes()).value)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("retries: 1", True),
        ("retries: many", False),
        ("retries: true", False),
        ("retrys: 1", False),
        ("max_idletime: 2m", True),
        ("executors: []", False),
        ("executors: [{label: a, launcher: single_node, provider: local}]", True),
        ("executors: [{lable: a}]", False),
        ("executors: [{provider: {type: local, max_blocks: 2, walltime: null}}]", True),
        ("executors: [{provider: {type: local, max_block: 2}}]", False),
        ("executors: [{provider: {max_blocks: 2}}]", False),
        ("executors: [{provider: locl}]", False),
        ("executors: [{launcher: {type: single_node, nodes: 2}}]", False),
    ],
)
def test_the_schema_and_the_reader_agree(tmp_path: Path, text: str, right: bool) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    assert accepts(SCHEMA, yaml_tree.parse(text.encode()).value) is right
    if right:
        load_config(path)
    else:
        with pytest.raises(ConfigError):
            load_config(path)


def test_a_plugin_of_a_package_that_is_not_registered_may_have_any_fields() -> None:
    text = b"executors: [{provider: {type: 'my_site.providers:NiceProvider', niceness: 15}, launcher: 'a.b:C'}]"
    assert accepts(SCHEMA, yaml_tree.parse(text).value)


def described(schema: dict[str, Any]) -> set[str]:
    return {name for name, part in schema["properties"].items() if part.get("description")}


def test_every_key_says_what_it_means() -> None:
    executor, threads = SCHEMA["properties"]["executors"]["items"]["anyOf"]
    local = executor["properties"]["provider"]["anyOf"][2]
    assert described(SCHEMA) == set(SCHEMA["properties"])
    assert described(executor) == set(executor["properties"])
    assert described(threads) == set(threads["properties"])
    assert described(local) == set(local["properties"]) - {"type"}
    assert local["properties"]["max_blocks"] == {
        "type": "integer",
        "description": "blocks that exist at most.",
        "default": 1,
    }


def test_the_command_prints_the_schema() -> None:
    argv = [sys.executable, "-m", "pilotflow", "schema"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == SCHEMA
