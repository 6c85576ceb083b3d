"""PilotExecutor honours the contract of `concurrent.futures.Executor`.

The ideas come from CPython's own tests of its executors.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import math
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pilotflow import ConfigError, PilotExecutor, SerializationError, WorkerLost
from pilotflow.errors import RemoteTraceback
from pilotflow.executor import BY_VALUE_MAX, PilotFuture
from tests.integration import call_tasks
from tests.integration.executors import WORKERS, two_workers
from tests.processes import is_alive
from tests.waiting import until


@pytest.fixture(scope="module")
def ex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PilotExecutor]:
    with two_workers(tmp_path_factory.mktemp("runs")) as executor:
        yield executor


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "hold")


# ---- submit ---------------------------------------------------------------------------------


def test_submit_calls_the_function_in_another_process(ex: PilotExecutor) -> None:
    assert ex.submit(call_tasks.add, 1, 2).result() == 3
    assert ex.submit(call_tasks.pid).result() != os.getpid()
    assert isinstance(ex, concurrent.futures.Executor)
    assert isinstance(ex.submit(pow, 2, 5), Future)


def test_keywords_of_submit_belong_to_the_function(ex: PilotExecutor) -> None:
    words = {"fn": 1, "self": 2, "executor": 3, "args": 4, "kwargs": 5, "timeout": 6, "num_cpus": 7, "inputs": 8}
    assert ex.submit(call_tasks.gather, 0, **words).result() == ((0,), words)
    assert ex.submit(partial(call_tasks.gather, function=1), **words).result() == ((), {"function": 1, **words})


def test_submit_needs_a_function(ex: PilotExecutor) -> None:
    with pytest.raises(TypeError):
        ex.submit()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ex.submit(fn=call_tasks.add, x=1)  # type: ignore[call-arg]


def test_any_callable_can_be_submitted(ex: PilotExecutor) -> None:
    offset = 100
    box = call_tasks.Box(5)
    calls: list[tuple[Any, tuple[Any, ...], Any]] = [
        (pow, (2, 10), 1024),
        (math.sqrt, (16,), 4.0),
        (lambda x: x + offset, (1,), 101),
        (partial(call_tasks.add, y=3), (4,), 7),
        (box, (1,), 6),
        (box.method, (3,), 15),
        ("abc".upper, (), "ABC"),
        (complex, (1, 2), 1 + 2j),
        (call_tasks.decorated, (1,), ["traced", 2]),
    ]
    futures = [ex.submit(function, *args) for function, args, _ in calls]
    assert [future.result() for future in futures] == [expected for _, _, expected in calls]


def test_a_lambda_for_each_call_does_not_pile_up_functions(ex: PilotExecutor) -> None:
    before = len(ex.run.client.definitions.known)
    futures = [ex.submit(lambda i=i: i) for i in range(BY_VALUE_MAX + 200)]
    assert sum(future.result() for future in futures) == sum(range(BY_VALUE_MAX + 200))
    assert len(ex.run.client.definitions.known) - before <= BY_VALUE_MAX


def test_futures_are_dependencies_here_too(ex: PilotExecutor) -> None:
    first = ex.submit(call_tasks.add, 1, 2)
    assert ex.submit(call_tasks.add, first, [first].pop()).result() == 6


def test_a_request_goes_with_each_call_of_options(ex: PilotExecutor) -> None:
    two = ex.options(num_cpus=2, priority=3)
    assert two.submit(call_tasks.add, 1, 2).result() == 3
    assert list(two.map(pow, [1, 2, 3], [2, 2, 2], chunksize=2)) == [1, 4, 9]
    with pytest.raises(ConfigError, match="num_cpus"):
        ex.options(num_cpu=2)
    with pytest.raises(ConfigError, match="num_cpus"):
        ex.options(num_cpus=-1)


def test_the_repr_says_what_it_is(ex: PilotExecutor) -> None:
    assert repr(ex).startswith("<PilotExecutor of <Run ")
    future = ex.submit(call_tasks.same, 1)
    future.result()
    assert repr(future) == f"<PilotFuture same #{future.task_id} done>"


# ---- the standard library's helpers ---------------------------------------------------------


def test_wait_and_as_completed_work(ex: PilotExecutor, place: str) -> None:
    held = ex.submit(call_tasks.hold, place)
    quick = [ex.submit(call_tasks.same, i) for i in range(20)]
    done, waiting = concurrent.futures.wait([held, *quick], return_when=concurrent.futures.FIRST_COMPLETED)
    assert done
    assert held in waiting
    assert {f.result() for f in concurrent.futures.as_completed(quick, 30)} == set(range(20))
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([held, *quick], timeout=0.01))
    call_tasks.let_go(place)
    assert concurrent.futures.wait([held], 30).done == {held}
    failed = ex.submit(call_tasks.fail)
    assert concurrent.futures.wait([failed], 30, concurrent.futures.FIRST_EXCEPTION).done == {failed}


def test_it_serves_asyncio(ex: PilotExecutor) -> None:
    async def use() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(ex, call_tasks.add, 1, 2) == 3
        assert await ex.submit(call_tasks.add, 3, 4) == 7
        with pytest.raises(ValueError, match="as told"):
            await loop.run_in_executor(ex, call_tasks.fail)
        numbers = await asyncio.gather(*(ex.submit(call_tasks.same, i) for i in range(100)))
        assert numbers == list(range(100))

    asyncio.run(use())


def test_eight_threads_may_use_it_at_once(ex: PilotExecutor) -> None:
    found: dict[int, list[int]] = {}

    def use(thread: int) -> None:
        futures = [ex.submit(call_tasks.add, thread, i) for i in range(200)]
        own = [ex.submit(lambda x: x * 2, i) for i in range(3)]
        found[thread] = [f.result() for f in futures] + list(ex.map(pow, [thread], [2])) + [f.result() for f in own]

    threads = [threading.Thread(target=use, args=[i]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(8):
        assert found[i] == [*(i + j for j in range(200)), i**2, 0, 2, 4]


# ---- errors ---------------------------------------------------------------------------------


def test_an_exception_comes_with_its_remote_traceback_and_frames(ex: PilotExecutor) -> None:
    with pytest.raises(RuntimeError, match="outer") as caught:
        ex.submit(call_tasks.fail_with_cause).result()
    remote = caught.value.__cause__
    assert isinstance(remote, RemoteTraceback)
    assert "call_tasks.py" in str(remote)
    assert "ValueError: inner" in str(remote)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.name) == (call_tasks.__file__, "fail_with_cause")
    assert "raise RuntimeError" in (last.line or "")


@pytest.mark.parametrize(
    ("function", "args", "kind"),
    [
        (call_tasks.leave, (3,), SystemExit),
        (call_tasks.leave, ("text",), SystemExit),
        (call_tasks.interrupt, (), KeyboardInterrupt),
        (call_tasks.stop_iteration, (), StopIteration),
        (call_tasks.generator_exit, (), GeneratorExit),
        (call_tasks.cancelled_error, (), asyncio.CancelledError),
        (call_tasks.recurse_for_ever, (), RecursionError),
        (call_tasks.fail_with_arguments, (), call_tasks.WithArguments),
        (call_tasks.add, (1, 2, 3), TypeError),
    ],
)
def test_whatever_a_task_raises_is_its_result_and_the_worker_lives_on(
    ex: PilotExecutor, function: Any, args: tuple[Any, ...], kind: type[BaseException]
) -> None:
    error = ex.submit(function, *args).exception()
    assert type(error) is kind
    if args and function is call_tasks.leave:
        assert isinstance(error, SystemExit)
        assert error.code == args[0]
    assert ex.submit(call_tasks.same, 1).result() == 1


def test_what_cannot_be_pickled_fails_only_its_own_future(ex: PilotExecutor) -> None:
    good = ex.submit(call_tasks.same, "good")
    bad_argument = ex.submit(call_tasks.same, {"key": [threading.Lock()]})
    bad_result = ex.submit(call_tasks.unpicklable)
    bad_unpickling = ex.submit(call_tasks.same, call_tasks.BadToUnpickle())
    bad_home = ex.submit(call_tasks.bad_to_unpickle)
    leaving = call_tasks.LeavesWhenPickled, call_tasks.LeavesWhenUnpickled
    for future, words in (
        (ex.submit(call_tasks.same, leaving[0]()), r"argument args\[0\] \(LeavesWhenPickled\).*SystemExit: 3"),
        (
            ex.submit(leaving[0]),
            r"the result \(LeavesWhenPickled\) cannot be sent back: SystemExit: 3",
        ),
        (ex.submit(call_tasks.same, {"k": leaving[1]()}), r"argument args\[0\]\['k'\] cannot be unp.*SystemExit: 3"),
        (ex.submit(leaving[1]), "the result of 'LeavesWhenUnpickled' cannot be read here: SystemExit: 3"),
        (bad_argument, r"in a call of 'same': argument args\[0\]\['key'\]\[0\] \(lock\)"),
        (bad_result, r"the result of 'unpicklable' \(lock\) cannot be sent back"),
        (bad_unpickling, "OSError: cannot be unpickled"),
        (bad_home, "the result of 'bad_to_unpickle' cannot be read here"),
    ):
        with pytest.raises(SerializationError, match=words):
            future.result()
    assert good.result() == "good"


def test_a_task_that_kills_its_workers_fails_and_breaks_nothing_else(ex: PilotExecutor) -> None:
    others = [ex.submit(call_tasks.same, i) for i in range(50)]
    dying = ex.submit(call_tasks.die)
    with pytest.raises(WorkerLost, match="2 times") as caught:
        dying.result()
    assert isinstance(caught.value, BrokenExecutor)
    assert len(caught.value.attempts) == 2
    assert [future.result() for future in others] == list(range(50))
    assert ex.submit(call_tasks.same, "alive").result() == "alive"


# ---- references -----------------------------------------------------------------------------


def until_gone(what: weakref.ref[Any]) -> None:
    """The client's loop may be in the turn in which it has settled the future."""
    until(lambda: what() is None, what="the end of the last reference")


