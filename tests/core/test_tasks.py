"""Commands: which need the shell, where their output goes, and how their end is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow.context import RUNNING
from pilotflow.errors import BashExitError, ConfigError
from pilotflow.messages.records import Task
from pilotflow.runtime.commands import plain_argv, run_command
from pilotflow.runtime.link import Sit
from pilotflow.runtime.own_stderr import OWN_STDERR, OwnStderr
from pilotflow.runtime.tails import tail
from pilotflow.runtime.task_output import Output
from pilotflow.runtime.tasks import BashCall, PythonCall
from pilotflow.runtime.worker_files import NODES, STDERR, of_worker, remove_left

NOWHERE = Output(None, None)


def output(tmp_path: Path, mode: str = "a") -> Output:
    return Output((str(tmp_path / "deep" / "out"), mode), (str(tmp_path / "err"), mode))


def run(command: str, tmp_path: Path) -> tuple[int, str, str]:
    where = output(tmp_path, "w")
    code = run_command(command, where)
    assert where.stdout
    assert where.stderr
    return code, Path(where.stdout[0]).read_text(), Path(where.stderr[0]).read_text()


@pytest.mark.parametrize("command", ["true", " true ", "ls -l /tmp", "wc -c a.txt b=c", "/bin/ls --color=never"])
def test_a_plain_command_needs_no_shell(command: str) -> None:
    argv = plain_argv(command)
    assert argv is not None
    assert os.path.isabs(argv[0])
    assert argv[1:] == command.split()[1:]


NOT_PLAIN = ["", "   ", "a=1 ls", "ls | wc", "ls > x", "ls *", "ls ~", "echo hi", "cd /", "[ -e x ]", "ls $HOME"]
NOT_PLAIN += ["ls\nls", "ls; ls", "ls &", "ls #x", "ls {a,b}", "ls `x`", "no-such-program", "-x", "exit 3", "ls \\x"]
NOT_PLAIN += ["ls 'a'", "!ls", ".", ":"]


@pytest.mark.parametrize("command", NOT_PLAIN)
def test_anything_else_goes_to_bash(command: str) -> None:
    assert plain_argv(command) is None


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("[[ abc == a* ]] && echo match", "match\n"),
        ("a=(1 2 3); echo ${#a[@]} ${a[1]}", "3 2\n"),
        ("echo one two | tr a-z A-Z", "ONE TWO\n"),
        ("X=5; echo $X \"$X\" '$X'", "5 5 $X\n"),
        ("echo first\necho second", "first\nsecond\n"),
        ("diff <(echo a) <(echo a) && echo equal", "equal\n"),
        ("for i in {1..3}; do printf '%s,' $i; done", "1,2,3,"),
        ("printf '%s' 'it'\\''s \"quoted\"'", 'it\'s "quoted"'),
        ("echo grüße", "grüße\n"),
        ("cat <<END\n$((6*7))\nEND", "42\n"),
    ],
)
def test_commands_mean_what_they_mean_in_bash(command: str, printed: str, tmp_path: Path) -> None:
    assert run(command, tmp_path) == (0, printed, "")


def test_exit_codes_and_signals_are_told_apart(tmp_path: Path) -> None:
    assert run_command("exit 3", NOWHERE) == 3
    assert run_command("kill -9 $$", NOWHERE) == -9
    assert run("false | true", tmp_path)[0] == 0
    code, _, errors = run("no-such-program --x", tmp_path)
    assert code == 127
    assert "no-such-program: command not found" in errors


def test_a_script_without_a_first_line_runs_as_in_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo from the script")
    script.chmod(0o755)
    assert run(str(script), tmp_path) == (0, "from the script\n", "")


def test_a_program_that_goes_away_is_reported_by_the_shell(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    assert run(str(program), tmp_path)[0] == 0
    program.unlink()
    assert run(str(program), tmp_path)[0] == 127


def test_output_is_appended_or_written_anew(tmp_path: Path) -> None:
    for mode, expected in (("a", "x\nx\n"), ("w", "x\n")):
        where = Output((str(tmp_path / mode), mode), None)
        run_command("echo x", where)
        run_command("echo x", where)
        assert (tmp_path / mode).read_text() == expected


@pytest.mark.parametrize("mode", ["a", "w"])
def test_both_streams_may_go_to_one_file(mode: str, tmp_path: Path) -> None:
    both = (str(tmp_path / "both"), mode)
    run_command("echo out; echo err >&2; echo out", Output(both, both))
    assert (tmp_path / "both").read_text() == "out\nerr\nout\n"


def test_a_file_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"the task's stdout cannot go to /proc/nothing/out on .* or use AUTO_LOGNAME"
    ):
        run_command("true", Output(("/proc/nothing/out", "a"), None))


def test_the_error_has_the_code_the_path_and_the_end_of_stderr(tmp_path: Path) -> None:
    with pytest.raises(BashExitError) as caught:
        BashCall(lambda: "seq 100 >&2; exit 4", "count")(output(tmp_path))
    error = caught.value
    assert (error.app, error.exit_code, error.stderr) == ("count", 4, str(tmp_path / "err"))
    assert error.stderr_tail.splitlines() == [str(i) for i in range(86, 101)]
    assert "bash app 'count' ended with exit code 4" in str(error)


@pytest.fixture
def in_worker(tmp_path: Path) -> Iterator[Path]:
    """As in a worker whose task runs, in a run of this directory."""
    seat = Sit((), (), None, {}, None, None, run_directory=str(tmp_path))
    running, own = RUNNING.set((Task(1, 1, 1, 1, b""), 0, seat, {})), OWN_STDERR.set(OwnStderr())
    yield tmp_path
    OWN_STDERR.reset(own)
    RUNNING.reset(running)


def failure_of(command: str, where: Output = NOWHERE) -> BashExitError:
    with pytest.raises(BashExitError) as caught:
        BashCall(lambda: command, "app")(where)
    return caught.value


def test_a_worker_s_failed_command_without_a_file_has_the_end_of_its_own_stderr(in_worker: Path) -> None:
    assert BashCall(lambda: "seq 5 >&2", "app")(NOWHERE) == 0
    error = failure_of("seq 101 120 >&2; exit 4")
    assert error.stderr_tail.splitlines() == [str(i) for i in range(106, 121)]
    assert (error.stderr, error.shared_stderr) == (None, str(next((in_worker / "tasks").glob("worker-*.err"))))
    assert f"Its stderr (in {error.shared_stderr}, with that of other commands) ends with:\n106\n" in str(error)
    assert failure_of("exit 3").stderr_tail == "", "what others have written is not its"
    assert str(failure_of("exit 3")).endswith("ended with exit code 3. It wrote nothing to its stderr.")
    assert failure_of("echo two >&2; exit 3").stderr_tail == "two"


def test_a_command_that_opens_dev_stderr_and_so_empties_the_file_is_still_quoted(in_worker: Path) -> None:
    assert BashCall(lambda: "seq 50 >&2", "app")(NOWHERE) == 0
    assert failure_of("echo a word > /dev/stderr; exit 1").stderr_tail == "a word"
    assert failure_of("echo another >&2; exit 1").stderr_tail.endswith("another")
    assert failure_of("echo a third >&2; exit 1").stderr_tail == "a third"


def test_a_lot_of_stderr_is_read_from_its_end(in_worker: Path) -> None:
    error = failure_of("yes 'a line of some length' | head -n 100000 >&2; echo last >&2; exit 1")
    assert error.stderr_tail.splitlines() == ["a line of some length"] * 14 + ["last"]


def test_a_command_with_a_file_leaves_the_worker_s_alone(in_worker: Path) -> None:
    error = failure_of("echo mine >&2; exit 1", output(in_worker))
    assert (error.stderr_tail, error.shared_stderr) == ("mine", None)
    assert not (in_worker / "tasks").exists()


def test_a_worker_that_cannot_have_its_file_still_runs_commands(in_worker: Path) -> None:
    (in_worker / "tasks").write_text("no directory")
    assert BashCall(lambda: "true", "app")(NOWHERE) == 0
    assert "give stderr=pilotflow.AUTO_LOGNAME to keep it apart" in str(failure_of("exit 3"))


def test_of_a_dead_worker_the_host_file_and_an_empty_stderr_go(tmp_path: Path) -> None:
    stderr, nodes = (of_worker(tmp_path, kind, 17) for kind in (STDERR, NODES))
    nodes.mkdir(parents=True)
    (nodes / "hosts").write_text("node1\n")
    stderr.write_text("")
    remove_left(tmp_path, 18)
    assert stderr.exists()
    assert nodes.exists()
    remove_left(tmp_path, 17)
    assert not list((tmp_path / "tasks").iterdir())
    stderr.write_text("a word")
    remove_left(tmp_path, 17)
    assert stderr.read_text() == "a word"


@pytest.mark.parametrize(("command", "words"), [("nothing-here", "command not found"), ("kill -TERM $$", "signal 15")])
def test_the_error_says_in_words_what_a_code_means(command: str, words: str) -> None:
    with pytest.raises(BashExitError, match=words):
        BashCall(lambda: command, "app")(NOWHERE)


def test_a_body_that_returns_no_command_is_a_mistake_in_the_app() -> None:
    with pytest.raises(ConfigError, match="bash app 'bad' must return its command as a str, it returned list"):
        BashCall(lambda: ["ls"], "bad")(NOWHERE)


@pytest.mark.parametrize(
    ("command", "words"), [("echo \0", "the character NUL"), (f"echo '{'x' * (1 << 22)}'", "4,194,311")]
)
def test_a_command_that_no_system_starts_is_told_with_the_remedy(command: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"bash app 'bad' .*{words}.* into a file"):
        BashCall(lambda: command, "bad")(NOWHERE)


def test_printed_text_child_processes_and_descriptors_all_go_to_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def talk(x: int) -> int:
        print("printed", x, flush=True)
        os.write(1, b"written\n")
        os.system("echo child; echo trouble >&2")
        return x

    with capfd.disabled():
        assert PythonCall(talk)(output(tmp_path), 5) == 5
        os.write(1, b"")
    assert (tmp_path / "deep" / "out").read_text().endswith("written\nchild\n")
    assert (tmp_path / "err").read_text() == "trouble\n"


def test_the_tail_of_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert tail(str(tmp_path / "missing")) == ""
