"""Values in commands keep their meaning wherever they stand; a real shell says so."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.workflow.tokens import in_arguments, misspelt_in, tokens_in, with_files, with_user_data

PRINT = "printf '%s\\n'"
TRICKY: dict[str, Any] = {"a": 'it\'s $HOME "x" `ls` \\ $(ls) !', "b": [1, None, True, "ü"]}
PLACES = [
    f"{PRINT} ${{user_data.input.v}}",
    f"{PRINT} '${{user_data.input.v}}'",
    f'{PRINT} "${{user_data.input.v}}"',
    f"# don't\n{PRINT} ${{user_data.input.v}} # isn't ${{user_data.input.v}}",
    "cat <<EOF\n${user_data.input.v}\nEOF",
    "cat <<-'END'\n\t${user_data.input.v}\n\tEND",
    f"cat <<A >/dev/null; {PRINT} '${{user_data.input.v}}'\nit's\nA\n",
    f"{PRINT} $(echo it\\'s >/dev/null)${{user_data.input.v}}",
]


def run(command: str) -> str:
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("command", PLACES)
def test_json_arrives_as_it_is_in_whatever_quotes_it_stands(command: str) -> None:
    expected = json.dumps(TRICKY, ensure_ascii=False, separators=(",", ":"))
    assert run(with_user_data(command, {"v": TRICKY})).rstrip("\n") == expected


@pytest.mark.parametrize("value", ["two words", "$HOME", "it's", "a\nrm -rf x", '"', "-n"])
def test_a_text_without_quotes_is_one_argument_and_never_a_command(value: str) -> None:
    printed = run(with_user_data(f"{PRINT} -- ${{user_data.input.v}} end # ${{user_data.input.v}}", {"v": value}))
    assert printed.count("end") == 1
    assert printed.splitlines()[0] == "--"
    assert printed.splitlines()[1] == json.dumps(value, ensure_ascii=False)[1:-1]


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=3), st.sampled_from(PLACES))
def test_any_value_arrives_as_it_is(value: dict[str, str], command: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if "\0" in text or any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        return
    assert json.loads(run(with_user_data(command, {"v": value}))) == value


def test_a_path_is_quoted_only_where_the_shell_would_take_it_apart() -> None:
    paths = {
        "plain": "out/a.txt",
        "home": "~/a",
        "spaces": "my file's.txt",
        "pattern": "out/*.txt",
        "evil": "a; rm -rf b",
    }
    text = with_files(" ".join(f"${{files.input.{name}}}" for name in paths), paths.__getitem__)
    assert text == "out/a.txt ~/a 'my file'\"'\"'s.txt' out/*.txt 'a; rm -rf b'"


def test_outputs_become_names_and_what_is_no_token_stays() -> None:
    text = "put ${user_data.output.total} ${HOME} ${files.input.f} ${user_data.input.x"
    assert with_user_data(text, {}) == "put total ${HOME} ${files.input.f} ${user_data.input.x"
    assert [tuple(token) for token in tokens_in(text)] == [("user_data", "output", "total"), ("files", "input", "f")]
    assert misspelt_in("${file.input.x} ${files.inputs.x} ${files.input.x} ${filesystem}") == [
        "${file.input.x}",
        "${files.inputs.x}",
    ]


def test_arguments_of_functions_get_values_where_a_text_is_nothing_else() -> None:
    values = {"v": {"a": 1}}
    assert in_arguments(
        ["${user_data.input.v}", "x=${user_data.input.v}", 3, {"k": ["${user_data.input.v}"]}], values
    ) == [
        {"a": 1},
        'x={"a":1}',
        3,
        {"k": [{"a": 1}]},
    ]
