"""Executors of threads in the program: apps mean the same there as on workers, and what cannot be is refused."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow.cli.check import check_as_text
from pilotflow.config.file import load_config
from pilotflow.core.pace import Counts
from pilotflow.errors import (
    BashExitError,
    ConfigError,
    DependencyError,
    MissingOutputs,
    RunClosed,
    SerializationError,
    TaskTimeout,
)
from pilotflow.explanation import State
from tests.waiting import logged, until

THREADS = pf.ThreadExecutorConfig(max_threads=2)
LOCAL = pf.ExecutorConfig(label="cpu", max_workers_per_node=1)


@pf.python_app
def add(x: Any, y: Any = 0) -> Any:
    return x + y


@pf.python_app
def where() -> tuple[int, str]:
    return os.getpid(), threading.current_thread().name


@pf.python_app
def wait_for(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


@pf.python_app
def say(text: str) -> str:
    print(text)
    print("warning:", text, file=sys.stderr)
    return text


@pf.bash_app
def shell(command: str) -> str:
    return command


@pytest.fixture
def run(tmp_path: Path) -> Iterator[pf.Run]:
    run = pf.load(pf.Config(executors=[THREADS], run_dir=tmp_path / "runs"))
    yield run
    run.close(wait=False)  # should a test fail, for functions that it leaves nobody else waits


@pytest.fixture(params=["threads", "workers"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[pf.Run]:
    """A run with threads, or with worker processes: what is tested holds in both."""
    executor = THREADS if request.param == "threads" else LOCAL
    with pf.load(pf.Config(executors=[executor], run_dir=tmp_path / "runs")) as run:
        yield run


# ---- the same everywhere --------------------------------------------------------------------


def test_an_app_means_the_same_in_threads_and_on_workers(either: pf.Run, tmp_path: Path) -> None:
    first = add(1, 2)
    assert add([first], y=[{"deep": first}]).result() == [3, {"deep": 3}]
    assert [future.result() for future in add.map(range(50), range(50))] == list(range(0, 100, 2))
    with pytest.raises(TypeError, match="can only concatenate str") as caught:
        add("x", None).result()
    assert "Traceback" in str(caught.value.__cause__), "the remote traceback, as ever"
    with pytest.raises(DependencyError, match="TypeError") as failed:
        add(add(add("x"))).result()
    assert isinstance(failed.value.__cause__, TypeError)
    with pytest.raises(SerializationError, match="lock"):
        add(threading.Lock()).result()
    mutable = [1]
    assert add(mutable, [2]).result() == [1, 2]
    assert mutable == [1], "arguments are the task's own"


def test_output_files_are_the_same_in_threads_and_on_workers(either: pf.Run, tmp_path: Path) -> None:
    futures = [say.options(stdout=pf.AUTO_LOGNAME, stderr=str(tmp_path / f"{n}.err"))(f"text {n}") for n in range(4)]
    for n, future in enumerate(futures):
        assert future.result() == f"text {n}"
        assert Path(future.stdout or "").read_text() == f"text {n}\n"
        assert (tmp_path / f"{n}.err").read_text() == f"warning: text {n}\n"


def test_a_failed_command_without_a_file_is_quoted_in_threads_and_on_workers(either: pf.Run) -> None:
    failed = [shell(f"echo one {n} >&2; sleep 0.1; echo two {n} >&2; exit 3") for n in range(4)]
    for n, future in enumerate(failed):
        error = future.exception()
        assert isinstance(error, BashExitError)
        assert error.stderr_tail == f"one {n}\ntwo {n}"
        assert error.shared_stderr is not None
        assert f"one {n}\ntwo {n}\n" in Path(error.shared_stderr).read_text()
        assert Path(error.shared_stderr).match(f"{either.directory}/tasks/worker-*.err")
    with pytest.raises(BashExitError, match="It wrote nothing to its stderr"):
        shell("exit 3").result()
    assert shell("head -c 3000000 /dev/zero | tr '\\0' x >&2").result() == 0
    for path in (either.directory / "tasks").iterdir():
        assert path.stat().st_size < 1_000_000, "and it stays short"


def test_threads_leave_no_empty_files_and_end_with_their_run(tmp_path: Path) -> None:
    before = threading.active_count()
    with pf.load(pf.Config(executors=[THREADS], run_dir=tmp_path / "runs")) as run:
        assert [future.result() for future in [shell("sleep 0.1") for _ in range(4)]] == [0] * 4
        assert len(list((run.directory / "tasks").iterdir())) == 2
    assert list((run.directory / "tasks").iterdir()) == []
    until(lambda: threading.active_count() <= before, "the end of the threads")


def test_commands_are_the_same_in_threads_and_on_workers(either: pf.Run, tmp_path: Path) -> None:
    app = shell.options(stdout=pf.AUTO_LOGNAME, stderr=pf.AUTO_LOGNAME, cwd=str(tmp_path), env={"WORD": "hello"})
    future = app('echo "$WORD from $(basename "$PWD")"; echo made > made.txt', outputs=["made.txt"])
    assert future.result() == 0
    assert Path(future.stdout or "").read_text() == f"hello from {tmp_path.name}\n"
    assert (tmp_path / "made.txt").exists()
    with pytest.raises(BashExitError, match="exit code 3") as caught:
        app("echo broken >&2; exit 3").result()
    assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "broken")
    with pytest.raises(MissingOutputs, match="never"):
        app("true", outputs=["never.txt"]).result()
    with pytest.raises(ConfigError, match=r"cwd.*cannot be entered"):
        shell.options(cwd=str(tmp_path / "none"))("true").result()
    with pytest.raises(ConfigError, match="must return its command as a str"):
        shell(3).result()
    with pytest.raises(ConfigError, match="more than this machine starts"):
        shell(f"echo '{'x' * (1 << 22)}'").result()
    scratch = shell.options(scratch=True, stdout=str(tmp_path / "scratch"))
    assert scratch('echo "$PILOTFLOW_SCRATCH"; pwd').result() == 0
    first, second = (tmp_path / "scratch").read_text().split()
    assert first == second
    assert not os.path.exists(first), "it is gone after success"


def test_tries_are_the_same_in_threads_and_on_workers(either: pf.Run, tmp_path: Path) -> None:
    app = shell.options(retries=2, stdout=str(tmp_path / "tries"))
    with pytest.raises(BashExitError):
        app("echo try; false").result()
    assert (tmp_path / "tries").read_text() == "try\n" * 3


@pytest.mark.parametrize("word", ["timeout", "runtime"])
def test_a_command_that_takes_too_long_is_ended_with_all_it_has_started(
    word: str, either: pf.Run, tmp_path: Path
) -> None:
    written = tmp_path / "pid"
    for limit in ("1s", "5s", "25s"):  # a busy machine may take a second to start a command
        future = shell.options(**{word: limit})(f"sleep 1000 & echo $! > {written}; wait")
        with pytest.raises(TaskTimeout, match=f"its {word} is {limit}"):
            future.result(60)
        if written.exists() and written.read_text():
            break
    pid = int(written.read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the command's child")


def test_cancelling_a_command_ends_it_in_threads_and_on_workers(either: pf.Run, tmp_path: Path) -> None:
    future = shell(f"echo $$ > {tmp_path}/pid; sleep 1000")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "its start")
    pid = int((tmp_path / "pid").read_text())
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the command")


def test_a_task_cannot_submit_tasks_in_threads_either(either: pf.Run) -> None:
    @pf.python_app
    def outer() -> Any:
        return add(1).result()

    with pytest.raises(RunClosed, match="tasks cannot submit tasks"):
        outer().result()


def test_tasks_know_themselves_in_threads_too(either: pf.Run) -> None:
    @pf.python_app
    def about_me() -> Any:
        task = pf.current_task()
        return task.id, task.name, task.run_directory, task.time_left()

    future = about_me()
    assert future.result() == (future.task_id, "about_me", either.directory, None)


# ---- where work goes ------------------------------------------------------------------------


def test_threads_are_in_the_program_and_no_more_than_were_asked_for(run: pf.Run) -> None:
    places = {future.result() for future in [where() for _ in range(300)]}
    assert {pid for pid, _ in places} == {os.getpid()}
    assert {name for _, name in places} <= {"pilotflow-threads-1", "pilotflow-threads-2"}
    assert run.blocks() == []


def test_unbound_work_goes_to_threads_only_if_there_is_nothing_else(tmp_path: Path) -> None:
    with pf.load(pf.Config(executors=[THREADS, LOCAL], run_dir=tmp_path / "runs")):
        here = {os.getpid()}
        assert {where().result()[0] for _ in range(20)}.isdisjoint(here)
        assert {where.options(executors=["threads", "cpu"])().result()[0] for _ in range(5)}.isdisjoint(here)
        assert {where.options(executors=["threads"])().result()[0] for _ in range(5)} == here
        assert {where.options(executors="cpu")().result()[0] for _ in range(5)}.isdisjoint(here)
        with pytest.raises(ConfigError, match=r"executor 'gpu', and this run has: threads, cpu"):
            where.options(executors="gpu")()


def test_results_pass_between_threads_and_workers(tmp_path: Path) -> None:
    with pf.load(pf.Config(executors=[THREADS, LOCAL], run_dir=tmp_path / "runs")):
        light, heavy = add.options(executors="threads"), add.options(executors="cpu")
        data = bytes(300_000)
        assert light(heavy(light(heavy(data, b""), b"x"), b""), b"y").result() == data + b"xy"


def test_a_pool_may_have_threads(tmp_path: Path) -> None:
    config = pf.Config(executors=[THREADS], run_dir=tmp_path / "runs")
    with pf.PilotExecutor(config=config) as pool:
        assert list(pool.map(pow, range(5), range(5))) == [1, 1, 4, 27, 256]
        assert pool.submit(os.getpid).result() == os.getpid()


def test_more_urgent_work_comes_first(tmp_path: Path) -> None:
    one = pf.ThreadExecutorConfig(max_threads=1)
    order = tmp_path / "order"
    with pf.load(pf.Config(executors=[one], run_dir=tmp_path / "runs")) as run:
        first = wait_for(str(tmp_path / "go"))
        until(first.running, "its start")
        write = shell.options(stdout=str(order))
        futures = [write.options(priority=priority)(f"echo {priority}") for priority in (1, 3, 2)]
        until(lambda: run.counts().waiting == 3, "the others to wait")
        (tmp_path / "go").touch()
        for future in futures:
            future.result()
    assert order.read_text().split() == ["3", "2", "1"]


# ---- what cannot be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"timeout": 5}, "It says timeout, and a thread cannot be ended"),
        ({"runtime": "5m"}, "It says runtime, and a thread cannot be ended"),
        ({"cwd": "/tmp"}, "It says cwd, and a thread has the working directory"),
        ({"scratch": True}, "It says scratch, and a thread has the working directory"),
        ({"env": {"X": "1"}}, "It says env, and a thread has the working directory and the environment"),
        ({"num_nodes": 2}, "num_nodes or ranks_per_node, and a thread is on one node"),
    ],
)
def test_what_a_thread_cannot_do_is_refused_at_the_call(words: dict[str, Any], why: str, run: pf.Run) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        add.options(**words)(1)
    assert "executor 'threads'" in str(caught.value)
    assert "bind the app to an executor with processes" in str(caught.value)


def test_what_a_thread_does_not_count_is_ignored(run: pf.Run) -> None:
    assert add.options(num_cpus=64, memory="900g", num_gpus=8, resources={"licence": 3})(1, 1).result() == 2


def test_a_function_that_runs_in_a_thread_is_not_cancelled_and_that_is_said(run: pf.Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    running = [wait_for(str(go)) for _ in range(2)]
    until(lambda: all(future.running() for future in running), "both to run")
    waiting = add(1)
    assert not running[0].cancel()
    logged(run.directory, "threads of the program cannot be killed")
    assert waiting.cancel(), "what waits can be cancelled"
    assert not running[0].done()
    go.touch()
    assert running[0].result() == str(go)
    assert not running[0].cancel()


def test_cancelling_everything_ends_all_but_functions_that_run_and_says_so(run: pf.Run, tmp_path: Path) -> None:
    go, done = tmp_path / "go", tmp_path / "done"
    function, command = wait_for(str(go)), shell(f"echo $$ > {tmp_path}/pid; sleep 1000; touch {done}")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "its start")
    until(function.running, "the function to run")
    others = [shell(f"touch {done}"), add(1), add(function, "x"), add.options(retries=3)([command])]
    assert run.cancel_all() == 5, "the command, what waits for a thread, and what waits for others"
    for future in (command, *others):
        with pytest.raises(CancelledError):
            future.result(0)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the command")
    what = "not cancelled: what runs in threads of the program cannot be killed"
    logged(run.directory, what, f"These go on: task {function.task_id} (wait_for)\n", "(ExecutorConfig)")
    assert function.running(), "it is not said to be cancelled while it runs"
    until(lambda: run.counts() == Counts(running=1, cancelled=5), "all to be counted")
    assert run.cancel_all() == 0
    go.touch()
    assert function.result(30) == str(go)
    assert add(1, 1).result(30) == 2, "the run goes on"
    assert not done.exists()


@pf.python_app
def hold(path: str) -> None:
    Path(path).touch()
    while not os.path.exists(f"{path}.go"):
        time.sleep(0.001)


def test_what_was_cancelled_does_not_run_in_a_thread_whenever_that_comes(run: pf.Run, tmp_path: Path) -> None:
    cancelled: list[Path] = []
    for n in range(300):
        path = tmp_path / str(n)
        future = hold(str(path))
        until(lambda n=n, path=path: n % 3 == 0 or path.exists() or random.random() < 0.3, "some moment")  # type: ignore[misc]
        if future.cancel():
            cancelled.append(path)
        else:
            assert not future.cancelled()
        Path(f"{path}.go").touch()
    assert run.wait(30)
    assert cancelled
    assert len(cancelled) < 300
    assert [path.name for path in cancelled if path.exists()] == []


def test_closing_without_waiting_ends_what_can_be_ended(tmp_path: Path) -> None:
    run = pf.load(pf.Config(executors=[THREADS], run_dir=tmp_path / "runs"))
    function, command = wait_for(str(tmp_path / "go")), shell(f"echo $$ > {tmp_path}/pid; sleep 1000")
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "its start")
    run.close(wait=False)
    for future in (function, command):
        with pytest.raises(RunClosed):
            future.result(0)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the command")
    what = "not ended: what runs in threads of the program cannot be killed"
    logged(run.directory, what, f"These go on: task {function.task_id} (wait_for)\n")
    (tmp_path / "go").touch()


def test_the_programs_own_output_is_its_own_again(run: pf.Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    assert say.options(stdout=pf.AUTO_LOGNAME)("to a file").result() == "to a file"
    print("to the program's output")
    assert say("from a thread without a file").result()
    run.close()
    assert sys.stdout is before
    assert capsys.readouterr().out == "to the program's output\nfrom a thread without a file\n"


# ---- seen from outside ----------------------------------------------------------------------


def test_explain_and_counts_know_of_threads(run: pf.Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    futures = [wait_for(str(go)) for _ in range(4)]
    until(lambda: run.counts() == Counts(running=2, waiting=2), "two to run and two to wait")
    running, waiting = run.explain(futures[0]), run.explain(futures[3])
    assert running.state is State.RUNNING
    assert "in a thread of the program, on executor 'threads'" in str(running)
    assert waiting.state is State.WAITING
    assert "All 2 threads of executor 'threads' are busy" in str(waiting)
    assert "max_threads" in str(waiting)
    go.touch()
    for future in futures:
        future.result()
    until(lambda: run.counts() == Counts(done=4), "all to be counted")


def test_a_file_may_have_executors_of_threads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("executors:\n  - {max_threads: 4}\n  - {label: io, max_threads: 32}\n")
    assert load_config(path).thread_executors == (
        pf.ThreadExecutorConfig(max_threads=4),
        pf.ThreadExecutorConfig(label="io", max_threads=32),
    )
    check_as_text(str(path))
    shown = capsys.readouterr().out
    assert "threads of the program" in shown
    assert "runs at most 32 tasks at once, in this program: everything" in shown


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("executors: [{max_threads: 0}]", "1:27: executors[0].max_threads: 0 is not a whole number from 1 to 1000"),
        ("executors: [{max_threads: 2, provider: local}]", "executors[0].provider: there is no such key"),
        ("executors: [{max_threads: 2}, {max_threads: 3}]", "the default 'threads' is already that of executors[0]"),
    ],
)
def test_what_is_wrong_with_it_is_said_by_line_and_column(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert problem in str(caught.value)


def test_a_callback_sees_the_end_of_a_task_in_a_thread(run: pf.Run) -> None:
    seen: list[Any] = []
    done = threading.Event()

    def note(future: Any) -> None:
        seen.append(future.result())
        done.set()

    add(20, 1).add_done_callback(note)
    assert done.wait(30)
    assert seen == [21]
