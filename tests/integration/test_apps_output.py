"""What apps print goes to files, commands run in bash, and what fails shows where its output is."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import AUTO_LOGNAME, BashExitError, ConfigError, DependencyError
from tests.integration.call_apps import fail, shell, talk, two_executors


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    with pf.load(two_executors(tmp_path_factory.mktemp("runs"))) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")


def test_printed_text_and_that_of_children_goes_to_files(run: pf.Run, tmp_path: Path) -> None:
    future = talk("a", stdout=tmp_path / "deep" / "out", stderr=(str(tmp_path / "err"), "w"))
    assert future.stdout == str(tmp_path / "deep" / "out")
    assert future.result() == "a"
    assert sorted((tmp_path / "deep" / "out").read_text().splitlines()) == ["child a", "printed a"]
    assert (tmp_path / "err").read_text() == "trouble a\n"
    assert talk("b", stdout=tmp_path / "deep" / "out").result() == "b"
    assert "printed b" in (tmp_path / "deep" / "out").read_text()
    assert talk("c").stdout is None
    auto = talk("d", stdout=AUTO_LOGNAME, label="step")
    auto.result()
    assert auto.stdout == str(run.directory / "tasks" / "talk" / f"step-{auto.task_id:06d}.out")
    assert "printed d" in Path(auto.stdout).read_text()


def test_relative_paths_are_those_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    future = talk("x", stdout="here.txt")
    future.result()
    assert future.stdout == str(tmp_path / "here.txt")
    assert "printed x" in (tmp_path / "here.txt").read_text()


def test_a_wrong_target_is_refused_at_the_call() -> None:
    for wrong in (5, ("x",), ("x", "rb"), b"x"):
        with pytest.raises(ConfigError, match="stdout takes a path"):
            talk("x", stdout=wrong)
    for nul in ("a\0b", Path("a\0b"), ("a\0b", "w")):
        with pytest.raises(ConfigError, match=r"stderr takes a path without the character NUL, not 'a\\x00b'"):
            talk("x", stderr=nul)
    with pytest.raises(ConfigError, match="label takes a name"):
        talk("x", stdout=AUTO_LOGNAME, label="../x")


def test_a_command_runs_in_bash_and_gives_zero(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = "a=(x y); [[ $a == x ]] && echo \"${a[1]} $WORD 'q'\" | tr y z\necho second"
    assert shell(f"WORD=w; {command}", stdout=out).result() == 0
    assert out.read_text() == "z w 'q'\nsecond\n"
    assert shell("true").result() == 0


def test_a_failing_command_tells_its_code_and_the_end_of_its_stderr(tmp_path: Path) -> None:
    err = tmp_path / "err"
    future = shell("echo to out; echo what went wrong >&2; exit 3", stderr=err)
    with pytest.raises(BashExitError, match="what went wrong") as caught:
        future.result()
    assert (caught.value.exit_code, caught.value.stderr, caught.value.app) == (3, str(err), "shell")
    with pytest.raises(BashExitError, match="no file for this") as caught:
        shell("echo no file for this >&2; exit 3").result()
    assert caught.value.stderr_tail == "no file for this"
    with pytest.raises(BashExitError, match="signal 9") as caught:
        shell("kill -9 $$").result()
    assert caught.value.exit_code == -9
    with pytest.raises(BashExitError, match="command not found") as caught:
        shell("no-such-program-here").result()
    assert caught.value.exit_code == 127
    with pytest.raises(ConfigError, match="must return its command as a str, it returned int"):
        shell(5).result()
    with pytest.raises(DependencyError, match="exit code 3"):
        shell("true", inputs=[future]).result()


def test_defaults_of_the_function_say_where_output_goes(run: pf.Run, tmp_path: Path) -> None:
    @pf.bash_app
    def listing(path: str, stdout: Any = AUTO_LOGNAME, stderr: Any = None) -> str:
        return f"echo {path} {stdout}"

    future = listing("a")
    assert future.result() == 0
    assert future.stdout == str(run.directory / "tasks" / "listing" / f"{future.task_id:06d}.out")
    assert Path(future.stdout).read_text() == f"a {future.stdout}\n"
    assert future.stderr is None
    for future in (listing("b", stdout=tmp_path / "x"), listing("c", tmp_path / "y")):
        assert future.result() == 0
        assert future.stdout in (str(tmp_path / "x"), str(tmp_path / "y"))
        assert future.stdout in Path(future.stdout).read_text()
    assert listing("d", stdout=None).stdout is None


def test_the_decorator_may_say_it_for_all_calls(tmp_path: Path) -> None:
    app = pf.bash_app(stdout=(tmp_path / "log", "a"))(shell.__pilotflow_function__)
    assert [app("echo 1").result(), app("echo 2").result()] == [0, 0]
    assert (tmp_path / "log").read_text() == "1\n2\n"


def test_the_traceback_of_a_python_app_shows_where_its_output_is_and_the_exception_is_the_user_s_own(
    tmp_path: Path,
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    future = fail("no data", stdout=out, stderr=err)
    error = future.exception()
    assert isinstance(error, ValueError)
    assert (type(error), str(error), error.args) == (ValueError, "no data", ("no data",))
    shown = "".join(traceback.format_exception(error))
    assert shown.count(f"The stdout of 'fail' (task {future.task_id}) is in {out}, its stderr in {err}") == 1
    assert "pilotflow/runtime" not in shown, "what is ours before the user's function is left out"
    plain = fail("no data").exception()
    assert "pilotflow/runtime" not in "".join(traceback.format_exception(plain))
    assert not hasattr(plain, "__notes__")
    assert "The stdout" not in "".join(traceback.format_exception(plain))


def test_a_command_that_fails_shows_where_its_stdout_is_as_well_and_a_lost_task_all(tmp_path: Path) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    future = shell("exit 3", stdout=out, stderr=err)
    shown = "".join(traceback.format_exception(future.exception()))
    assert shown.count(f"The stdout of 'shell' (task {future.task_id}) is in {out}") == 1
    assert shown.count(str(err)) == shown.count(f"Its stderr ({err}) is empty"), "that says it already"

    @pf.python_app(crash_limit=1, stderr=err)
    def crash() -> None:
        os.write(2, b"Fatal error\n")
        os.abort()

    lost = crash().exception()
    assert isinstance(lost, pf.WorkerLost)
    assert str(lost).endswith(f"is in {err}")
    assert "Fatal error" in err.read_text()
