"""Files in YAML, JSON, JSON5 and KDL mean the same, and are as safe as each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from pilotflow.errors import ConfigError
from pilotflow.workflow.json_reader import read_json
from pilotflow.workflow.reading import Reading
from pilotflow.workflow.records import Mark, Workflow
from pilotflow.workflow.spec import read_workflow
from pilotflow.workflow.yaml_reader import read_yaml
from tests.core.workflow_texts import EXAMPLES, errors, read

KDL = """\
// a comment; /* another */
name "w"
/- name "left out"
env { A "1"; B "two" }
parameters { k "[1,2]" }
resource_requirements "small" { num_cpus 2; memory "4g"; runtime "PT30M" }
failure_handler "again" {
    rule { exit_codes 3 4; recovery_script "echo x"; max_retries 2 }
    rule { match_all_exit_codes #true }
}
file "raw" path="raw.txt"
file "part_{k}" { path "part{k}.txt"; use_parameters "k" }
user_data "u" { data "{\\"a\\": [1, 2]}"; is_ephemeral #true }
job "a" {
    command #"echo "x" > ${files.output.raw}"#
    resource_requirements "small"
}
job "b_{k}" {
    command "cat ${files.input.raw} > ${files.output.part_{k}}"
    use_parameters "k"
    depends_on_job "a"
    failure_handler "again"
    stdio { mode "combined" }
    priority 3
}
job "c" { command "cat ${user_data.input.u}"; depends_on "b_1" "b_2"; depends_on "a"; input_file "raw" }
slurm_scheduler "s" { account "x"; nodes 2; walltime "01:00:00" }
slurm_defaults { qos "high"; exclusive #true }
action { trigger_type "on_jobs_ready"; action_type "schedule_nodes"; job "c"; scheduler "s"; scheduler_type "slurm" }
action { trigger_type "on_workflow_start"; action_type "run_commands"; command "echo 1"; command "echo 2" }
execution_config { mode "slurm"; enable_cpu_bind #true }
"""
YAML = """\
name: w
env: {A: "1", B: two}
parameters: {k: [1, 2]}
resource_requirements: [{name: small, num_cpus: 2, memory: 4g, runtime: PT30M}]
failure_handlers:
  - {name: again, rules: [{exit_codes: [3, 4], recovery_script: echo x, max_retries: 2}, {match_all_exit_codes: true}]}
files:
  - {name: raw, path: raw.txt}
  - {name: "part_{k}", path: "part{k}.txt", use_parameters: [k]}
user_data: [{name: u, data: {a: [1, 2]}, is_ephemeral: true}]
jobs:
  - {name: a, command: 'echo "x" > ${files.output.raw}', resource_requirements: small}
  - name: b_{k}
    command: cat ${files.input.raw} > ${files.output.part_{k}}
    use_parameters: [k]
    depends_on: [a]
    failure_handler: again
    stdio: {mode: combined}
    priority: 3
  - {name: c, command: "cat ${user_data.input.u}", depends_on: [b_1, b_2, a], input_files: [raw]}
slurm_schedulers: [{name: s, account: x, nodes: 2, walltime: "01:00:00"}]
slurm_defaults: {qos: high, exclusive: true}
actions:
  - {trigger_type: on_jobs_ready, action_type: schedule_nodes, jobs: [c], scheduler: s, scheduler_type: slurm}
  - {trigger_type: on_workflow_start, action_type: run_commands, commands: [echo 1, echo 2]}
execution_config: {mode: slurm, enable_cpu_bind: true}
"""
JSON5 = """\
/* the same as JSON5 */ {
  name: 'w', // no quotes
  jobs: [{name: "a", command: 'it\\'s \\
one line', retries: +0x2, timeout: 1e1,},],
}
"""


def without_places(workflow: Workflow) -> object:
    """The workflow as plain data, but for where things are in the file."""

    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {
                key: strip(item)
                for key, item in value.items()
                if key not in ("at", "path") or (key == "path" and "/" not in str(item))
            }
        return [strip(item) for item in value] if isinstance(value, (list, tuple)) else value

    return strip(msgspec.to_builtins(workflow))


def test_kdl_means_the_same_as_yaml(tmp_path: Path) -> None:
    assert without_places(read(tmp_path, KDL, ".kdl")) == without_places(read(tmp_path, YAML))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_json_means_the_same_as_yaml(path: Path, tmp_path: Path) -> None:
    text = json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), indent=1)
    assert without_places(read(tmp_path, text, ".json")) == without_places(read_workflow(path))


def test_json5_is_json_with_freedoms(tmp_path: Path) -> None:
    (job,) = read(tmp_path, JSON5, ".json5").jobs
    assert (job.command, job.retries, job.timeout_s, job.at) == ("it's one line", 2, 10.0, Mark(3, 10))


def test_kdl_says_where_and_in_which_node(tmp_path: Path) -> None:
    assert errors(tmp_path, 'name "w"\njob "a" {\n  comand "x"\n}\n', ".kdl")[0].startswith(
        "3:3: there is no key 'comand'"
    )
    assert errors(tmp_path, 'name "w"\njob "a" {\n  command "x\n}\n', ".kdl") == [
        "3:3: this is not KDL: parse error in `command`."
    ]
    assert errors(tmp_path, KDL.replace('"b_1"', '"b_9"'), ".kdl")[0].startswith("26:47: there is no job called 'b_9'")


def test_without_its_parser_kdl_is_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ckdl", None)
    with pytest.raises(ConfigError, match=r"pip install 'pilotflow\[kdl\]'"):
        read(tmp_path, KDL, ".kdl")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("1:30", "1:30"), ("010", 10), ("0o10", 8), ("0x10", 16), ("+1", 1), ("1e3", 1000.0), (".5", 0.5),
        ("true", True), ("~", None), ("", None), ("!!str 5", "5"), ("!!float 5", 5.0), ("'5'", "5"), ("2026-11-28", "2026-11-28"),
        ("1.2.3", "1.2.3"), ("-", [None]), ("{a: 1, <<: {a: 2, b: 3}}", {"a": 1, "b": 3}), ("[&x 1, *x]", [1, 1]),
    ],
)  # fmt: skip
def test_yaml_has_the_types_of_its_later_version(text: str, value: object) -> None:
    reading = read_yaml(f"a: {text}\n" if text != "-" else "a:\n  -\n")
    assert (reading.value, reading.problems) == ({"a": value}, [])


TEXT = '{\n  "jobs": [\n    {"name": "a"},\n    {"name": "b",\n     "list": [1,\n  2]}]}'


@pytest.mark.parametrize("read_text", [read_yaml, read_json])
def test_places_are_found_when_they_are_needed(read_text: object) -> None:
    assert callable(read_text)
    reading: Reading = read_text(TEXT)
    assert reading.entries == {"jobs": [Mark(3, 5), Mark(4, 5)]}
    places = reading.locate({("jobs", 1, "list"), ("jobs", 1, "list", 1), ("jobs", 0)})
    assert places.of(("jobs", 1, "list"), key=True) == Mark(5, 6)
    assert places.of(("jobs", 1, "list", 1)) == Mark(6, 3)
    assert places.of(("jobs", 0, "no")) == Mark(3, 5)


def test_standard_input_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"name": "w", "jobs": [{"name": "a", "command": "x"}]}'))
    )
    assert [job.name for job in read_workflow("-").jobs] == ["a"]
