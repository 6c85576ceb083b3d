"""Apps are made and called, are cancelled, and know of themselves."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import AUTO_LOGNAME, BashExitError, ConfigError, RunClosed
from tests.integration import call_tasks
from tests.integration.call_apps import WORKERS, add, gather, hold, hold_with_child, same, shell, talk, two_executors
from tests.processes import is_alive
from tests.waiting import until


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    with pf.load(two_executors(tmp_path_factory.mktemp("runs"))) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")


@pf.python_app
def block_of_this_worker() -> str:
    return os.environ.get("PILOTFLOW_WORKER", "") and Path("/proc/self/cmdline").read_bytes().decode()


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "hold")


# ---- decorators -----------------------------------------------------------------------------


def test_an_app_is_made_bare_or_with_keywords() -> None:
    bare = pf.python_app(call_tasks.three_kinds)
    worded = pf.python_app(retries=1, priority=2, num_cpus=1)(call_tasks.three_kinds)
    for app in (bare, worded):
        assert app(1).result() == (1, 2, 3)
        assert app(1, 5, c=7).result() == (1, 5, 7)
        assert app.__name__ == "three_kinds"
    assert repr(bare) == "<python_app three_kinds>"
    assert repr(worded) == "<python_app three_kinds, retries=1, priority=2, num_cpus=1>"
    with pytest.raises(TypeError, match="positional-only"):
        bare(a=1).result()


def test_a_call_may_use_any_keyword_of_the_function() -> None:
    words = {"self": 1, "function": 2, "args": 3, "output": 4, "_": 5}
    assert gather(**words).result() == ((), words)
    assert gather(inputs=[], **words).result() == ((), words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"executor": ["cpu"]}, "no keyword 'executor'.*executors"),
        ({"num_cpu": 1}, "no keyword 'num_cpu'.*num_cpus"),
        ({"nonsense": 1}, "no keyword 'nonsense'"),
        ({"walltime": 5}, "no keyword 'walltime': say timeout .* or runtime"),
        ({"data_flow_kernel": None}, "no keyword 'data_flow_kernel': .* pilotflow.load"),
        ({"parsl_resource_specification": {}}, "num_cpus, memory"),
        ({"num_cpus": 0}, "num_cpus"),
        ({"memory": "lots"}, "memory"),
        ({"executors": 5}, "takes a list of executor labels"),
        ({"executors": [5]}, "takes a list of executor labels"),
        ({"retries": -1}, "retries=...*whole number from 0"),
        ({"retries": True}, "whole number from 0"),
        ({"crash_limit": 0}, "whole number from 1"),
        ({"stdout": 5}, "takes a path"),
        ({"stderr": ("x", "rb")}, "takes a path"),
        ({"stderr": "a\0b"}, r"stderr=...\) takes a path without the character NUL"),
        ({"label": "a/b"}, "takes a name for files"),
        ({"label": 7}, "takes a name for files"),
        ({"label": "a\0b"}, "takes a name for files"),
        ({"label": "ä" * 101}, r"label=...\) names files, with at most 200 bytes; .* has 202\. Shorten it"),
        ({"cwd": 5}, r"cwd=...\) takes the path of a directory, not 5"),
        ({"env": ["A"]}, "env=...* takes names and values"),
        ({"env": {"A=B": "x"}}, "'A=B' cannot be the name"),
        ({"env": {"A": 1}}, "the value 1 of 'A' is int, expected a string"),
        ({"env": {"A": "x\0"}}, "of 'A' holds the character NUL"),
    ],
)
def test_a_wrong_keyword_or_value_is_refused_with_the_nearest_right_one(words: dict[str, Any], message: str) -> None:
    for decorator in (pf.python_app, pf.bash_app):
        with pytest.raises(ConfigError, match=message):
            decorator(**words)


def test_only_functions_can_be_decorated() -> None:
    with pytest.raises(ConfigError, match="decorates a function, not int"):
        pf.python_app(5)  # type: ignore[call-overload]


def test_async_functions_run_to_their_end_and_generators_are_refused() -> None:
    @pf.python_app
    async def later(x: int) -> int:
        await asyncio.sleep(0.001)
        return x + 1

    @pf.bash_app
    async def command(code: int) -> str:
        return f"exit {code}"

    assert later(1).result() == 2
    assert command(0).result() == 0
    with pytest.raises(BashExitError, match="'command' ended with exit code 5"):
        command(5).result()
    with pytest.raises(pf.SerializationError, match=r"argument args\[0\] \(lock\)"):
        later(threading.Lock()).result()

    def count() -> Iterator[int]:
        yield 1

    decorators: list[Any] = [pf.python_app, pf.bash_app, pf.join_app]
    for decorator in decorators:
        with pytest.raises(ConfigError, match=r"cannot decorate 'count', which yields: .* Return a list"):
            decorator(count)
    with pytest.raises(
        pf.SerializationError, match=r"the result of .* \(generator\) .* return a list of what it yields"
    ):
        pf.python_app(lambda: (i for i in range(3)))().result()


def test_methods_and_static_methods_can_be_apps() -> None:
    box = call_tasks.Box(10)
    assert box.app_method(3).result() == 7
    assert call_tasks.Box.app_static(3).result() == -3
    assert box.app_static(4).result() == -4


def test_decorated_functions_keep_their_decoration() -> None:
    assert call_tasks.double_decorated(1).result() == ["traced", 2]
    assert call_tasks.traced_app(2).result() == ["traced", 20]


def test_an_app_called_inside_a_task_is_a_clear_error() -> None:
    @pf.python_app
    def by_value(x: int) -> Any:
        return call_tasks.inner_app(x)

    local_app = pf.python_app(call_tasks.same)
    closure = pf.python_app(lambda x: [local_app(x)])
    for app in (call_tasks.calls_an_app, by_value, closure):
        with pytest.raises(RunClosed, match="was called inside a task, and tasks cannot submit tasks"):
            app(1).result()


def test_apps_are_bound_to_executors_by_label() -> None:
    for label in ("cpu", "other"):
        app = pf.python_app(executors=[label])(block_of_this_worker.__pilotflow_function__)
        assert f"--executor\0{label}\0" in app().result()
    assert pf.python_app(executors="all")(call_tasks.same)(1).result() == 1
    with pytest.raises(ConfigError, match="bound to executor 'gpu', and this run has: cpu, other"):
        pf.python_app(executors=["gpu"])(call_tasks.same)(1)


# ---- futures --------------------------------------------------------------------------------


def test_an_app_future_is_a_future_and_can_be_awaited() -> None:
    async def use() -> list[Any]:
        return [await same(1), *await asyncio.gather(add(1, 1), add(same(1), 2))]

    assert isinstance(same(0), Future)
    assert asyncio.run(use()) == [1, 2, 3]


def test_cancel_ends_tasks_that_wait_are_queued_or_run(run: pf.Run, place: str) -> None:
    assert run.wait(30)
    busy = [hold_with_child(f"{place}{i}") for i in range(WORKERS)]
    workers = [until(partial(call_tasks.started, f"{place}{i}")) for i in range(WORKERS)]
    queued, waiting = hold(f"{place}-queued"), same(busy[0])
    for future in (waiting, queued, *busy):
        assert future.cancel()
        assert future.cancelled()
        with pytest.raises(CancelledError):
            future.result()
    children = [int(Path(f"{place}{i}.child").read_text(encoding="ascii")) for i in range(WORKERS)]
    until(lambda: not any(map(is_alive, (*workers, *children))), "the end of all processes")
    ended = same(1)
    assert ended.result() == 1
    assert not ended.cancel()
    assert call_tasks.started(f"{place}-queued") is None


def test_cancel_ends_a_running_command_with_its_children(tmp_path: Path) -> None:
    future = shell(f"sleep 1000 & echo $! > {tmp_path}/pid; echo > {tmp_path}/ready; wait")
    until((tmp_path / "ready").exists)
    pid = int((tmp_path / "pid").read_text())
    assert future.cancel()
    until(lambda: not is_alive(pid), "the end of the command's child")


def test_a_task_cancelled_right_after_its_submission_never_runs(run: pf.Run, tmp_path: Path) -> None:
    for i in range(200):
        assert shell(f"touch {tmp_path}/{i}.{'x' * 10}").cancel()
    assert run.wait(30)
    assert same(1).result() == 1
    assert len(list(tmp_path.iterdir())) < 20, "only what had started in that moment"


def test_the_run_loaded_last_is_current_until_it_is_closed(tmp_path: Path) -> None:
    app = pf.python_app(call_tasks.pid)
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)) as other:
        inside = app().result()
        with pf.PilotExecutor(1, run_dir=tmp_path) as ex:
            assert ex.submit(call_tasks.pid).result() != inside
            assert app().result() == inside, "a pool's run is its own"
    assert repr(other).endswith("closed>")
    assert app().result() != inside


# ---- options and surroundings ---------------------------------------------------------------


def surroundings(name: str) -> tuple[str, str | None, int]:
    return os.getcwd(), os.environ.get(name), os.getpid()


def test_options_replace_keywords_for_a_call_without_clashing_with_arguments(tmp_path: Path) -> None:
    bound = pf.python_app(executors=["cpu"], label="one")(call_tasks.gather)
    args, kwargs = bound.options(memory="64m", retries=2, label="two")(1, retries="mine", memory=3).result()
    assert (args, kwargs) == ((1,), {"retries": "mine", "memory": 3})
    out = bound.options(stdout=AUTO_LOGNAME)().stdout
    assert out
    assert Path(out).name.startswith("one-")
    with pytest.raises(ConfigError, match=r"gather.options has no keyword 'memry'.* Did you mean memory\?"):
        bound.options(memry=1)
    with pytest.raises(ConfigError, match="bound to executor 'gpu'"):
        bound.options(executors="gpu")()
    box = call_tasks.Box(10)
    assert box.app_method.options(num_cpus=1)(3).result() == 7
    assert [future.result() for future in box.app_method.map(range(3))] == [10, 9, 8]


def test_arguments_of_the_wrong_type_are_named(run: pf.Run, place: str) -> None:
    wrong: Any = "5"
    with pytest.raises(ConfigError, match=r"result\(timeout=\.\.\.\): '5' is str, expected float\."):
        (held := hold(place)).result(wrong)
    with pytest.raises(ConfigError, match=r"wait\(timeout=\.\.\.\): '5' is str, expected float"):
        run.wait(wrong)
    assert held.cancel()
    with pytest.raises(ConfigError, match=r"same.options: num_cpus='many': is str, expected a number of cores"):
        same.options(num_cpus="many")
    with pytest.raises(ConfigError, match=r"decorates a function, not str. Keywords have names: @python_app\("):
        pf.python_app(wrong)
    with pytest.raises(ConfigError, match=r'returned None. End its function with `return f"..."`'):
        pf.bash_app(lambda: None)().result()  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match=r"the task's stderr cannot go to /proc/nowhere/err .*, or use AUTO_LOGNAME"):
        talk("x", stderr="/proc/nowhere/err").result()


def test_map_submits_a_call_for_each_item_in_order() -> None:
    futures = add.map(range(2_000), itertools.count(1))
    assert [future.result() for future in futures] == [2 * i + 1 for i in range(2_000)]
    assert [future.task_id for future in futures] == sorted(future.task_id for future in futures)
    assert [future.result() for future in add.map("ab", y="c")] == ["ac", "bc"]
    assert add.map([]) == []
    big = bytes(200_000)
    mixed = [1, big, same(3), threading.Lock(), 5]
    results = same.map(mixed)
    assert [future.task_id for future in results] == sorted(future.task_id for future in results)
    assert [future.result() for future in (results[0], results[1], results[2], results[4])] == [1, big, 3, 5]
    with pytest.raises(pf.SerializationError, match=r"in a call of app 'same': argument args\[0\] \(lock\)"):
        results[3].result()
    with pytest.raises(ConfigError, match=r"add.map takes iterables, and number 2 is int"):
        add.map([1], 2)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least one iterable"):
        add.map()


def test_a_task_runs_in_the_directory_and_with_the_variables_that_it_asks_for(tmp_path: Path) -> None:
    app = pf.python_app(executors=["other"])(surroundings)
    before, _, pid = app("X").result()
    inside = app.options(cwd=tmp_path, env={"PF_WORD": "here", "PATH": None})
    assert inside("PF_WORD").result() == (str(tmp_path), "here", pid)
    assert inside("PATH").result()[1] is None
    assert app("PF_WORD").result() == (before, None, pid), "the worker is as it was"
    assert app("PATH").result()[1]
    out = tmp_path / "out"
    command = shell.options(cwd=str(tmp_path), env={"PF_WORD": "there"})('pwd; echo "$PF_WORD"', stdout=out)
    assert command.result() == 0
    assert out.read_text() == f"{tmp_path}\nthere\n"
    assert shell.options(cwd=tmp_path, env={"PF_WORD": "x"})("test $PF_WORD = x", inputs=[same(1)]).result() == 0
    with pytest.raises(ConfigError, match=r"cwd of 'surroundings' cannot be entered.*there on every node"):
        app.options(cwd=tmp_path / "nowhere")("X").result()


# ---- what a task knows ----------------------------------------------------------------------


def about_itself() -> tuple[pf.TaskContext, str, str | None]:
    Path("left").write_text("x", encoding="ascii")
    return pf.current_task(), os.getcwd(), os.environ.get("PILOTFLOW_SCRATCH")


def test_a_task_that_changes_its_directory_leaves_the_next_one_where_it_was(tmp_path: Path) -> None:
    with pf.PilotExecutor(max_workers=1, run_dir=tmp_path, initializer=os.chdir, initargs=(str(tmp_path),)) as ex:
        for where in ("/", tmp_path / "gone"):
            assert ex.submit(call_tasks.go_to, str(where)).result() == str(where)
            assert ex.submit(os.getcwd).result() == str(tmp_path)


def test_a_task_knows_its_name_request_run_and_place(run: pf.Run, tmp_path: Path) -> None:
    app = pf.python_app(num_cpus=0.5, memory="64m", executors=["cpu"], cwd=tmp_path)(about_itself)
    future = app()
    task, cwd, variable = future.result()
    assert (task.id, task.name, task.run_directory) == (future.task_id, "about_itself", run.directory)
    assert (task.request.cpus_milli, task.request.memory_bytes) == (500, 64 << 20)
    assert task.attempt >= 1
    assert (task.node, task.scratch, variable, cwd) == (os.uname().nodename, None, None, str(tmp_path))
    with pytest.raises(RunClosed, match="No task is running here"):
        pf.current_task()


def test_a_scratch_directory_is_gone_after_success_and_kept_after_a_failure(run: pf.Run, tmp_path: Path) -> None:
    task, cwd, variable = pf.python_app(scratch=True)(about_itself)().result()
    assert task.scratch is not None
    assert str(task.scratch) == cwd == variable
    assert task.scratch.parent == run.directory / "scratch"
    assert not task.scratch.exists()
    task, cwd, variable = pf.python_app(scratch=True, cwd=tmp_path)(about_itself)().result()
    assert (cwd, variable) == (str(tmp_path), str(task.scratch))
    command = shell.options(scratch=True)
    assert command("echo x > left; test -f $PILOTFLOW_SCRATCH/left").result() == 0
    failing = command("echo why > left; exit 3")
    with pytest.raises(BashExitError):
        failing.result()
    (kept,) = (run.directory / "scratch").iterdir()
    assert kept.name.startswith(f"shell-{failing.task_id:06d}-")
    assert (kept / "left").read_text() == "why\n"
    assert kept.stat().st_mode & 0o777 == 0o700
    assert pf.python_app(cwd=tmp_path)(about_itself)().result()[0].scratch is None


def test_scratch_directories_go_where_the_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PF_TEST_PLACE", str(tmp_path / "fast"))
    config = pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path, scratch_dir="$PF_TEST_PLACE/tasks")
    with pf.load(config):
        task, _, _ = pf.python_app(scratch=True)(about_itself)().result()
    assert task.scratch is not None
    assert task.scratch.parent == tmp_path / "fast" / "tasks"
    (tmp_path / "file").touch()
    config = pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path, scratch_dir=str(tmp_path / "file"))
    words = r"scratch directory of 'shell' cannot be made .* Set scratch_dir"
    with pf.load(config), pytest.raises(ConfigError, match=words):
        shell.options(scratch=True)("true").result()
