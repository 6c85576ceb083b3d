"""What a workflow would do, its graph and its schema, as a user meets them on the command line."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml

from pilotflow.cli.workflow_runs import Options, parse_options
from pilotflow.workflow.spec import read_workflow
from tests.command_line import ROOT, pilotflow

EXAMPLES = ROOT / "tests" / "workflows"
GOLDEN = ROOT / "tests" / "golden"
TRICKY = 'name: "a <b> \\"c\\""\njobs: [{name: "x \\"1\\" <&> `y`", command: x}, {name: z, command: x, depends_on_regexes: ["^x"]}]\n'


@pytest.mark.parametrize("name", ["diamond", "preprocess_then_train"])
def test_create_shows_jobs_requests_graph_and_allocations(name: str) -> None:
    done = pilotflow("create", "--dry-run", f"tests/workflows/{name}.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    golden = GOLDEN / f"create_{name}.txt"
    assert done.stdout == golden.read_text(encoding="utf-8")


def test_create_warns_on_the_other_stream_and_takes_nodes_from_a_configuration(tmp_path: Path) -> None:
    config = tmp_path / "site.yaml"
    config.write_text("executors: [{label: a, provider: {type: local}, num_cpus: 64, memory: 256g}]\n")
    done = pilotflow("create", "tests/workflows/totals_wrong.yaml", "--config", str(config))
    assert done.returncode == 0
    assert "tests/workflows/totals_wrong.yaml:4:5: warning: requirements 'mpi_job': num_cpus is 128" in done.stderr
    assert "write `num_cpus: 32` and `memory: 128g`" in done.stderr
    assert pilotflow("create", "tests/workflows/totals_wrong.yaml").stderr == ""


@pytest.mark.parametrize(
    ("minutes", "keep", "kept_s"), [(None, None, 3600.0), (5, None, 300.0), (0, None, 0.0), (5, "2h", 7200.0)]
)
def test_how_long_results_are_kept_is_said_by_the_command_line_or_else_by_the_file(
    tmp_path: Path, minutes: int | None, keep: str | None, kept_s: float
) -> None:
    key = "" if minutes is None else f"compute_node_wait_for_healthy_database_minutes: {minutes}\n"
    (tmp_path / "w.yaml").write_text(f"name: w\njobs: [{{name: a, command: x}}]\n{key}")
    options = parse_options(Options(here=True, keep=keep), read_workflow(tmp_path / "w.yaml"))
    assert options.keep_s == kept_s


def test_create_as_json_has_the_whole_workflow() -> None:
    done = pilotflow("create", "tests/workflows/parallel_analysis.yaml", "--json")
    data = json.loads(done.stdout)
    assert (data["valid"], data["job_count"], data["stage_counts"], data["steps"]) == (
        True,
        100,
        {"analyze_{i}": 100},
        1,
    )
    assert data["jobs"][99]["name"] == "analyze_100"
    assert data["jobs"][0]["request"]["cpus_milli"] == 8000
    assert data["slurm_schedulers"][0]["nodes"] == 4


def test_a_wrong_workflow_is_refused_with_all_errors_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("name: w\njobs: [{name: a, comand: x}]\nfoo: 1\n")
    for command in ("create", "graph"):
        done = pilotflow(command, str(path))
        assert (done.returncode, done.stdout) == (2, "")
        assert [line.partition(": ")[0] for line in done.stderr.splitlines()] == [f"{path}:2:18", f"{path}:3:1"]


def test_a_workflow_comes_from_standard_input_too() -> None:
    done = pilotflow("create", "-", stdin="name: w\njobs: [{name: a, command: x}]\n")
    assert done.stdout.startswith("-: workflow 'w', 1 job. Nothing is wrong.")


def test_graph_draws_jobs_as_mermaid_and_dot() -> None:
    mermaid = pilotflow("graph", "tests/workflows/diamond.yaml").stdout
    assert mermaid.splitlines()[:2] == ["flowchart LR", '  n0["fetch<br/>small"]']
    assert "  n1 --> n3" in mermaid
    dot = pilotflow("graph", "tests/workflows/diamond.yaml", "--format", "dot").stdout
    assert 'n0 [label="fetch\\nsmall"];' in dot
    assert dot.count("->") == mermaid.count("-->") == 6


def test_graph_writes_an_svg_that_is_whole_and_readable_offline(tmp_path: Path) -> None:
    output = tmp_path / "g.svg"
    done = pilotflow("graph", "-", "--output", str(output), stdin=TRICKY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"written: {output}\n")
    root = ET.parse(output).getroot()
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert texts == ['x "1" <&> `y`', "z"]
    assert sum(element.tag.endswith("path") and "marker-end" in element.attrib for element in root.iter()) == 1
    assert "http" not in output.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")


def test_names_with_special_characters_are_quoted_in_every_format() -> None:
    assert 'label="x \\"1\\" <&> `y`"' in pilotflow("graph", "-", "--format", "dot", stdin=TRICKY).stdout
    assert (
        '"x #quot;1#quot; #lt;&#gt; #96;y#96;"' in pilotflow("graph", "-", "--format", "mermaid", stdin=TRICKY).stdout
    )


def test_a_large_workflow_is_drawn_by_stages(tmp_path: Path) -> None:
    text = (
        "name: w\njobs:\n  - {name: 'a{i}', command: x, parameters: {i: '1:500'}}\n"
        "  - {name: 'b{i}', command: x, parameters: {i: '1:500'}, depends_on: ['a{i}']}\n"
    )
    drawn = pilotflow("graph", "-", stdin=text).stdout
    assert drawn == 'flowchart LR\n  n0["a{i} (500 jobs)"]\n  n1["b{i} (500 jobs)"]\n  n0 --> n1\n'
    assert pilotflow("graph", "-", "--by", "job", stdin=text).stdout.count("-->") == 500


def test_graph_says_which_formats_there_are() -> None:
    done = pilotflow("graph", "tests/workflows/diamond.yaml", "--format", "sgv")
    assert (done.returncode, done.stderr) == (
        2,
        "'sgv' is no format of graphs (did you mean 'svg'?). Valid: svg, dot, mermaid.\n",
    )
    assert pilotflow("graph", "tests/workflows/diamond.yaml", "--by", "x").returncode == 2
    done = pilotflow("graph", "tests/workflows/diamond.yaml", "-o", "/nowhere/g.svg")
    assert (done.returncode, done.stderr) == (2, "/nowhere/g.svg: cannot be written: No such file or directory.\n")


def test_the_schema_of_workflows_is_printed() -> None:
    schema = json.loads(pilotflow("schema", "workflow").stdout)
    assert schema["title"] == "pilotflow workflow"
    assert json.loads(pilotflow("schema").stdout)["title"] == "pilotflow configuration"
    done = pilotflow("schema", "flow")
    assert (done.returncode, done.stderr) == (2, "There is no schema of 'flow'. Valid: config, workflow, site.\n")


def test_a_file_in_another_format_is_printed_as_yaml(tmp_path: Path) -> None:
    path = tmp_path / "w.json5"
    path.write_text("{name: 'w', jobs: [{name: 'a', command: 'x',}]}")
    assert yaml.safe_load(pilotflow("convert", str(path)).stdout) == {
        "name": "w",
        "jobs": [{"name": "a", "command": "x"}],
    }
    path.write_text("{name: }")
    assert pilotflow("convert", str(path)).stderr == f"{path}:1:8: this is not JSON: expected a value, found '}}'.\n"


@pytest.mark.parametrize("command", ["run", "submit"])
def test_a_dry_run_says_the_same_and_starts_nothing(command: str, tmp_path: Path) -> None:
    path = str(EXAMPLES / "diamond.yaml")
    done = pilotflow(command, "--dry-run", path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, pilotflow("create", path, cwd=tmp_path).stdout)
    assert list(tmp_path.iterdir()) == []
