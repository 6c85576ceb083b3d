"""Broken files of every kind: located errors, or a workflow, and nothing else ever."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilotflow.errors import ConfigError
from pilotflow.workflow.spec import read_workflow
from tests.core.workflow_texts import EXAMPLES, LOCATED

TEXTS = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.yaml"))]
KDL = """\
name "w"
variables { tool "run" }
resource_requirements "small" { num_cpus 2; memory "4g"; runtime "PT30M" }
failure_handler "again" { rule { exit_codes 3 4; max_retries 2 } }
file "raw" path="raw.txt"
user_data "u" { data "{\\"a\\": [1, 2]}" }
job "a_{i}" { command "{tool} {i} ${files.output.raw_{i}}"; parameters { i "1:3" }; resource_requirements "small" }
file "raw_{i}" { path "raw{i}.txt"; parameters { i "1:3" } }
job "b" {
    command "cat ${files.input.raw_1} ${user_data.input.u}"
    depends_on "a_1" "a_2"
    failure_handler "again"
}
slurm_scheduler "s" { account "x"; nodes 2; walltime "01:00:00" }
action { trigger_type "on_jobs_ready"; action_type "schedule_nodes"; job "b"; scheduler "s"; scheduler_type "slurm" }
execution_config { mode "slurm"; enable_cpu_bind #true }
"""
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 1.5, float("1e308"), "", " ", "x" * 300, "é{", "{i}", "{i:03d}", "${files.input.", "${user_data.input.x}",
    "${files.input.raw}", "[", "*", "(", "^$", "1:0", "1:5:0", "a:b", "PT", "0", "-5g", "$(rm)", [], [None], [[]], [{}], {}, {"a": 1},
    {"i": "1:2"}, {"name": "a", "command": "x"}, [{"name": "a"}], ["a", "a"], "a", "name", "\u2028", "\ud83d\ude00",
)  # fmt: skip


def damaged_text(text: str, dice: random.Random) -> str:
    """The text with one to three slips of the pen."""
    for _ in range(dice.randint(1, 3)):
        lines = text.split("\n")
        at = dice.randrange(len(lines))
        place = dice.randrange(len(text) + 1)
        kind = dice.randrange(9)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[dice.randrange(len(lines))])
        elif kind == 2:
            lines[at] = " " * dice.randrange(5) + lines[at].lstrip()
        elif kind == 3:
            lines[at] = lines[at].replace(":", dice.choice([" :", "", "::", ": -"]), 1)
        if kind < 4:
            text = "\n".join(lines) or "\n"
        elif kind == 4:
            text = text[:place] + text[place + 1 :]
        elif kind == 5:
            text = text[:place] + dice.choice("{}[]:,&*!|>'\"%@`#-\t\\/é\u2028x0") + text[place:]
        elif kind == 6:
            text = text[:place] + text[place + 1 : place + 2] + text[place : place + 1] + text[place + 2 :]
        elif kind == 7:
            text = text[: dice.randrange(len(text) + 1)]
        else:
            words = text.split(" ")
            other = dice.randrange(len(words))
            words[other] = words[dice.randrange(len(words))]
            text = " ".join(words)
    return text


def damaged_value(value: Any, dice: random.Random) -> Any:
    """The value with something in it replaced, removed, added or renamed."""
    places = list[tuple[Any, Any]]()

    def walk(here: Any) -> None:
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        for key in keys:
            places.append((here, key))
            walk(here[key])

    walk(value)
    for _ in range(dice.randint(1, 3)):
        if not places:
            break
        owner, key = dice.choice(places)
        kind = dice.randrange(4)
        if (isinstance(owner, list) and key >= len(owner)) or (isinstance(owner, dict) and key not in owner):
            continue
        if kind == 0:
            owner[key] = dice.choice(VALUES)
        elif kind == 1:
            del owner[key]
        elif kind == 2 and isinstance(owner, dict):
            owner[f"{key}s" if dice.random() < 0.5 else str(key)[:-1]] = owner.pop(key)
        else:
            other, from_key = dice.choice(places)
            still = (isinstance(other, dict) and from_key in other) or (
                isinstance(other, list) and from_key < len(other)
            )
            owner[key] = json.loads(json.dumps(other[from_key])) if still else None
    return value


def bad_yaml(dice: random.Random) -> tuple[str, str]:
    return damaged_text(dice.choice(TEXTS), dice), ".yaml"


def bad_kdl(dice: random.Random) -> tuple[str, str]:
    return damaged_text(KDL, dice), ".kdl"


def bad_json(dice: random.Random) -> tuple[str, str]:
    whole = json.dumps(yaml.safe_load(dice.choice(TEXTS)), indent=1)
    return damaged_text(whole, dice), dice.choice([".json", ".json5"])


def bad_values_as_yaml(dice: random.Random) -> tuple[str, str]:
    return yaml.safe_dump(damaged_value(yaml.safe_load(dice.choice(TEXTS)), dice), sort_keys=False), ".yaml"


def bad_values_as_json(dice: random.Random) -> tuple[str, str]:
    return json.dumps(damaged_value(yaml.safe_load(dice.choice(TEXTS)), dice), indent=1), ".json"


@pytest.mark.parametrize("count", [90, pytest.param(6000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("make", [bad_yaml, bad_kdl, bad_json, bad_values_as_yaml, bad_values_as_json])
def test_a_broken_file_gives_located_errors_and_nothing_else(
    make: Callable[[random.Random], tuple[str, str]],
    count: int,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    refused = 0
    for seed in range(count):
        text, suffix = make(random.Random(seed))
        path = tmp_path / f"w{suffix}"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        lines = len(text.replace("\u2028", "\n").replace("\x85", "\n").split("\n"))
        try:
            read_workflow(path)
        except ConfigError as error:
            refused += 1
            for line in str(error).splitlines():
                match = LOCATED.fullmatch(line)
                assert match is not None or line.endswith(" more."), (seed, line)
                assert match is None or int(match["line"]) <= lines, (seed, line)
                assert "object at 0x" not in line, (seed, line)
        except Exception as error:
            raise AssertionError(f"seed {seed} of {make.__name__}:\n{text}") from error
    record_property("count", count)
    assert refused >= count // 2  # 5 kinds x 45: more than 200 malformed files even in the sample
