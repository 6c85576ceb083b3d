"""Whatever is wrong in a file is reported with its line and column, all of it at once."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.config.file import load_config
from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.errors import ConfigError
from pilotflow.providers.local import LocalProvider

ROOT = Path(__file__).resolve().parents[2]

WHOLE = """\
executors:
  - label: cpu
    max_workers_per_node: 2
    provider: {type: local, max_blocks: 2, walltime: 1:30:00}
    launcher: {type: single_node}
  - label: io
    max_parallel_jobs: 16
    launcher: single_node
    provider: local
run_dir: elsewhere
max_idletime: 30s
max_message_bytes: 1g
"""


def loaded(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path)


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    """The error's lines, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    lines = str(caught.value).splitlines()
    start = f"{tmp_path}/c.yaml:"
    assert all(line.startswith(start) for line in lines)
    return [line[len(start) :] for line in lines]


def test_a_file_gives_the_same_configuration_as_python(tmp_path: Path) -> None:
    assert loaded(tmp_path, WHOLE) == Config(
        executors=[
            ExecutorConfig(
                label="cpu", max_workers_per_node=2, provider=LocalProvider(max_blocks=2, walltime="1:30:00")
            ),
            ExecutorConfig(label="io", max_parallel_jobs=16),
        ],
        run_dir="elsewhere",
        max_idletime=30,
        max_message_bytes="1g",
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"executors": [{"label": "a"}], "retries": 1}',
        '{\n\t"executors": [\n\t\t{"label": "a"}\n\t],\n\t"retries": 1\n}',
        "\ufeffexecutors: [{label: a}]\nretries: 1\n",
        "executors: [{label: a}]\r\nretries: 1\r\n",
        "---\nexecutors:\n- label: a\nretries: 0x1\n...\n",
        "executors: [&one {label: a}]\nretries: 01\n",
    ],
    ids=["json", "json with tabs", "byte order mark", "crlf", "document marks", "leading zero"],
)
def test_json_and_other_ways_to_write_it_are_read(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text) == Config(executors=[ExecutorConfig(label="a")], retries=1)


def test_aliases_and_merges_are_followed(tmp_path: Path) -> None:
    text = """\
executors:
  - &base
    label: a
    max_workers_per_node: 3
    provider: &p {type: local, max_blocks: 4}
  - <<: *base
    label: b
  - {label: c, provider: {<<: [*p], init_blocks: 0}}
"""
    config = loaded(tmp_path, text)
    assert [executor.label for executor in config.executors] == ["a", "b", "c"]
    assert config.block_executors[1].max_workers_per_node == 3
    assert config.block_executors[2].provider == LocalProvider(max_blocks=4, init_blocks=0)