def test_nothing_here_keeps_an_argument_or_a_result_alive(ex: PilotExecutor) -> None:
    argument = call_tasks.Tracked(100_000)
    gone = weakref.ref(argument)
    future = ex.submit(call_tasks.same, argument)
    del argument
    gc.collect()
    assert gone() is None, "packed at once, so the argument is free while the call waits"
    result = weakref.ref(future.result())
    del future
    gc.collect()
    until_gone(result)


def test_map_keeps_no_result_that_it_has_handed_out(ex: PilotExecutor) -> None:
    results = ex.map(call_tasks.same, [call_tasks.Tracked() for _ in range(3)])
    for _ in range(3):
        gone = weakref.ref(next(results))
        gc.collect()
        until_gone(gone)


def test_a_failed_call_leaves_no_cycle_behind(ex: PilotExecutor) -> None:
    future = ex.submit(call_tasks.fail)
    gone = weakref.ref(future)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ValueError, match="as told"):
            future.result()
        del future
        until_gone(gone)
    finally:
        gc.enable()


def test_a_worker_keeps_no_argument_and_no_result(ex: PilotExecutor) -> None:
    for _ in range(4):
        ex.submit(call_tasks.same, call_tasks.Tracked(100_000)).result()
        ex.submit(call_tasks.tracked).result()
        ex.submit(call_tasks.fail_holding, call_tasks.Tracked()).exception()
    assert [ex.submit(call_tasks.count_tracked).result() for _ in range(8)] == [0] * 8


