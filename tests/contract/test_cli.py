"""The command line as a user meets it: output, exit codes, and no traceback ever."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pilotflow.cli.demo_tasks import count_primes, factor_command, primes_below
from pilotflow.ids import VERSION
from tests.command_line import ROOT, on_terminal, pilotflow
from tests.waiting import until

GOLDEN = ROOT / "tests" / "golden"
BAD = "retrys: 1\nexecutors:\n  - label: a b\n    provider: {type: locl}\n"


def test_the_version_is_printed_at_once() -> None:
    best_s = 60.0
    argv = [sys.executable, "-m", "pilotflow", "--version"]
    for _ in range(3):
        begun = _cpu_of_children()
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        best_s = min(best_s, _cpu_of_children() - begun)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"pilotflow {VERSION}\n", "")
    print(f"pilotflow --version took {best_s * 1000:.0f} ms of a core")
    assert best_s < 1.0  # 0.15 s as a rule


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def test_the_version_needs_no_engine() -> None:
    program = (
        "import sys; from pilotflow.cli.commands import app; app(['--version'], standalone_mode=False);"
        "assert not {'zmq', 'yaml', 'msgspec', 'rich', 'typeguard'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)


def test_help_names_the_commands() -> None:
    done = pilotflow("--help")
    assert done.returncode == 0
    assert "demo" in done.stdout
    assert "check" in done.stdout


@pytest.mark.parametrize(
    "arguments", [["chek"], ["check"], ["demo", "--workers", "0"], ["demo", "--tasks", "x"], ["-x"]]
)
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    done = pilotflow(*arguments)
    assert done.returncode == 2
    assert "Usage: pilotflow" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["local", "two-executors"])
def test_check_says_what_a_file_means(name: str) -> None:
    done = pilotflow("check", f"configs/{name}.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (GOLDEN / f"check_{name}.txt").read_text(encoding="utf-8")


def test_check_shows_what_is_special_about_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "executors:\n- max_workers_per_node: 3\n"
        "  provider: {type: local, walltime: 90m, nodes_per_block: 2, max_blocks: 4, worker_init: 'a\n\n    b'}\n"
        "tcp: true\nencrypted: false\nretries: 2\ncrash_limit: 1\nstore: false\n"
    )
    done = pilotflow("check", "c.yaml", cwd=tmp_path)
    assert done.returncode == 0
    for words in (
        "1h 30m",
        "worker_init: a b",
        "at most 24 tasks at once",
        "TCP WITHOUT PROTECTION",
        "never run again",
    ):
        assert words in done.stdout


COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize("columns", [79, 60, 40, 24])
def test_check_can_be_read_on_a_narrow_terminal(tmp_path: Path, columns: int) -> None:
    (tmp_path / "c.yaml").write_text((ROOT / "configs" / "two-executors.yaml").read_text())
    said = COLOURS.sub("", on_terminal("check", "c.yaml", cwd=tmp_path, columns=columns)).replace("\r", "")
    _, *lines = said.splitlines()  # the first is for copying, and the terminal's to break
    assert max(map(len, lines)) <= columns
    assert not any(line != line.rstrip() for line in lines)
    assert "─" not in said  # no table, whose columns would be a few letters wide
    words = " ".join(said.split())
    for record in (
        "executor cpu provider local blocks 1 (0 to 1) nodes 1 walltime no limit workers one per core launcher single_node",
        "executor download provider local blocks 0 (0 to 1) nodes 1 walltime no limit workers 16 at once launcher",
        "runs at most all cores of 1 node at once, as requests fit",
        "links Unix sockets, in a directory only you can enter",
        "after lost workers a task is run at most 5 times",
    ):
        assert record in words


def test_check_on_a_terminal_that_is_wide_enough_is_what_it_is_in_a_file() -> None:
    said = COLOURS.sub("", on_terminal("check", "configs/two-executors.yaml", cwd=ROOT, columns=80))
    assert said.replace("\r", "") == pilotflow("check", "configs/two-executors.yaml").stdout


def test_check_says_everything_that_is_wrong_and_where(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    done = pilotflow("check", "bad.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.findall(r"^bad\.yaml:(\d+:\d+): ([\w.[\]]+): ", done.stderr, re.MULTILINE) == [
        ("1:1", "retrys"),
        ("3:12", "executors[0].label"),
        ("4:22", "executors[0].provider.type"),
    ]


def test_check_finds_the_classes_that_a_file_names_where_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text(
        "from dataclasses import dataclass\nfrom pilotflow.providers.local import LocalProvider\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(LocalProvider):\n    niceness: int = 10\n"
    )
    (tmp_path / "c.yaml").write_text("executors: [{provider: {type: 'here:Mine', niceness: 3}}]")
    program = "import sys; sys.path[:] = [p for p in sys.path if p]; from pilotflow.cli.main import main; main()"
    argv = [sys.executable, "-c", program, "check", "c.yaml"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "here:Mine" in done.stdout
    assert "niceness: 3" in done.stdout


def test_check_as_json_is_the_same_for_programs(tmp_path: Path) -> None:
    done = pilotflow("check", "--json", "configs/local.yaml")
    said = json.loads(done.stdout)
    assert (done.returncode, said["valid"], said["config"]["executors"][0]["provider"]["type"]) == (0, True, "local")
    (tmp_path / "bad.yaml").write_text(BAD)
    done = pilotflow("check", "bad.yaml", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr, said["valid"]) == (2, "", False)
    assert [(problem["line"], problem["column"]) for problem in said["problems"]] == [(1, 1), (3, 12), (4, 22)]
    done = pilotflow("check", "missing.yaml", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["problems"][0]["line"] is None


def test_errors_are_red_on_terminals_only(tmp_path: Path) -> None:
    assert "\x1b[31m" in on_terminal("check", "missing.yaml", cwd=tmp_path)
    done = pilotflow("check", "missing.yaml", cwd=tmp_path)
    assert done.stderr == "missing.yaml: there is no such file.\n"
    assert done.returncode == 2


@pytest.mark.parametrize("arguments", [["--version"], ["schema"], ["check", "configs/local.yaml"]])
def test_output_that_cannot_be_written_is_said_in_one_line(arguments: list[str]) -> None:
    argv = [sys.executable, "-m", "pilotflow", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(argv, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "The output cannot be written: No space left on device.\n")


def test_a_reader_that_leaves_early_is_no_error_to_talk_about() -> None:
    text = f"{sys.executable} -m pilotflow schema | head -1"
    done = subprocess.run(text, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_the_demo_counts_primes_and_sums_up(tmp_path: Path) -> None:
    done = pilotflow("demo", "--workers", "2", "--tasks", "300", "--run-dir", "where", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "25,997 below 300,000" in done.stdout
    assert "all the same" in done.stdout
    assert re.search(r"^tasks +344 done, 0 failed$", done.stdout, re.MULTILINE)
    assert re.search(r"^workers +2$", done.stdout, re.MULTILINE)
    assert re.search(r"^344 of 344 tasks done$", done.stdout, re.MULTILINE)
    assert re.search(r"^tasks/s +[0-9,]+ of this work; [0-9,]+ if tasks do nothing$", done.stdout, re.MULTILINE)
    log = re.search(r"^log +(.*)$", done.stdout, re.MULTILINE)
    assert log
    assert Path(tmp_path, log[1]).is_file()


def test_the_demo_sums_up_as_json_for_programs(tmp_path: Path) -> None:
    done = pilotflow("demo", "--workers", "1", "--tasks", "10", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert (said["primes"], said["below"], said["wrong"]) == (1229, 10_000, 0)
    assert (said["tasks_done"], said["tasks_failed"], said["workers"]) == (31, 0, 1)
    assert said["empty_tasks_per_s"] > 0
    assert Path(said["log"]).is_file()


def test_the_demo_has_a_live_bar_on_a_terminal(tmp_path: Path) -> None:
    written = on_terminal("demo", "--workers", "1", "--tasks", "3000", cwd=tmp_path)
    assert "starting" in written
    assert "counting primes" in written
    assert "\x1b[" in written
    assert re.search(r"━.*3071/3071", written)
    assert "216,816 below 3,000,000" in written
    assert "runs/0001 " not in written, "the line that runs show by themselves is not drawn over it"


def test_a_task_of_the_demo_that_fails_is_counted_and_said(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "factor").write_text("#!/bin/sh\nexit 3\n")
    (tools / "factor").chmod(0o755)
    (tools / "wc").write_text("#!/bin/sh\nexit 3\n")
    (tools / "wc").chmod(0o755)
    argv = [sys.executable, "-m", "pilotflow", "demo", "--workers", "1", "--tasks", "20"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tools}:{os.environ['PATH']}", "COLUMNS": "80"}
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert re.search(r"^tasks +21 done, 40 failed$", done.stdout, re.MULTILINE)
    assert "The command of bash app 'factor_command' ended with exit code 3" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_demo_that_cannot_write_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = pilotflow("demo", "--tasks", "1", "--run-dir", "file", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "file" in done.stderr


def test_an_interrupted_demo_ends_with_130_and_no_traceback(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pilotflow", "demo", "--tasks", "200000", "--workers", "1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        until(lambda: list(tmp_path.glob("runs/0001/blocks/*/stdout")), "its block")
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, stderr = process.communicate(timeout=60)
        print(f"an interrupted demo took {time.monotonic() - begun:.2f} s to end, at most 5 s")
    assert process.returncode == 130
    assert stderr == "Interrupted. All processes of the run have been ended.\n"


INTERRUPTED_AT = """
import os, signal, sys, time

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep({seconds})

