"""Parameters multiply entries, in the order in which they are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotflow.workflow.parameters import Copies, combine, values_of, written
from tests.core.workflow_texts import errors, read, warnings


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1:5", [1, 2, 3, 4, 5]), ("0:10:5", [0, 5, 10]), ("0:9:5", [0, 5]), ("5:1:-2", [5, 3, 1]), ("3:1", []), ("7:7", [7]),
        ("0.0:1.0:0.25", [0.0, 0.25, 0.5, 0.75, 1.0]), ("0:0.3:0.1", [0.0, 0.1, 0.2, 0.3]), ("1.5:3.5", [1.5, 2.5, 3.5]),
        ("[1,2.5,'a',b, \"c\"]", [1, 2.5, "a", "b", "c"]), ([1, "x", True, 2.5], [1, "x", "true", 2.5]), ("{1:3}", [1, 2, 3]),
        ("adam", ["adam"]), ("5", [5]), (5, [5]), ("0.1", [0.1]), ("", [""]), ("[]", []),
    ],
)  # fmt: skip
def test_every_form_of_values_is_known(text: object, values: list[object]) -> None:
    assert values_of(text) == values


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (7, None, "7"), (7, "03d", "007"), (-7, "03d", "-07"), (7, ".2f", "7"), (0.5, None, "0.5"), (0.5, ".3f", "0.500"),
        (1.0, None, "1"), (0.00001, None, "0.00001"), (1e20, None, "100000000000000000000"), (0.5, "03d", "0.5"), ("x", "03d", "x"),
        (5, "099999d", "5"),
    ],
)  # fmt: skip
def test_a_value_is_written_as_its_format_says(value: float | str, form: str | None, text: str) -> None:
    assert written(value, form) == text


def test_the_last_parameter_changes_fastest(tmp_path: Path) -> None:
    text = (
        "name: w\njobs: [{name: 'j_{a}_{b:02d}', command: 'x {b} {a} ${a} {c}', parameters: {a: [x, y], b: '1:2'}}]\n"
    )
    jobs = read(tmp_path, text).jobs
    assert [job.name for job in jobs] == ["j_x_01", "j_x_02", "j_y_01", "j_y_02"]
    assert jobs[1].command == "x 2 x ${a} {c}"


def test_zip_goes_through_parameters_together(tmp_path: Path) -> None:
    text = "name: w\njobs: [{name: 'j_{a}{b}', command: x, parameter_mode: zip, parameters: {a: [x, y], b: '1:2'}}]\n"
    assert [job.name for job in read(tmp_path, text).jobs] == ["j_x1", "j_y2"]


def test_values_reach_every_text_of_a_job(tmp_path: Path) -> None:
    text = """\
name: w
parameters: {i: "1:2", unused: "1:9"}
resource_requirements: [{name: r1, num_cpus: 1}, {name: r2, num_cpus: 2}]
slurm_schedulers: [{name: s1}, {name: s2}]
files: [{name: "f{i}", path: "p{i}", use_parameters: [i], identifier: "id{i}"}]
user_data: [{name: "u{i}", data: {k: ["v{i}", 3]}, use_parameters: [i]}]
jobs:
  - {name: "first{i}", command: "x", use_parameters: [i], output_files: ["f{i}"]}
  - name: j{i}
    command: "a{i}"
    invocation_script: "s{i}"
    resource_requirements: r{i}
    scheduler: s{i}
    executors: ["e{i}"]
    env: {V: "{i}"}
    cwd: d{i}
    stdin: in{i}
    label: l{i}
    input_files: ["f{i}"]
    input_user_data_regexes: ["^u{i}$"]
    depends_on_regexes: ["^first{i}"]
    use_parameters: [i]
