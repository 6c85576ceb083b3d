"""Apps are called, depend on each other through futures, write files, fail in words, and are cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import AUTO_LOGNAME, BashExitError, ConfigError, DependencyError, RunClosed
from tests.integration import call_tasks
from tests.processes import is_alive
from tests.waiting import until

WORKERS = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    config = pf.Config(
        run_dir=tmp_path_factory.mktemp("runs"),
        executors=[
            pf.ExecutorConfig(label="cpu", max_workers_per_node=WORKERS),
            pf.ExecutorConfig(label="other", max_workers_per_node=1),
        ],
    )
    with pf.load(config) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")

same = pf.python_app(executors=["cpu"])(call_tasks.same)
add = pf.python_app(executors=["cpu"])(call_tasks.add)
gather = pf.python_app(call_tasks.gather)
hold = pf.python_app(executors=["cpu"])(call_tasks.hold)
hold_with_child = pf.python_app(executors=["cpu"])(call_tasks.hold_with_child)
fail = pf.python_app(call_tasks.fail)


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
    with pytest.raises(pf.SerializationError, match=r"the result \(generator\) .* return a list of what it yields"):
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


# ---- dependencies ---------------------------------------------------------------------------


@dataclass
class Holder:
    inside: Any


def test_futures_anywhere_in_the_arguments_are_dependencies() -> None:
    one, two = same(1), same(2)
    args, kwargs = gather(
        one, [one, (two, {one: two})], {one, two}, Holder([two]), key=one, deep={"a": [{"b": two}]}
    ).result()
    assert args == (1, [1, (2, {1: 2})], {1, 2}, Holder([2]))
    assert kwargs == {"key": 1, "deep": {"a": [{"b": 2}]}}
    one.result()
    assert add(one, one).result() == 2, "of one that has ended, twice"


def test_foreign_futures_are_dependencies_too() -> None:
    foreign: Future[int] = Future()
    late = add(foreign, 1)
    foreign.set_result(1)
    assert late.result() == 2
    assert add(foreign, 2).result() == 3
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert add(pool.submit(pow, 2, 3), 1).result() == 9
    for wrong in (ValueError("foreign"), None):
        failed: Future[Any] = Future()
        future = same(failed)
        failed.set_exception(wrong) if wrong else failed.set_result(open)
        if wrong:
            with pytest.raises(DependencyError, match="foreign"):
                future.result()
        else:
            assert future.result() is open
    unpicklable: Future[Any] = Future()
    before = same(unpicklable)
    unpicklable.set_result(i for i in "abc")
    for future in (before, same(unpicklable)):
        with pytest.raises((DependencyError, pf.SerializationError), match="generator"):
            future.result()


def test_inputs_are_waited_for_and_dropped(place: str) -> None:
    first = hold(place)
    second = same(5, inputs=[first, "x"])
    third = same(6, inputs=(f for f in [second]))
    assert not second.done()
    call_tasks.let_go(place)
    assert [second.result(), third.result()] == [5, 6]
    with pytest.raises(DependencyError, match="as told"):
        same(1, inputs=[fail()]).result()
    with pytest.raises(ConfigError, match=r"inputs=.* takes a list"):
        same(1, inputs=5)


def test_a_function_with_a_parameter_inputs_gets_them() -> None:
    @pf.python_app
    def total(inputs: list[int]) -> int:
        return sum(inputs)

    assert total(inputs=[same(1), same(2), 3]).result() == 6


def test_the_failure_of_a_dependency_names_the_chain_and_its_root() -> None:
    first = fail("the root")
    last = add(add(first, 1), 1)
    with pytest.raises(DependencyError) as caught:
        last.result()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.chain == (f"'add' (task {last.task_id - 1})", f"'fail' (task {first.task_id})")
    with pytest.raises(DependencyError, match="ValueError: the root"):
        same(first).result()


def test_a_cancelled_dependency_is_told(place: str) -> None:
    first = hold(place)
    second = same([first])
    assert first.cancel()
    with pytest.raises(DependencyError, match="was cancelled") as caught:
        second.result()
    assert isinstance(caught.value.__cause__, CancelledError)
    with pytest.raises(DependencyError, match="was cancelled"):
        same(first).result()


def test_a_chain_of_5000_and_a_fan_in_of_1000_work() -> None:
    link = same(0)
    for _ in range(5_000):
        link = add(link, 1)
    assert link.result() == 5_000
    numbers = [same(i) for i in range(1_000)]
    assert pf.python_app(sum)(numbers).result() == sum(range(1_000))


def test_a_failure_at_the_head_of_a_chain_of_5000_reaches_its_end(place: str) -> None:
    @pf.python_app
    def fail_later(path: str) -> Any:
        call_tasks.hold(path)
        raise ValueError("the root")

    link = fail_later(place)
    for _ in range(5_000):
        link = add(link, 1)
    call_tasks.let_go(place)
    error = link.exception()
    assert isinstance(error, DependencyError)
    assert isinstance(error.__cause__, ValueError)
    assert len(str(error)) < 1_000


# ---- output ---------------------------------------------------------------------------------


@pf.python_app
def talk(word: str) -> str:
    print("printed", word)
    os.system(f"echo child {word}; echo trouble {word} >&2")
    return word


@pf.bash_app
def shell(command: str) -> str:
    return command


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


# ---- promised files -------------------------------------------------------------------------


@pf.bash_app
def write_all(outputs: Any = ()) -> str:
    return "\n".join(f"echo {path} > {path}" for path in outputs)


@pf.python_app
def read(path: Any) -> tuple[str, str]:
    return type(path).__name__, Path(path).read_text(encoding="utf-8").strip()


def test_promised_files_are_futures_that_other_apps_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    future = write_all(outputs=["a.txt", Path("b.txt"), tmp_path / "c.txt"])
    first, second, third = future.outputs
    assert read(first).result() == ("str", f"{tmp_path}/a.txt")
    assert read(second).result() == ("PosixPath", f"{tmp_path}/b.txt")
    assert same([third]).result() == [tmp_path / "c.txt"]
    assert (first.result(), future.result()) == (f"{tmp_path}/a.txt", 0)
    assert repr(first) == f"<PartFuture write_all.outputs[0] #{future.task_id} done>"
    elsewhere = write_all.options(cwd=tmp_path / "there")(["d.txt"])
    assert read(elsewhere.outputs[0]).result() == ("str", f"{tmp_path}/there/d.txt")
    assert same(1, outputs=[tmp_path / "a.txt"]).outputs[0].result() == tmp_path / "a.txt"
    assert same(1).outputs == ()


def test_a_promised_file_that_is_missing_is_named(tmp_path: Path) -> None:
    future = shell(f"touch {tmp_path}/a", outputs=[tmp_path / "a", tmp_path / "b", str(tmp_path / "c")])
    with pytest.raises(pf.MissingOutputs, match=r"'shell' has ended on .* what it promised in outputs: ") as caught:
        future.result()
    assert caught.value.paths == (f"{tmp_path}/b", f"{tmp_path}/c")
    with pytest.raises(DependencyError, match=r"MissingOutputs: .*/b, .*/c. See that it writes to these very paths"):
        read(future.outputs[0]).result()
    with pytest.raises(DependencyError, match=r"'shell.outputs\[1\]' .* cannot be had: it needs 'shell'"):
        future.outputs[1].result()
    with pytest.raises(BashExitError):
        shell("exit 3", outputs=[tmp_path / "z"]).result()
    for wrong in ("a.txt", 5, [5]):
        with pytest.raises(ConfigError, match=r"outputs=\.\.\. takes a list of paths"):
            shell("true", outputs=wrong)


def test_parts_of_a_result_are_taken_where_they_are_needed() -> None:
    pair = same([[1, 2], {"k": call_tasks.Box(5)}])
    assert add(pair[0][1], pair[1]["k"].value).result() == 7
    assert [pair[0].result(), gather(x=[pair[0][0]]).result()] == [[1, 2], ((), {"x": [1]})]
    with pytest.raises(
        DependencyError, match=r"'same\[9\]' cannot be had of that result \(list\): IndexError: list"
    ) as e:
        add(pair[9], 1).result()
    assert isinstance(e.value.__cause__, Exception)
    with pytest.raises(DependencyError, match=r"ValueError: the root"):
        add(fail("the root")[0], 1).result()


def test_the_failure_of_a_dependency_shows_the_stderr_of_the_first_failure(run: pf.Run) -> None:
    first = shell("echo the compiler says no >&2; exit 2", stderr=AUTO_LOGNAME)
    last = same(same(first))
    with pytest.raises(DependencyError, match=r"'same' .* <- 'shell' .* exit code 2") as caught:
        last.result()
    assert f"({first.stderr}) ends with:\nthe compiler says no" in str(caught.value)
    assert str(caught.value).count("the compiler says no") == 1

    @pf.python_app
    def warn_and_fail() -> None:
        os.system("echo the file is empty >&2")
        raise ValueError("no data")

    bad = warn_and_fail(stderr=AUTO_LOGNAME)
    with pytest.raises(DependencyError) as caught:
        same(same(bad)).result()
    where = f"The stderr of 'warn_and_fail' (task {bad.task_id}) ({bad.stderr}) ends with:\nthe file is empty"
    assert str(caught.value).endswith(where)
    assert "ValueError: no data" in str(caught.value)
    assert caught.value.stderr == bad.stderr


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