sys.meta_path.insert(0, Finder())
"""


def interrupted_at(folder: Path, module: str, seconds: float = 30.0) -> dict[str, str]:
    """The environment in which a Python is interrupted when it begins to import a module."""
    (folder / "sitecustomize.py").write_text(INTERRUPTED_AT.format(module=module, seconds=seconds))
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


@pytest.mark.parametrize(
    ("module", "stderr"),
    [
        ("pilotflow.errors", ""),
        ("typer", ""),
        ("pilotflow.cli.check", ""),
        ("yaml", ""),
        ("here", "Interrupted.\n"),  # named in the file: its work has begun
    ],
)
@pytest.mark.parametrize("program", ["-m pilotflow", "-c 'from pilotflow.cli.main import main; main()'"])
def test_ctrl_c_while_a_command_is_imported_ends_it_with_130_and_no_traceback(
    tmp_path: Path, module: str, stderr: str, program: str
) -> None:
    (tmp_path / "config.yaml").write_text("executors: [{provider: {type: 'here:Mine'}}]\n")
    done = subprocess.run(
        [sys.executable, *shlex.split(program), "check", "config.yaml"],
        cwd=tmp_path,
        env=interrupted_at(tmp_path, module),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (130, stderr, "")


def test_a_command_for_which_ctrl_c_is_ignored_goes_on(tmp_path: Path) -> None:
    """As is what a script runs in the background."""
    argv = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "pilotflow", "--version"]
    env = interrupted_at(tmp_path, "typer", 0.0)
    done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout) == (0, f"pilotflow {VERSION}\n")


@pytest.mark.parametrize(("start", "stop"), [(0, 1000), (0, 1), (1, 4), (990, 2000), (9_999_000, 10_000_000)])
def test_the_demo_counts_right(start: int, stop: int) -> None:
    expected = sum(1 for n in primes_below(stop) if n >= start)
    assert count_primes(start, stop) == expected
    counted = subprocess.run(factor_command(start, stop), shell=True, capture_output=True, text=True, check=True)
    assert int(counted.stdout) == expected


def test_there_are_78498_primes_below_a_million() -> None:
    assert len(primes_below(10**6)) == 78498


def test_a_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; os.rmdir(os.getcwd()); sys.argv = ['pilotflow', 'list']; "
        "from pilotflow.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=gone,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "has been removed" in done.stderr
    assert "cd" in done.stderr
    assert "Traceback" not in done.stderr


def test_names_beyond_ascii_work_in_a_locale_without_them(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(
        "name: größe\njobs: [{name: jöb, command: 'echo $TORC_JOB_NAME ü'}]\n", encoding="utf-8"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def said(*arguments: str) -> str:
        argv = [sys.executable, "-m", "pilotflow", *arguments]
        done = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.decode()

    assert "1 completed" in said("run", "w.yaml")
    assert said("logs", "last", "jöb", "--stdout") == "jöb ü\n"
