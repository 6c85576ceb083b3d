"""Runs and futures in an event loop, which goes on whatever they do."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow.errors import ConfigError, RunClosed
from tests.integration import call_tasks

STALL_LIMIT_S = 0.05
ATTEMPTS = 6
"""A stall of ours would be in each of them, one of a busy machine is not."""


@pf.python_app
def double(x: Any, wait_s: float = 0.0) -> Any:
    time.sleep(wait_s)
    return 2 * x


@pf.python_app
def fail(x: Any) -> None:
    raise ValueError(x)


@pytest.fixture
def config(tmp_path: Path) -> pf.Config:
    return pf.Config.for_this_machine(max_workers=2, run_dir=tmp_path / "runs")


def in_loop(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))


@contextlib.asynccontextmanager
async def stalls() -> AsyncIterator[list[float]]:
    """The longest time for which the loop did nothing else than wait for one step, once the block is left."""
    longest = [0.0]

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest[0] = max(longest[0], time.monotonic() - before)

    watching = asyncio.ensure_future(watch())
    try:
        yield longest
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def test_the_event_loop_is_never_held_up_from_start_to_end(config: pf.Config, record_property: Any) -> None:
    async def body() -> float:
        async with stalls() as longest, pf.load(config):
            futures = double.map(range(200))
            assert [await future for future in futures[:3]] == [0, 2, 4]
            assert sorted([await future async for future in pf.as_completed(futures)]) == list(range(0, 400, 2))
        return longest[0]

    worst: list[float] = []
    while not worst or (min(worst) >= STALL_LIMIT_S and len(worst) < ATTEMPTS):
        worst.append(asyncio.run(body()))
    record_property("longest_stall_s", min(worst))
    assert min(worst) < STALL_LIMIT_S, f"the loop stood still for {worst} s"


def test_a_run_in_a_loop_starts_when_it_is_first_used(config: pf.Config) -> None:
    async def body() -> None:
        run = pf.load(config)
        assert "not started" in repr(run)
        assert not Path(config.run_dir).exists()  # noqa: ASYNC240  a look at a local file
        assert await double(4) == 8
        assert (run.directory / "connection.json").exists()
        assert "1 done" in repr(run)
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            run.nonsense  # type: ignore[attr-defined]  # noqa: B018
        run.close()
        with pytest.raises(RunClosed):
            double(4)

    in_loop(body)


def test_a_run_in_a_loop_that_was_never_used_leaves_nothing(config: pf.Config) -> None:
    async def body() -> None:
        run = pf.load(config)
        run.close()
        assert "not started, closed" in repr(run)
        with pytest.raises(RunClosed, match="closed before it had started"):
            run.blocks()

    in_loop(body)
    assert not Path(config.run_dir).exists()


def test_a_run_that_cannot_start_says_why_whoever_starts_it(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")

    async def body() -> None:
        with pytest.raises(ConfigError, match="runs"):
            async with pf.load(pf.Config(run_dir=tmp_path / "runs")):
                raise AssertionError
        run = pf.load(pf.Config(run_dir=tmp_path / "runs"))
        for _ in range(2):
            with pytest.raises(ConfigError, match="runs"):
                run.blocks()
        with pytest.raises(ConfigError, match="no such file"):
            pf.load(tmp_path / "none.yaml")

    in_loop(body)


def test_a_plain_with_works_in_a_loop_too(config: pf.Config) -> None:
    async def body() -> None:
        with pf.load(config) as run:
            assert double(1).result() == 2
        assert not run.is_open

    in_loop(body)


def test_async_with_works_for_a_run_that_was_started_before(config: pf.Config) -> None:
    run = pf.load(config)

    async def body() -> None:
        async with run as same:
            assert same is run
            assert await double(2) == 4

    in_loop(body)
    assert not run.is_open


def test_leaving_the_block_waits_for_tasks_while_the_loop_goes_on(config: pf.Config, tmp_path: Path) -> None:
    place = str(tmp_path / "hold")

    async def body() -> None:
        async def let_go() -> None:
            call_tasks.let_go(place)

        async with pf.load(config):
            held = pf.python_app(call_tasks.hold)(place)
            going_on = asyncio.ensure_future(let_go())  # it runs when the loop has its turn: while the block is left
        assert held.result(0) == place
        await going_on

    in_loop(body)


def test_leaving_the_block_with_an_exception_ends_the_tasks(config: pf.Config) -> None:
    async def body() -> None:
        with pytest.raises(KeyError):
            async with pf.load(config):
                future = double(1, 100)
                raise KeyError
        with pytest.raises(RunClosed):
            future.result(0)

    in_loop(body)


def test_a_cancelled_end_ends_the_tasks_at_once(config: pf.Config) -> None:
    futures: list[Any] = []
    leaving = asyncio.Event()

    async def use() -> None:
        async with pf.load(config):
            await double(0)
            futures.append(double(1, 100))
            leaving.set()

    async def body() -> None:
        task = asyncio.ensure_future(use())
        await leaving.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RunClosed):
            futures[0].result(0)
        with pytest.raises(RunClosed):
            double(1)

    in_loop(body)


def test_a_start_that_is_cancelled_leaves_no_run_behind(config: pf.Config) -> None:
    async def use() -> None:
        async with pf.load(config):
            raise AssertionError

    async def body() -> None:
        task = asyncio.ensure_future(use())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RunClosed):
            double(1)

    in_loop(body)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pilotflow-")]


def test_a_task_whose_awaiting_is_cancelled_is_cancelled(config: pf.Config) -> None:
    async def body() -> None:
        async with pf.load(config):
            future = double(1, 100)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(future, 0.2)
            assert future.cancelled()

    in_loop(body)


def test_an_error_comes_out_of_await_and_of_the_future_that_async_for_gives(config: pf.Config) -> None:
    async def body() -> None:
        async with pf.load(config):
            with pytest.raises(ValueError, match="7"):
                await fail(7)
            async for future in pf.as_completed([fail(8)]):
                assert str(future.exception()) == "8"

    in_loop(body)


# ---- as_completed, with futures of any kind -------------------------------------------------


def plain(count: int) -> list[concurrent.futures.Future[int]]:
    return [concurrent.futures.Future() for _ in range(count)]


def test_futures_come_in_the_order_in_which_they_end_each_once() -> None:
    first, second, third = plain(3)
    third.set_result(3)

    async def body() -> None:
        seen = []
        async for future in pf.as_completed([first, second, third, second]):
            seen.append(future.result())
            if future is third:
                threading.Thread(target=second.set_result, args=(2,)).start()
            elif future is second:
                threading.Thread(target=first.set_result, args=(1,)).start()
        assert seen == [3, 2, 1]

    in_loop(body)
    assert [future.result() for future in pf.as_completed([first, first])] == [1]


def test_what_takes_too_long_is_a_timeout_in_both_loops() -> None:
    done, never = plain(2)
    done.set_result(1)

    async def body() -> None:
        seen = []
        with pytest.raises(concurrent.futures.TimeoutError, match=r"1 \(of 2\) futures unfinished"):
            async for future in pf.as_completed([never, done], timeout=0.05):
                seen.append(future)  # noqa: PERF401  it does not come to the end
        assert seen == [done]

    in_loop(body)
    with pytest.raises(concurrent.futures.TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        list(pf.as_completed([never, done], timeout=0.05))


def test_many_futures_leave_the_loop_time_for_others() -> None:
    futures = plain(5000)
    for future in futures:
        future.set_result(0)

    async def body() -> None:
        others = 0

        async def other() -> None:
            nonlocal others
            while True:
                await asyncio.sleep(0)
                others += 1

        going = asyncio.ensure_future(other())
        count = 0
        async for _ in pf.as_completed(futures):
            count += 1
        going.cancel()
        assert count == 5000
        assert others > 50

    in_loop(body)


def test_futures_that_end_after_their_loop_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    (late,) = plain(1)

    async def body() -> None:
        with pytest.raises(concurrent.futures.TimeoutError):
            async for _ in pf.as_completed([late], timeout=0.01):
                raise AssertionError

    in_loop(body)
    late.set_result(1)
    assert not caplog.records


@pytest.mark.parametrize("wrong", [[1], 5, None, ["x"]])
def test_something_else_than_futures_is_refused_with_words(wrong: Any) -> None:
    for function in (pf.as_completed, pf.progress):
        with pytest.raises(ConfigError, match=r"\(futures\) takes"):
            function(wrong)
