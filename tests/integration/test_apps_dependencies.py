"""Apps depend on each other through futures, promised files and parts of results; what fails says what it began with."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import AUTO_LOGNAME, BashExitError, ConfigError, DependencyError
from tests.integration import call_tasks
from tests.integration.call_apps import add, fail, gather, hold, same, shell, two_executors


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    with pf.load(two_executors(tmp_path_factory.mktemp("runs"))) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "hold")


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


def test_whether_a_part_of_a_result_is_true_is_not_known() -> None:
    part = same({"converged": False})["converged"]
    for _ in range(2):
        with pytest.raises(TypeError, match=r"whether same\['converged'\] is true is not known: .* its \.result\(\)"):
            assert not part
        assert part.result() is False


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
