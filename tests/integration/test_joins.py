"""Apps that start apps: their results are those of what they return, at any depth."""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pilotflow as pf
from pilotflow import ConfigError, DependencyError, RunClosed
from tests.integration import call_tasks, retry_tasks
from tests.waiting import until


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    with pf.load(pf.Config.for_this_machine(max_workers=2, run_dir=tmp_path_factory.mktemp("runs"))) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")

same = pf.python_app(call_tasks.same)
add = pf.python_app(call_tasks.add)
fail = pf.python_app(call_tasks.fail)
hold = pf.python_app(call_tasks.hold)


@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any


class Point(NamedTuple):
    x: Any
    y: Any


@pf.join_app
def fibonacci(n: int) -> Any:
    return add(fibonacci(n - 1), fibonacci(n - 2)) if n > 1 else n


@pf.join_app
def down(n: int) -> Any:
    """One join after the other, each the result of the one before."""
    return down(n - 1) if n else same("the bottom")


@pf.join_app
def nest(n: int) -> Any:
    """As `down`, with a list around each."""
    return [nest(n - 1)] if n else fail("at the bottom")


def test_a_join_is_what_the_apps_give_that_it_starts() -> None:
    assert fibonacci(10).result(60) == 55
    assert add(fibonacci(3), same(1)).result(30) == 3, "as an argument of an app"
    assert fibonacci(same(4)).result(30) == 3, "with futures as arguments"


def test_futures_anywhere_in_what_it_returns_are_replaced() -> None:
    @pf.join_app
    def many(x: Any) -> Any:
        one, foreign = same(x), Future[int]()
        threading.Timer(0.05, foreign.set_result, [7]).start()
        counter: dict[Any, Any] = collections.defaultdict(list, {one: [same(2)]})
        return [one, (same(3), {one, 5}), Pair(one, [foreign]), Point(one, 2), counter, collections.deque([one])]

    value = many(1).result(30)
    assert value == [1, (3, {1, 5}), Pair(1, [7]), Point(1, 2), {1: [2]}, collections.deque([1])]
    assert type(value[3]) is Point
    assert value[4]["new"] == []

    @pf.join_app
    def nothing() -> Any:
        return []

    assert nothing().result(30) == []


def test_the_function_runs_in_the_program_with_the_objects_themselves() -> None:
    lock, seen = threading.Lock(), []

    @pf.join_app
    def use(inner: Any, value: Any, given: Any) -> Any:
        seen.append((given is lock, value, threading.current_thread() is not threading.main_thread()))
        return inner(value)

    assert use(same, [same(1)], given=lock).result(30) == [1]
    assert seen == [(True, [1], True)]

    @pf.join_app
    async def later() -> Any:
        return [await same(1), same(2)]

    assert later().result(30) == [1, 2]


def test_joins_nest_a_thousand_deep() -> None:
    assert down(1_000).result(120) == "the bottom"
    future = nest(1_000)
    with pytest.raises(DependencyError, match=r"'fail' .* failed: ValueError: at the bottom") as caught:
        future.result(120)
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(str(caught.value)) < 1_000
    assert f"'nest' (task {future.task_id}) has no result: it needs 'nest'" in str(caught.value)


def test_joins_that_all_wait_in_their_functions_end_all_the_same() -> None:
    @pf.join_app
    def impatient(n: int) -> Any:
        return same(n).result(60) + (impatient(n - 1).result(60) if n else 0)

    assert impatient(20).result(100) == sum(range(21))


def test_what_a_join_raises_and_what_it_needs_fails_it_in_words() -> None:
    @pf.join_app
    def broken(_: Any = None) -> Any:
        raise LookupError("no such table")

    with pytest.raises(LookupError, match="no such table"):
        broken().result(30)
    with pytest.raises(DependencyError, match=r"'broken' .* did not run: it needs 'fail' .* as told"):
        broken(fail()).result(30)
    with pytest.raises(DependencyError, match=r"'same' .* did not run: it needs 'broken' .* LookupError"):
        same(broken()).result(30)
    kept = broken.options(allow_failed=True)(fail())
    with pytest.raises(LookupError):
        kept.result(30)

    @pf.join_app
    def bad_key() -> Any:
        return {same([1]): 1}

    with pytest.raises(TypeError, match="unhashable"):
        bad_key().result(30)