E = "executors: [{label: a}]\n"
MALFORMED: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "1:1: the file is empty."),
    ("only a comment", "# nothing\n", "1:1: the file is empty."),
    ("a list", "- a\n", "1:1: ['a'] is a list, expected keys and values (executors, run_dir,"),
    ("a word", "hello\n", "1:1: 'hello' is str, expected keys and values"),
    ("binary", b"\x7fELF\x02\x01\x00\xff\xfe", "1:8: this is not UTF-8 text (byte 0xff)."),
    ("a null character", b"retries: 1\nrun_dir: a\x00b\n", "2:11: character U+0000 is not allowed in YAML"),
    ("latin-1", "retries: 1\nrun_dir: caf\xe9\n".encode("latin-1"), "2:13: this is not UTF-8 text (byte 0xe9)."),
    ("a tab", "executors:\n\t- label: a\n", "2:1: a tab is no indentation in YAML; use spaces."),
    ("an open bracket", "executors: [\n", "2:1: this is not YAML: expected the node content"),
    ("an open quote", "run_dir: 'a\n", "2:1: this is not YAML: found unexpected end of stream"),
    ("bad indentation", "executors:\n  - label: a\n   max: 2\n", "3:4: this is not YAML: the indentation does not fit"),
    ("two documents", "retries: 1\n---\nretries: 2\n", "2:1: this is not YAML: but found another document"),
    ("an unknown alias", "executors: *nothing\n", "1:12: this is not YAML: found undefined alias 'nothing'"),
    (
        "an object",
        "run_dir: !!python/object/apply:os.getcwd []\n",
        "1:10: the tag !!python/object",
    ),
    ("a tag of one's own", "run_dir: !env HOME\n", "1:10: the tag !env is not allowed here; write plain values."),
    ("a false tag", "retries: !!int many\n", "1:10: 'many' is not a valid int."),
    ("a huge number", "retries: " + "9" * 5000, "1:10: '999"),
    ("half a character", '{"run_dir": "\\ud800"}', "1:13: '\\ud800' is not a valid str."),
    ("nested deeply", "[" * 5000, "1:1: lists and mappings are nested too deeply."),
    ("too large", "# " + "x" * 300_000, "1:1: the file is larger than the limit of 256 KiB"),
    ("an endless alias", "executors: &a [*a]\n", "1:12: an alias stands inside what it stands for."),
    ("a key twice", "retries: 1\nretries: 2\n", "2:1: 'retries' is given twice, first in line 1."),
    ("a key that is a number", "1: 2\n", "1:1: a key must be text. Quote it."),
    ("a key that is a list", "? [a]\n: 2\n", "1:3: a key must be text."),
    ("a merge of a word", "<<: a\n" + E, "1:5: '<<' takes a mapping or a list of mappings."),
    (
        "an unknown key",
        "retrys: 1\n",
        "1:1: retrys: there is no such key (did you mean 'retries'?). Valid: executors, run",
    ),
    ("an unknown key far off", "xyzzy: 1\n", "1:1: xyzzy: there is no such key. Valid: executors"),
    ("text for a number", "retries: many\n", "1:10: retries: 'many' is str, expected int."),
    ("a truth for a number", "retries: true\n", "1:10: retries: true is bool, expected int."),
    ("a number for a path", "run_dir: 3\n", "1:10: run_dir: 3 is int, expected str."),
    ("null for a number", "crash_limit:\n", "1:13: crash_limit: null is None, expected int."),
    ("yes for true", "encrypted: yes\n", "1:12: encrypted: 'yes' is str, expected true or false. Write true without"),
    ("off for false", "store: off\n", "1:8: store: 'off' is str, expected true or false. Write false without"),
    ("a word of YAML for text", "run_dir: a: b\n", "1:11: this is not YAML: there is a ':' where none can be."),
    ("a tag within a list", "executors: [{label: a}, !x {label: b}]\n", "1:25: the tag !x is not allowed here"),
    ("a tag for a type", "executors: [{provider: {type: !x local}}]\n", "1:31: the tag !x is not allowed here"),
    ("a bad duration", "max_idletime: soon\n", "1:15: max_idletime: 'soon' is not a duration. Write seconds (90"),
    ("a misspelt unit", "max_idletime: 5 minuts\n", "'minuts' is not a unit of time (did you mean 'minutes'?)."),
    ("a bad size", "max_message_bytes: 4x\n", "1:20: max_message_bytes: '4x': 'x' is not a unit of memory."),
    ("out of range", "crash_limit: 0\n", "1:14: crash_limit: 0 is not a whole number from 1 to"),
    ("executors: null", "executors:\n", "1:11: executors: None is nothing, expected a list of executors"),
    ("no executors", "executors: []\n", "1:12: executors: is empty. A run needs at least one executor."),
    ("executors as a mapping", "executors: {a: b}\n", "1:12: executors: {'a': 'b'} is a mapping, expected a list"),
    (
        "an executor as a word",
        "executors: [cpu]\n",
        "1:13: executors[0]: 'cpu' is str, expected keys and values (label,",
    ),
    ("a label twice", "executors:\n- {label: a}\n- {label: a}\n", "3:11: executors[1].label: the label 'a' is already"),
    ("no label twice", "executors: [{}, {}]\n", "1:17: executors[1]: it has no label, and the default 'local' is alr"),
    ("a bad label", "executors: [{label: a b}]\n", "1:21: executors[0].label: 'a b' is no label. Use letters"),
    ("a number as a label", "executors: [{label: 3}]\n", "1:21: executors[0].label: 3 is int, expected str."),
    (
        "both limits",
        "executors:\n  - label: a\n    max_workers_per_node: 2\n    max_parallel_jobs: 2\n",
        "4:24: executors[0].max_parallel_jobs: executor 'a' has both, and they exclude each other.",
    ),
    ("no type", "executors: [{provider: {max_blocks: 2}}]\n", "1:24: executors[0].provider: `type` is missing."),
    (
        "an empty provider",
        "executors: [{provider: }]\n",
        "executors[0].provider: None is nothing, expected the type of",
    ),
    ("a number as a type", "executors: [{provider: {type: 3}}]\n", "1:31: executors[0].provider.type: 3 is int, expec"),
    (
        "an unknown provider",
        "executors: [{provider: {type: locl}}]\n",
        "1:31: executors[0].provider.type: there is no provider 'locl' (did you mean 'local'?). Valid: local, slurm, or",
    ),
    (
        "an unknown launcher",
        "executors: [{launcher: srn}]\n",
        "1:24: executors[0].launcher: there is no launcher 'srn' (did you mean 'srun'?).",
    ),
    (
        "a provider as a launcher",
        "executors: [{launcher: 'pilotflow.providers.local:LocalProvider'}]\n",
        "is not a subclass of pilotflow.launchers.base.Launcher.",
    ),
    (
        "a key the provider has not",
        "executors: [{provider: {type: local, max_block: 2}}]\n",
        "1:38: executors[0].provider.max_block: there is no such key (did you mean 'max_blocks'?). Valid: type, nodes",
    ),
    (
        "a key the launcher has not",
        "executors: [{launcher: {type: single_node, ranks: 2}}]\n",
        "1:44: executors[0].launcher.ranks: there is no such key. Valid: type.",
    ),
    (
        "a private field of the provider",
        "executors: [{provider: {type: local, _blocks: {}}}]\n",
        "executors[0].provider._blocks: there is no such key",
    ),
    (
        "a provider's wrong type",
        "executors: [{provider: {type: local, max_blocks: two}}]\n",
        "1:50: executors[0].provider.max_blocks: 'two' is str, expected int.",
    ),
    (
        "a provider's wrong value",
        "executors: [{provider: {type: local, parallelism: 3}}]\n",
        "1:51: executors[0].provider.parallelism: 3 is not a number between 0 and 1.",
    ),
    (
        "a provider's values that do not go together",
        "executors: [{provider: {type: local, max_blocks: 0}}]\n",
        "1:50: executors[0].provider.max_blocks: init_blocks=1 is above max_blocks=0.",
    ),
    (
        "a provider's bad walltime",
        "executors: [{provider: {type: local, walltime: 1:30}}]\n",
        "1:48: executors[0].provider.walltime: '1:30' could be hours and minutes or minutes and seconds.",
    ),
]


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
def test_what_is_wrong_is_said_where_it_is(tmp_path: Path, text: str | bytes, words: str) -> None:
    lines = problems(tmp_path, text)
    assert words in lines[0]
    assert len(lines) == 1