# ---- cancel and kill ------------------------------------------------------------------------


@pytest.fixture
def full(ex: PilotExecutor, place: str) -> Iterator[list[PilotFuture[str]]]:
    """All workers are busy until the test ends."""
    assert ex.run.wait(30)
    paths = [f"{place}-full-{i}" for i in range(WORKERS)]
    futures = [ex.submit(call_tasks.hold, path) for path in paths]
    for path in paths:
        until(partial(call_tasks.started, path))
    yield futures
    for path in paths:
        call_tasks.let_go(path)
    concurrent.futures.wait(futures)


def test_a_call_that_has_not_started_can_be_cancelled(ex: PilotExecutor, full: list[Any], place: str) -> None:
    futures = [ex.submit(call_tasks.hold, f"{place}{i}") for i in range(20)]
    told: list[Future[Any]] = []
    for future in futures:
        future.add_done_callback(told.append)
    assert all(future.cancel() for future in futures)
    assert all(future.cancelled() and future.done() for future in futures)
    assert told == futures
    assert concurrent.futures.wait(futures, 0).done == set(futures)
    assert futures[0].cancel(), "again"
    with pytest.raises(concurrent.futures.CancelledError):
        futures[0].result()


def test_a_running_call_cannot_be_cancelled_but_killed(ex: PilotExecutor, place: str) -> None:
    assert ex.run.wait(30)
    future = ex.submit(call_tasks.hold_with_child, place)
    worker = until(partial(call_tasks.started, place))
    assert not future.cancel()
    assert not future.cancelled()
    until(future.running, "the notice that it runs")
    assert not future.cancel()
    child = int(Path(f"{place}.child").read_text(encoding="ascii"))
    assert ex.kill(future)
    assert future.cancelled()
    until(lambda: not is_alive(worker), "the end of the worker")
    until(lambda: not is_alive(child), "the end of its child")
    assert ex.submit(call_tasks.same, 1).result() == 1


def test_an_ended_call_can_be_neither_cancelled_nor_killed(ex: PilotExecutor) -> None:
    future = ex.submit(call_tasks.same, 1)
    future.result()
    assert not future.cancel()
    assert not ex.kill(future)
    assert not future.running()
    with pytest.raises(ConfigError, match="kill takes a future of this executor"):
        ex.kill(Future())


def test_a_call_that_waits_for_another_can_be_cancelled(ex: PilotExecutor, full: list[PilotFuture[str]]) -> None:
    dependent = ex.submit(call_tasks.same, full[0])
    further = ex.submit(call_tasks.same, dependent)
    assert dependent.cancel()
    error = further.exception()
    assert "was cancelled" in str(error)


def test_a_callback_may_cancel_and_submit(ex: PilotExecutor, full: list[Any], place: str) -> None:
    waiting = [ex.submit(call_tasks.hold, f"{place}{i}") for i in range(3)]
    dependent = ex.submit(call_tasks.same, waiting[0])
    submitted: list[PilotFuture[int]] = []
    first = ex.submit(call_tasks.same, 0)

    def react(_: Future[Any]) -> None:
        dependent.cancel()
        submitted.append(ex.submit(call_tasks.same, 5))

    first.add_done_callback(react)
    assert first.cancel()
    until(dependent.cancelled)
    assert all(future.cancel() for future in waiting)
    until(lambda: submitted)
    assert submitted[0].cancel()


def test_a_foreign_future_in_the_arguments_is_waited_for(ex: PilotExecutor) -> None:
    foreign: Future[int] = Future()
    future = ex.submit(call_tasks.add, foreign, 1)
    assert not future.done()
    foreign.set_result(41)
    assert future.result() == 42
    assert sys.getrefcount(foreign) <= 3