"""
    workflow = read(tmp_path, text)
    job = workflow.jobs[3]
    assert (job.name, job.command, job.invocation_script, job.requirements) == ("j2", "a2", "s2", "r2")
    assert (job.request.cpus_milli, job.scheduler, job.executors) == (2000, 1, ("e2",))
    assert (job.env, job.cwd, job.stdin, job.label) == ((("V", "2"),), "d2", "in2", "l2")
    assert (job.input_files, job.input_user_data, job.depends_on) == ((1,), (1,), (1,))
    assert workflow.user_data[1].data == {"k": ["v2", 3]}
    assert (workflow.files[1].path, workflow.files[1].identifier) == ("p2", "id2")


def test_arguments_of_functions_keep_the_type_of_their_values(tmp_path: Path) -> None:
    text = (
        "name: w\njobs: [{name: 'j{i}', function: 'm:f', args: ['{i}', 'n{i}', [1, '{i}']], kwargs: {a: {b: '{i}'}}, "
        "parameters: {i: [1, 2.5]}}]\n"
    )
    calls = [job.function for job in read(tmp_path, text).jobs]
    assert calls[1] is not None
    assert (calls[1].args, calls[1].kwargs) == ((2.5, "n2.5", [1, 2.5]), {"a": {"b": 2.5}})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "i,word\n1,one\n2,two\n"),
        ("t.json", '[{"i": 1, "word": "one"}, {"i": 2, "word": "two"}]'),
        ("t.jsonl", '{"i": 1, "word": "one"}\n{"i": 2, "word": "two"}\n'),
    ],
)
def test_the_rows_of_a_table_are_copies(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    own = f"name: w\njobs: [{{name: 'j{{i:02d}}', command: '{{word}}', parameters_file: {name}}}]\n"
    shared = f"name: w\nparameters_file: {name}\njobs: [{{name: 'j{{i:02d}}', command: '{{word}}', use_parameters_file: true}}]\n"
    for workflow in (read(tmp_path, own), read(tmp_path, shared)):
        assert [(job.name, job.command) for job in workflow.jobs] == [("j01", "one"), ("j02", "two")]


def test_a_table_with_a_row_that_is_different_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("i,j\n1,2\n3,4,5\n")
    text = "name: w\njobs: [{name: 'j{i}', command: x, parameters_file: t.csv}]\n"
    assert "cannot be read: row 2 has 3 values for 2 columns." in errors(tmp_path, text)[0]
    (tmp_path / "t.json").write_text('[{"i": 1, "j": 2}, {"i": 3, "k": 4}]')
    text = text.replace("csv", "json")
    assert "row 2 of the table 't.json' has other columns than the first: j, k." in errors(tmp_path, text)[0]


def test_variables_come_before_parameters_and_leave_the_shell_alone(tmp_path: Path) -> None:
    text = (
        "name: '{project}'\nvariables: {project: demo, count: 3, last: '{count}'}\n"
        "jobs: [{name: 'j{i}', command: 'run {project} {i} ${project} {not a name}', parameters: {i: '1:{count}'}}]\n"
    ).replace(", last: '{count}'", "")
    workflow = read(tmp_path, text)
    assert (workflow.name, len(workflow.jobs)) == ("demo", 3)
    assert workflow.jobs[2].command == "run demo 3 ${project} {not a name}"


def test_a_name_that_is_nearly_a_parameter_is_pointed_out(tmp_path: Path) -> None:
    text = "name: w\njobs: [{name: 'j{index}', command: 'run {indx}', parameters: {index: '1:2'}}]\n"
    assert warnings(tmp_path, text) == ["2:36: {indx} is no parameter (did you mean 'index'?). It stays as it is."]


@given(st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 9), min_size=1, max_size=4), max_size=3))
def test_copies_are_all_combinations(parameters: dict[str, list[int]]) -> None:
    copies = combine(parameters, None)
    seen = [copies.of(index) for index in range(copies.count)]
    expected: list[dict[str, int]] = [{}]
    for name, values in parameters.items():
        expected = [{**before, name: value} for before in expected for value in values]
    assert seen == expected


@given(st.text(alphabet="{}a:$0d1 ", max_size=12))
def test_any_text_can_be_a_template(text: str) -> None:
    made = Copies(2, {"a": [1, 2]}, {"a": [0, 1]}).column(text)
    assert isinstance(made, str) or len(made) == 2