def test_everything_that_is_wrong_is_said_at_once_in_order(tmp_path: Path) -> None:
    text = """\
executors:
  - label: a b
    provider: {type: local, max_blocks: two, init_blocks: -1, min_blocks: 3, nodes: 2}
    launcher: {type: srn}
  - label: c
    max_workers_per_node: 0
    max_workers_per_node: 1
retrys: 1
heartbeat_limit: 0
encrypted: "no"
crash_limit: 0
"""
    assert [line.split(": ")[:2] for line in problems(tmp_path, text)] == [
        ["2:12", "executors[0].label"],
        ["3:41", "executors[0].provider.max_blocks"],
        ["3:59", "executors[0].provider.init_blocks"],
        ["3:78", "executors[0].provider.nodes"],
        ["4:22", "executors[0].launcher.type"],
        ["6:27", "executors[1].max_workers_per_node"],
        ["7:5", "'max_workers_per_node' is given twice, first in line 6."],
        ["8:1", "retrys"],
        ["9:18", "heartbeat_limit"],
        ["10:12", "encrypted"],
        ["11:14", "crash_limit"],
    ]


def test_what_only_follows_from_another_mistake_is_not_said(tmp_path: Path) -> None:
    text = "executors: [{provider: {type: local, init_blocks: 2, max_blocks: four}}]\n"
    assert len(problems(tmp_path, text)) == 1


def test_a_bomb_of_aliases_is_found_before_it_goes_off(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    found = problems(tmp_path, "\n".join(lines))
    assert any("aliases expand to more than 20000 values" in line for line in found)


def test_a_bomb_of_merges_is_found_before_it_goes_off(tmp_path: Path) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 60)]
    found = problems(tmp_path, "\n".join(lines))
    assert any("aliases expand to more than 20000 values" in line for line in found)


