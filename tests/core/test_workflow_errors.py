"""What is wrong in a workflow's file is said in words, all of it at once, where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.errors import ConfigError
from pilotflow.workflow.spec import read_workflow
from tests.core.workflow_texts import errors, read

JOB = "name: w\njobs:\n  - {name: a, command: x"
ONE = f"{JOB}}}\n"

WRONG = [  # a text, what stands at the place that is blamed, how the words begin
    ('', '', 'the file is empty'),
    ('[1]', '[1]', 'a workflow is a mapping with `name` and `jobs`, this is a list'),
    ('name: w\njobs:\n  - name: a\n   command: b\n', 'command: b', 'this is not YAML: the indentation'),
    ('name: w\n\tjobs: []\n', '\tjobs: []', 'this is not YAML'),
    ('name: w: x\n', ': x', "this is not YAML: there is a ':' where none can be"),
    ('name: w\nname: v\njobs: [{name: a, command: x}]\n', 'name: v', "'name' is given twice, first in line 1"),
    ('name: !!python/object:os.system x\n', '!!python/objec', 'the tag !!python/object:os.system is not allowed'),
    ('name: w\njobs: *a\n', '*a', "there is no anchor '&a' above."),
    (ONE + '--- \nname: v\n', '--- ', 'a second document begins here'),
    ('name: w\njobs: &a\n  - {name: b, command: x}\n  - *a\n', '*a', 'an alias stands inside what it stands for'),
    ('name: w\njobs: [{name: a, command: "x\\0y"}]\n', '"x\\0y"}', 'a text cannot hold the character NUL'),
    ('name: w\n1: x\njobs: []\n', '1: x', 'a key must be text. Quote it.'),
    ('name: w\n', 'name: w', 'the workflow needs `jobs`.'),
    ('jobs:\n  - {name: a, command: x}\n', 'jobs:', 'the workflow needs `name`.'),
    ('name: w\njobs: []\n', '[]', 'there are no jobs.'),
    ('name: w\njobs: {name: a}\n', '{name: a}', "jobs: {'name': 'a'} is a mapping, expected a list"),
    (ONE + 'job_sort: none\n', 'job_sort: none', "there is no key 'job_sort' here (did you mean 'jobs_sort_method'?). Valid: name, jobs,"),
    (ONE + 'slurm_config: {}\n', 'slurm_config: ', "there is no section 'slurm_config': it has become 'execution_config'."),
    (JOB + ', comand: y}\n', 'comand: y}', "there is no key 'comand' here (did you mean 'command'?). Valid: name, command,"),
    ('name: w\njobs: [{command: x}]\n', '{command: x}', 'a job needs `name`.'),
    ('name: w\njobs: [5]\n', '5]', 'jobs: 5 is a number, expected a mapping'),
    ('name: w\njobs: [{name: a}]\n', '{name: a}', "job 'a' needs a `command`, or a `function`."),
    ("name: w\njobs: [{name: '', command: x}]\n", "'',", 'name: a name cannot be empty.'),
    ('name: w\njobs: [{name: 5, command: x}]\n', '5,', "name: 5 is a number, expected text. Quote it: '5'."),
    ("name: w\njobs: [{name: a, command: ' '}]\n", "' '}", 'command: this cannot be empty.'),
    (JOB + ', depends_on: a}\n', 'a}', "depends_on: 'a' is text, expected a list. Write [a]."),
    (JOB + ', depends_on: [1]}\n', '[1]', 'depends_on: entry 1, 1, is a number, expected text. Quote it.'),
    (JOB + ", retries: '2'}\n", "'2'}", "retries: '2' is text, expected a whole number. Write it without quotes."),
    (JOB + ', retries: -1}\n', '-1}', 'retries: -1 is out of range, expected at least 0.'),
    (JOB + ', supports_termination: yes}\n', 'yes}', "supports_termination: 'yes' is text, expected true or false. Write true"),
    (JOB + ', priority: -1}\n', '-1}', 'priority: -1 is negative'),
    (JOB + ', timeout: soon}\n', 'soon}', "timeout: 'soon' is not a duration. Write seconds"),
    (JOB + ', timeout: 0}\n', '0}', 'timeout: 0 leaves no time'),
    (JOB + ', env: {A B: x}}\n', '{A B: x}', "env: 'A B' cannot name a variable"),
    (JOB + ', env: {A: 1}}\n', '{A: 1}', 'env: A: 1 is a number, expected text. Quote it.'),
    (JOB + ', stdio: {mode: both}}\n', 'both}', "mode: 'both' is not known. Valid: separate, combined, no_stdout"),
    (JOB + ", function: 'm:f'}\n", 'command: x,', '`function` is there too; a job with a function has no command.'),
    (JOB + ', args: [1]}\n', 'args: [1]', '`args` belongs to a `function`'),
    ("name: w\njobs: [{name: a, function: 'm.f'}]\n", "'m.f'}", "function: 'm.f' does not name a function; write"),
    (JOB + ', scheduler: s, slurm_scheduler: s}\n', 'slurm_schedule', "'slurm_scheduler' is another name of 'scheduler', which is there"),
    (ONE + 'resource_requirements: [{name: r, memory: 5q}]\n', '5q}', "memory: '5q': 'q' is not a unit of memory."),
    (ONE + 'resource_requirements: [{name: r, memory: -1}]\n', '-1}', 'memory: -1'),
    (ONE + "resource_requirements: [{name: r, memory: ''}]\n", "''}", "memory: '' is not a memory size"),
    (ONE + 'resource_requirements: [{name: r, num_cpus: 0}]\n', '0}', 'num_cpus: 0: expected a number of cores above 0'),
    (ONE + 'resource_requirements: [{name: r, num_gpus: 1.5}]\n', '1.5}', 'num_gpus: 1.5: expected a whole number of GPUs'),
    (ONE + 'resource_requirements: [{name: r, num_nodes: 1.5}]\n', '1.5}', 'num_nodes: 1.5: is float'),
    (ONE + 'resource_requirements: [{name: r, runtime: 5 fortnights}]\n', '5 fortnights}', "runtime: '5 fortnights'"),
    (ONE + 'resource_requirements: [{name: r}, {name: r}]\n', 'r}', 'there is another entry of resource_requirements'),
    (JOB + ', resource_requirements: r}\n', 'r}', "there is no entry of resource_requirements called 'r'."),
    (JOB + ', depends_on: [b]}\n', 'b]', "there is no job called 'b'. Valid: a."),
    (JOB + ', depends_on: [a]}\n', 'a]', "job 'a' depends on itself."),
    (JOB + ", depends_on_regexes: ['^b']}\n", "'^b']", "'^b' matches no job. Valid: a."),
    (JOB + ", depends_on_regexes: ['(']}\n", "'(']", "'(' is not a regular expression: missing )"),
    (JOB + ', scheduler: s}\n', 's}', "there is no scheduler called 's'."),
    (JOB + ', failure_handler: s}\n', 's}', "there is no failure handler called 's'."),
    (JOB + ', input_files: [f]}\n', 'f]', "there is no file called 'f'."),
    (JOB + ', output_file_regexes: [f]}\n', 'f]', "'f' matches no file."),
    (JOB + ', input_user_data: [f]}\n', 'f]', "there is no user data called 'f'."),
    ("name: w\njobs: [{name: a, command: 'cat ${files.input.f}'}]\n", "'cat ${files.i", "there is no file called 'f'."),
    ("name: w\njobs: [{name: a, command: 'cat ${file.input.f}'}]\n", "'cat ${file.in", '${file.input.f} is not known. Valid: ${files.'),
    (JOB + ', input_user_data: [u]}\nuser_data: [{name: u}]\n', '{name: u}', "user data 'u' is read, but has no `data`, and no job"),
    (ONE + '  - {name: a, command: y}\n', 'a,', "there is another job called 'a', entry 1; names must be unique."),
    (ONE + 'files: [{name: f, path: x, identifier: i}, {name: g, path: y, identifier: i}]\n', 'i}', 'there is another identifier'),
    (JOB + ', depends_on: [c]}\n  - {name: b, command: x, depends_on: [a]}\n  - {name: c, command: x, depends_on: [b]}\n', '{name: a,', 'these jobs wait for each other: a needs c needs b needs a.'),
    ('name: w\nfiles: [{name: f, path: f}, {name: g, path: g}]\njobs:\n  - {name: a, command: x, input_files: [f], output_files: [g]}\n  - {name: b, command: x, input_files: [g], output_files: [f]}\n', '{name: a,', 'these jobs wait for each other: a needs b needs a.'),
    (JOB + ", parameters: {i: '1:2:3:4'}}\n", "{i: '1:2:3:4'}", "i: '1:2:3:4' is not a range; write"),
    (JOB + ", parameters: {i: '1:9:0'}}\n", "{i: '1:9:0'}", "i: '1:9:0': a step of 0 never arrives."),
    (JOB + ', parameters: {i: []}}\n', '{i: []', 'i: no values, so there would be nothing to run.'),
    (JOB + ', parameters: {i: [[1]]}}\n', '{i: [[1]', 'i: [1] is no value of a parameter'),
    (JOB + ", parameters: {i: '1:99999999999'}}\n", "{i: '1:9999999", "i: '1:99999999999' has 99,999,999,999 values; the limit is"),
    (JOB + ", parameters: {i: '1:9999', j: '1:9999'}}\n", "{i: '1:9999',", '9999 x 9999 = 99,980,001 copies; the limit is'),
    (JOB + ", parameters: {i: '1:2', j: '1:3'}, parameter_mode: zip}\n", "{i: '1:2',", 'zip takes parameters of equal length: i has 2, j has 3.'),
    (JOB + ", parameters: {i: '1:2'}}\n", 'a,', "several jobs of this entry are called 'a': no parameter is in the name."),
    ("name: w\njobs: [{name: 'a{i}', command: x, parameters: {i: '1:2', j: '1:2'}}]\n", "'a{i}", "several jobs of this entry are called 'a1': its parameter 'j' is not in the name (write {j} in it)."),
    (JOB + ", use_parameters: [k]}\nparameters: {i: '1:2'}\n", '[k]', "the workflow's `parameters` have no 'k'; they have: i."),
    (JOB + ', parameters_file: no.csv}\n', 'no.csv}', "the table 'no.csv' cannot be read: No such file"),
    (JOB + ', use_parameters_file: true}\n', 'true}', 'the workflow has no `parameters_file`'),
    (JOB + ', parameters_file: t.csv, parameters: {i: 1}}\n', 'parameters_fil', '`parameters` is there too; an entry has one or the other.'),
    (ONE + "variables: {v: '{w}'}\n", "'{w}", "v: a variable's value cannot hold {w}"),
    (ONE + "variables: {'a-b': x}\n", "'a-b': x}", "'a-b' cannot name a variable"),
    (JOB + ", cwd: '{vv}'}\nvariables: {v: x}\n", "'{vv}", "{vv} is neither a variable nor a parameter (did you mean 'v'?)."),
    (JOB + ', parameters: {v: [1]}}\nvariables: {v: x}\n', 'v: x}', "'v' is a parameter too; rename one of them."),
    (ONE + 'failure_handlers: [{name: h, rules: [{}]}]\n', '{}', 'this rule takes no exit code'),
    (ONE + 'failure_handlers: [{name: h, rules: []}]\n', '[]', "failure handler 'h' has no rules."),
    (ONE + 'failure_handlers: [{name: h, rules: [{exit_codes: [0]}]}]\n', '[0]', 'exit code 0 is success'),
    (ONE + 'failure_handlers: [{name: h, rules: [{exit_codes: [999]}]}]\n', '999]', 'exit_codes: 999 is out of range'),
    (ONE + 'slurm_schedulers: [{name: s, walltime: 4 moons}]\n', '4 moons}', "walltime: '4 moons' is not a walltime. Write"),
    (ONE + 'slurm_schedulers: [{name: s, num_nodes: 4}]\n', 'num_nodes: 4}', "there is no key 'num_nodes' here (did you mean 'nodes'?)"),
    (ONE + 'slurm_defaults: {Partition: p, mem: 4}\n', 'Partition: p,', "'Partition' cannot be a default"),
    (ONE + 'actions: [{trigger_type: on_job_ready, action_type: run_commands}]\n', 'on_job_ready,', "trigger_type: 'on_job_ready' is not known (did you mean 'on_jobs_ready'?)"),
    (ONE + 'actions: [{trigger_type: on_jobs_ready, action_type: run_commands, commands: [x]}]\n', '{trigger_type:', '`on_jobs_ready` needs `jobs`'),
    (ONE + 'actions: [{trigger_type: on_workflow_start, action_type: run_commands}]\n', '{trigger_type:', '`run_commands` needs `commands`'),
    (ONE + 'actions: [{trigger_type: on_workflow_start, action_type: schedule_nodes}]\n', '{trigger_type:', '`schedule_nodes` needs `scheduler`'),
    (ONE + 'actions: [{trigger_type: on_jobs_ready, action_type: run_commands, commands: [x], jobs: [b]}]\n', 'b]', "there is no job called 'b'"),
    (ONE + 'actions: [{trigger_type: on_jobs_ready, action_type: run_commands, commands: [x], job_name_regexes: [b]}]\n', 'b]', "'b' matches no job"),
    (ONE + 'execution_config: {mode: slurm, limit_resources: false}\n', 'limit_resource', '`limit_resources` is for `mode: direct`'),
    (ONE + 'execution_config: {mode: direct, enable_cpu_bind: true}\n', 'enable_cpu_bin', '`enable_cpu_bind` is for `mode: slurm`'),
    (ONE + 'execution_config: {termination_signal: FOO}\n', 'FOO}', "termination_signal: 'FOO' is not a signal"),
    (ONE + "execution_config: {srun_termination_signal: 'TERM at 9'}\n", "'TERM at 9'}", "srun_termination_signal: 'TERM at 9'"),
    (ONE + "execution_config: {srun_mpi: 'pmix; rm'}\n", "'pmix; rm'}", "srun_mpi: 'pmix; rm' is not what srun's --mpi takes"),
    (ONE + 'execution_config: {job_stdio_overrides: {b: {}}}\n', '{}', "there is no job called 'b'"),
    (ONE + 'execution_config: {mode: auto}\nslurm_schedulers: [{name: s}]\nactions:\n  - {trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, start_one_worker_per_node: true}\n', 'true}', 'one worker per node needs `execution_config: {mode: direct}`'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "at", "words"), WRONG, ids=[words[:60] for _, _, words in WRONG])
def test_a_mistake_is_named_where_it_is(text: str, at: str, words: str, tmp_path: Path) -> None:
    lines = text.split("\n")
    found = []
    for each in errors(tmp_path, text):
        line, column, said = each.split(":", maxsplit=2)
        found.append((lines[int(line) - 1][int(column) - 1 :], said.strip()))
    assert any(said.startswith(words) and place.startswith(at) for place, said in found), found


def test_everything_is_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "name: 1\njobs:\n  - {name: a, comand: x}\n  - {name: b, command: x, depends_on: [c]}\n"
        "  - {name: d, command: x, resource_requirements: smal}\n"
        "resource_requirements: [{name: small}, {name: large, memory: 5q}]\nactions: 5\nexecution_config: {mode: x}\n"
    )
    found = errors(tmp_path, text)
    lines = [int(each.partition(":")[0]) for each in found]
    assert lines == sorted(lines)
    assert set(lines) == {1, 3, 6, 7, 8}  # who names a job or requirements that may be a broken one is not blamed


def test_what_many_copies_have_wrong_is_said_once_with_their_number(tmp_path: Path) -> None:
    text = "name: w\njobs: [{name: 'a{i}', command: x, depends_on: ['b{i}'], parameters: {i: '1:100'}}]\n"
    assert errors(tmp_path, text) == ["2:48: there is no job called 'b1'. The same holds for 99 more."]


def test_no_more_than_fifty_lines_are_written(tmp_path: Path) -> None:
    text = "name: w\njobs:\n" + "".join(f"  - {{name: a{number}, comand: x}}\n" for number in range(80))
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_workflow(path)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[-1]) == (51, f"{path}: and 30 more.")


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    read(tmp_path, ONE)
    with pytest.raises(ConfigError, match=r"w\.yml: there is no such file \(did you mean '.*w\.yaml'\?\)"):
        read_workflow(tmp_path / "w.yml")
    with pytest.raises(ConfigError, match="is a directory"):
        read_workflow(tmp_path)
    with pytest.raises(ConfigError, match="there is no directory"):
        read_workflow(tmp_path / "no" / "w.yaml")


def test_a_name_holds_no_line_breaks_whether_written_or_from_a_parameter(tmp_path: Path) -> None:
    (said,) = errors(tmp_path, 'name: w\njobs: [{name: "a\\nb", command: x}]\n')
    assert said.startswith("2:15: 'a\\nb' cannot be the name of a job")
    (said,) = errors(tmp_path, 'name: w\njobs: [{name: "{i}", command: x, parameters: {i: ["a\\tb", " "]}}]\n')
    assert said.startswith("2:15: 'a\\tb' cannot be the name of a job")
    assert said.endswith("The same holds for 1 more.")


def test_a_message_stays_on_its_line_whatever_is_in_the_file(tmp_path: Path) -> None:
    text = f'name: w\njobs: [{{name: a, command: x, depends_on: ["b\\nc\\e[31m", "{"d" * 5000}"]}}]\n'
    first, second = errors(tmp_path, text)
    assert "there is no job called 'b\\nc\\x1b[31m'." in first
    assert len(second) < 1600


def test_a_file_of_bytes_is_refused_where_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_bytes(b"name: w\njobs: \xff\n")
    with pytest.raises(ConfigError, match=r"w\.yaml:2:7: byte 0xff is no UTF-8"):
        read_workflow(path)


def test_a_few_lines_that_stand_for_billions_of_values_are_refused(tmp_path: Path) -> None:
    lines = ["name: w", "metadata:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    found = errors(tmp_path, "\n".join([*lines, "jobs: [{name: a, command: x}]", ""]))
    assert "aliases stand for more than 500000 values" in found[0]


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    for suffix in (".yaml", ".json"):
        found = errors(tmp_path, f'{{"name": "w", "metadata": {"[" * 3000}{"]" * 3000}, "jobs": []}}', suffix)
        assert "nest" in found[0]
    assert errors(tmp_path, "a {\n" * 3000 + "}\n" * 3000, ".kdl") == ["65:3: nodes are nested more than 64 deep."]
