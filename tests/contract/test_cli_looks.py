"""What `pilotflow` commands look like: to people who do not know them, on narrow terminals, with nothing to show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from pilotflow.cli.layout import print_table
from tests.command_line import on_terminal, pilotflow
from tests.contract.test_cli import COLOURS

WORKFLOW = """\
name: mixed
jobs:
  - {name: "ok_{i}", command: "true", parameters: {i: "1:3"}}
  - {name: bad, command: "echo trouble >&2; exit 3"}
  - {name: after, command: "true", depends_on: [bad]}
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a workflow has been run, with one job that failed."""
    place = tmp_path_factory.mktemp("ended")
    (place / "w.yaml").write_text(WORKFLOW)
    done = pilotflow("run", "w.yaml", cwd=place)
    assert (done.returncode, done.stderr) == (1, "")
    return place


def test_the_list_of_commands_begins_with_what_most_people_want() -> None:
    said = pilotflow("--help").stdout
    titles = re.findall(r"─ ([A-Z][a-z ]+) ─", said)
    assert titles == ["Options", "Workflows", "Runs", "Configuration and sites"]
    assert re.findall(r"^│ (\S+)", said.partition("Workflows")[2], re.MULTILINE)[0] == "run"


@pytest.mark.parametrize("columns", [60, 40])
@pytest.mark.parametrize("words", [("jobs",), ("results",), ("list",), ("status",), ("resources",), ("events",)])
def test_tables_fit_narrow_terminals_and_show_nothing_empty(ended: Path, words: tuple[str, ...], columns: int) -> None:
    said = COLOURS.sub("", on_terminal(*words, cwd=ended, columns=columns)).replace("\r", "")
    lines = said.splitlines()
    tables = {"events": [], "status": lines[3:]}.get(words[0], lines)  # other lines are the terminal's to break
    assert max(map(len, tables), default=0) <= columns
    assert not any(line != line.rstrip() for line in lines)
    assert not [line for line in lines if line in ("memory", "attempt", "exit code", "time")]


def test_columns_with_nothing_in_them_are_left_out_before_a_table_becomes_a_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")  # rich gives a dumb terminal 80 columns, whatever is asked for
    console = Console(force_terminal=True, width=12, no_color=True, highlight=False)
    print_table(console, ("a", "nothing", "b"), [("1", "", "two"), ("2", "", "three")], (0,))
    said = COLOURS.sub("", capsys.readouterr().out)
    assert said.splitlines() == ["a   b", "─────────", "1   two", "2   three"]


def test_letters_that_take_two_columns_are_counted_as_two(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(file=open("/dev/null", "w"), width=80)  # noqa: SIM115
    print_table(console, ("name", "n"), [("仕事の名前", "1")])
    assert "仕事の名前   1" in capsys.readouterr().out
    console.file.close()


@pytest.mark.parametrize(
    ("words", "code", "said", "complaint"),
    [
        (("jobs", "-j", "running"), 0, "There is no such job now.\n", ""),
        (("results", "-j", "after"), 0, "No attempt at these jobs has ended.\n", ""),
        (("logs", "last", "ok_1"), 0, "", "These jobs have printed nothing.\n"),
        (("slurm", "schedule-nodes"), 2, "", "Run 0001 has no slurm_schedulers, so nothing can be asked for "),
        (("graph", "w.yaml", "-o", "w.svg"), 0, "", "written: w.svg\n"),
        (("cancel",), 2, "", "Run 0001 is not running (it has failed); there is nothing to cancel.\n"),
        (("import", "nope"), 2, "", "Cannot read the archive nope: No such file or directory.\n"),
        (("runner", "--time-limit", "soon"), 2, "", "--time-limit: 'soon' is not a duration. Write "),
        (("run", "w.yaml", "--keep", "long"), 2, "", "--keep: 'long' is not a duration. Write "),
    ],
)
def test_what_there_is_nothing_to_show_of_is_said(
    ended: Path, words: tuple[str, ...], code: int, said: str, complaint: str
) -> None:
    done = pilotflow(*words, cwd=ended)
    assert (done.returncode, done.stdout) == (code, said)
    assert done.stderr.startswith(complaint)
    assert bool(done.stderr) == bool(complaint)


def test_why_a_job_runs_again_is_told_in_whole_words(ended: Path) -> None:
    said = pilotflow("rerun", "--dry-run", cwd=ended).stdout
    assert re.search(r"bad +it has failed\n", said)
    assert re.search(r"after +it was cancelled\n", said)


@pytest.mark.parametrize("words", [("check",), ("slurm", "script")])
def test_a_workflow_that_is_taken_for_a_configuration_is_recognised(ended: Path, words: tuple[str, ...]) -> None:
    done = pilotflow(*words, "w.yaml", cwd=ended)
    assert done.returncode == 2
    assert done.stderr.endswith("\nw.yaml looks like a workflow: `pilotflow create w.yaml` checks those.\n")


def test_a_configuration_that_is_run_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("executors: []\n")
    said = pilotflow("run", "c.yaml", cwd=tmp_path).stderr
    assert (
        "c.yaml:1:1: this is a key of configurations, which `pilotflow check` reads; a workflow has `jobs`.\n" in said
    )


@pytest.mark.parametrize("words", [("status", "copy"), ("explain", "copy", "1"), ("jobs", "copy")])
def test_a_damaged_record_is_told_by_all_commands(ended: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "connection.json").write_bytes((ended / "runs" / "0001" / "connection.json").read_bytes())
    (tmp_path / "copy" / "run.db").write_text("no database at all")
    done = pilotflow(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Cannot read the run store {tmp_path}/copy/run.db: file is not a database.\n"


def test_braces_that_want_quotes_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("name: x\njobs:\n  - {name: ok_{i}, command: 'true', parameters: {i: '1:3'}}\n")
    assert pilotflow("create", "w.yaml", cwd=tmp_path).stderr == (
        "w.yaml:3:15: this is not YAML: a ',' or '}' is missing. Quote text with braces or commas in it, such as "
        "'work_{i}'.\n"
    )