def test_a_join_may_be_tried_again(tmp_path: Path) -> None:
    @pf.join_app(retries=2)
    def flaky() -> Any:
        return same(retry_tasks.fail_times(str(tmp_path / "tries"), 2))

    assert flaky().result(30) == 3


def test_a_join_sees_failures_if_it_wants_to() -> None:
    @pf.join_app(allow_failed=True)
    def repair(value: Any) -> Any:
        return same("instead") if isinstance(value, ValueError) else same(value)

    assert repair(fail()).result(30) == "instead"
    assert repair(same(1)).result(30) == 1


def test_to_cancel_a_join_cancels_what_it_has_started(tmp_path: Path) -> None:
    place, inner = str(tmp_path / "hold"), []

    @pf.join_app
    def start() -> Any:
        inner.extend([hold(place), same(1)])
        return inner

    future = start()
    until(partial(call_tasks.started, place))
    after = same(future)
    assert future.cancel()
    until(lambda: bool(inner) and inner[0].done())
    with pytest.raises(CancelledError):
        inner[0].result(0)
    with pytest.raises(DependencyError, match=r"'start' .* was cancelled"):
        after.result(30)


def test_a_run_waits_for_its_joins_and_they_stay_with_it(tmp_path: Path) -> None:
    started, go = threading.Event(), threading.Event()

    @pf.join_app
    def slow() -> Any:
        started.set()
        assert go.wait(30)
        return pf.python_app(call_tasks.pid)()

    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)) as first:
        future = slow()
        assert started.wait(30)
        with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)) as second:
            other = pf.python_app(call_tasks.pid)()
            go.set()
            assert future.result(30) != other.result(30), "it submits to the run that it is of"
        assert first.wait(30)
        go.clear()
        started.clear()
        last = slow()
        assert started.wait(30)
        assert "Its function runs in a thread of the program" in str(first.explain(last))
        threading.Timer(0.1, go.set).start()
    assert last.done()
    assert second.directory != first.directory
    abandoned = None
    with pytest.raises(KeyError), pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)):
        go.clear()
        started.clear()
        abandoned = slow()
        assert started.wait(30)
        raise KeyError
    assert abandoned is not None
    with pytest.raises(RunClosed):
        abandoned.result(60)
    go.set()


def test_everything_of_a_join_can_be_cancelled_at_once(run: pf.Run, tmp_path: Path) -> None:
    future = down(same(hold(str(tmp_path / "hold"))))
    until(partial(call_tasks.started, str(tmp_path / "hold")))
    assert run.cancel_all() == 3
    assert future.cancelled()


@pytest.mark.parametrize("word", ["memory", "executors", "stdout", "timeout", "cwd"])
def test_keywords_of_tasks_that_run_on_workers_are_refused(word: str) -> None:
    value: Any = {"memory": "1g", "executors": ["a"], "stdout": "x", "timeout": 1, "cwd": "/"}[word]
    with pytest.raises(ConfigError, match=f"@join_app has no keyword '{word}': the function runs in your program"):
        pf.join_app(**{word: value})
    with pytest.raises(ConfigError, match="Did you mean retries"):
        pf.join_app(retry=1)


def test_methods_and_lists_of_calls_work_too() -> None:
    class Maker:
        @pf.join_app
        def both(self, x: int) -> Any:
            return [same(x), same(self.times(x))]

        def times(self, x: int) -> int:
            return x * 10

    assert [future.result(30) for future in Maker().both.map(range(3))] == [[0, 0], [1, 10], [2, 20]]
    assert repr(fibonacci) == "<join_app fibonacci>"
    future = fibonacci(5)
    future.result(30)
    time.sleep(0)
    assert repr(future).startswith("<AppFuture fibonacci #")