def test_a_thousand_mistakes_are_summed_up(tmp_path: Path) -> None:
    text = "\n".join(f"key{i}: 1" for i in range(1000))
    with pytest.raises(ConfigError, match=r"c\.yaml: and 950 more\.$"):
        loaded(tmp_path, text)


PLUGIN = """\
from dataclasses import dataclass
from pilotflow.launchers.base import Launcher
from pilotflow.providers.local import LocalProvider

@dataclass(frozen=True, kw_only=True)
class Site(LocalProvider):
    partition: str
    hosts: tuple[str, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.partition == "explode":
            raise RuntimeError("boom")

class Old(Launcher):
    def __init__(self, hosts: list[str], retries=3):
        self.hosts = hosts

    def wrap(self, command, nodes):
        return ""
"""


def test_fields_of_a_foreign_plugin_are_read_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_test_site.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    text = "executors: [{{provider: {{type: 'my_test_site:Site', {}}}, launcher: {{type: 'my_test_site:Old', {}}}}}]\n"
    executor = loaded(tmp_path, text.format("partition: gpu, hosts: [a, b]", "hosts: [c]")).block_executors[0]
    assert executor.provider.partition == "gpu"  # type: ignore[attr-defined]
    assert executor.provider.hosts == ("a", "b")  # type: ignore[attr-defined]
    assert executor.launcher.hosts == ["c"]  # type: ignore[attr-defined]
    found = problems(tmp_path, text.format("hosts: [1]", "hosts: a"))
    assert [line.partition(": ")[2] for line in found] == [
        "executors[0].provider: partition: missing, and there is no default.",
        "executors[0].provider.hosts: (1,) is not tuple[str, ...]: item 0 of tuple is not an instance of str.",
        "executors[0].launcher.hosts: 'a' is str, expected list[str].",
    ]
    found = problems(tmp_path, text.format("partition: explode", "hosts: [a], other: 1"))
    assert "executors[0].provider: Site cannot be made: RuntimeError: boom." in found[0]
    assert "executors[0].launcher.other: there is no such key. Valid: type, hosts, retries." in found[1]


def test_a_file_that_is_not_there_is_said_with_the_one_that_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "local.yaml").touch()
    with pytest.raises(ConfigError, match=r"locale\.yaml: there is no such file \(did you mean '.*/local\.yaml'"):
        load_config(tmp_path / "locale.yaml")
    with pytest.raises(ConfigError, match=r"c\.yaml: there is no such file; there is no directory .*/nowhere either"):
        load_config(tmp_path / "nowhere" / "c.yaml")
    with pytest.raises(ConfigError, match="there is no such file"):
        load_config(tmp_path / "nowhere" / ("x" * 20))


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    with pytest.raises(ConfigError, match=r": is a directory, expected a YAML file, such as .*/a\.yaml"):
        load_config(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "local.yaml/x"])
def test_a_name_that_cannot_be_one_is_refused_with_words(tmp_path: Path, name: str) -> None:
    (tmp_path / "local.yaml").touch()
    with pytest.raises(ConfigError, match="cannot be read: "):
        load_config(f"{tmp_path}/{name}")


def test_a_file_that_cannot_be_read_is_said() -> None:
    with pytest.raises(ConfigError, match=r"/proc/self/mem.*cannot be read: "):
        load_config("/proc/self/mem")  # which nobody can read from its start, not even root


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="/dev/zero:1:1: "):
        load_config("/dev/zero")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_configuration_or_a_config_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        load_config(path)
    except ConfigError as error:
        said = str(error)
    else:
        said = f"{path}:"
    assert said.startswith(f"{path}:")


@pytest.mark.parametrize("seed", range(20))
def test_a_good_file_with_mutations_is_a_configuration_or_a_config_error(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(50):
        text = bytearray(WHOLE.encode())
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(text))
            text[at : at + dice.randint(0, 3)] = dice.choice(
                [b"", b":", b" ", b"\t", b"&a", b"*a", b"[", b"}", b"\xff"]
            )
        try:
            loaded(tmp_path, bytes(text))
        except ConfigError:
            pass


def test_reading_a_good_file_imports_neither_typeguard_nor_pydantic() -> None:
    program = (
        "import sys; from pilotflow.config.file import load_config; load_config('configs/local.yaml');"
        "assert not {'typeguard', 'pydantic', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30, cwd=ROOT)
