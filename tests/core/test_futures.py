"""Futures of tasks keep the promises of the standard library's, and cost little memory."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import resource
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pytest

from pilotflow.errors import DependencyError, SerializationError
from pilotflow.futures import AppFuture, PartFuture
from pilotflow.messages.records import Status
from pilotflow.serialize import pack
from tests.core.made_futures import ClientThatCancels, ended, failed, new


def test_a_result_is_unpickled_once_and_stays() -> None:
    future = ended([1, 2])
    assert future.done()
    assert not future.running()
    assert not future.cancelled()
    assert future.result() is future.result()
    assert future.exception() is None


def test_an_error_is_raised_with_the_remote_traceback_as_its_cause() -> None:
    future = failed(ValueError("no"))
    with pytest.raises(ValueError, match="no") as caught:
        future.result()
    assert "ValueError: no" in str(caught.value.__cause__)
    assert future.exception() is caught.value


def test_waiting_longer_than_the_timeout_raises_what_the_standard_library_raises() -> None:
    with pytest.raises(concurrent.futures.TimeoutError, match="task 1"):
        new().result(timeout=0)
    with pytest.raises(concurrent.futures.TimeoutError):
        new().exception(timeout=0.001)


def test_a_cancelled_future_says_so_everywhere() -> None:
    future = new()
    client: Any = future._client
    assert [future.cancel(), future.cancel()] == [True, True], "cancelling again is fine"
    assert [future.cancelled(), future.done(), future.running()] == [True, True, False]
    for ask in (future.result, future.exception):
        with pytest.raises(CancelledError):
            ask()
    assert client.cancelled == [future]
    assert not future.settle(Status.OK, pack(1)), "a late result changes nothing"


def test_an_ended_future_cannot_be_cancelled() -> None:
    future = ended(1)
    assert not future.cancel()
    assert future.result() == 1


def test_callbacks_run_once_in_order_and_at_once_if_it_has_ended() -> None:
    future, calls = new(), list[Any]()
    for i in range(3):
        future.add_done_callback(lambda f, i=i: calls.append((i, f.result())))  # type: ignore[misc]
    assert calls == []
    future.settle(Status.OK, pack("x"))
    assert calls == [(0, "x"), (1, "x"), (2, "x")]
    future.add_done_callback(lambda f: calls.append("late"))
    assert calls[3:] == ["late"]


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_callback_may_raise_anything_in_the_thread_that_ends_all_futures(
    raised: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    future, calls = new(), list[Any]()

    def bad(_: Future[Any]) -> None:
        raise raised

    future.add_done_callback(bad)
    future.add_done_callback(calls.append)
    settled = threading.Thread(target=lambda: calls.append(future.settle(Status.OK, pack(1))))
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        settled.start()
        settled.join()
    assert calls == [future, True]
    assert raised.__name__ in caplog.text


def test_a_callback_may_end_the_program_from_its_main_thread() -> None:
    def leave(_: Future[Any]) -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        ended(1).add_done_callback(leave)


def test_a_callback_that_raises_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    future, calls = new(), list[Any]()

    def bad(_: Future[Any]) -> None:
        raise RuntimeError("bad callback")

    future.add_done_callback(bad)
    future.add_done_callback(calls.append)
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        future.settle(Status.OK, pack(1))
    assert calls == [future]
    assert "exception calling callback" in caplog.text
    assert "bad callback" in caplog.text


@pytest.mark.parametrize(
    "end", [lambda f: f.settle(Status.OK, pack(1)), lambda f: f.cancel(), lambda f: f.fail(OSError())]
)
def test_every_kind_of_end_wakes_every_kind_of_waiter(end: Callable[[AppFuture[Any]], Any]) -> None:
    future = new()
    seen: list[str] = []

    def on(what: str, wait: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                wait()
            except (CancelledError, OSError):
                pass
            seen.append(what)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    future.add_done_callback(lambda f: seen.append("callback"))
    threads = [
        on("result", lambda: future.result(30)),
        on("wait", lambda: concurrent.futures.wait([future], 30)),
        on("as_completed", lambda: list(concurrent.futures.as_completed([future], 30))),
    ]
    end(future)
    for thread in threads:
        thread.join()
    assert sorted(seen) == ["as_completed", "callback", "result", "wait"]


def test_as_completed_hears_of_each_future_once_however_they_race() -> None:
    for _ in range(30):
        futures = [new(number=i) for i in range(50)]
        packed = pack(None)
        thread = threading.Thread(target=lambda: [f.settle(Status.OK, packed) for f in futures])  # noqa: B023
        thread.start()
        found = list(concurrent.futures.as_completed(futures, 30))
        thread.join()
        assert len(found) == len(set(found)) == 50


def test_wait_returns_at_the_first_exception() -> None:
    futures = [new(), new()]
    threading.Timer(0.01, futures[0].fail, [OSError("first")]).start()
    done, waiting = concurrent.futures.wait(futures, 30, concurrent.futures.FIRST_EXCEPTION)
    assert done == {futures[0]}
    assert waiting == {futures[1]}


def test_a_future_can_be_awaited_with_its_result_its_error_or_its_end() -> None:
    async def use() -> None:
        assert await ended(5) == 5
        with pytest.raises(ValueError, match="no"):
            await failed(ValueError("no"))
        late = new()
        threading.Timer(0.01, late.settle, [Status.OK, pack("late")]).start()
        assert await late == "late"
        assert await asyncio.gather(*(ended(i) for i in range(3))) == [0, 1, 2]

    asyncio.run(use())


def test_cancelling_the_awaiting_coroutine_cancels_the_task() -> None:
    async def use() -> AppFuture[Any]:
        future = new()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), 0.01)
        return future

    assert asyncio.run(use()).cancelled()


def test_the_snapshot_that_newer_asyncio_takes_holds_the_unpickled_result() -> None:
    assert ended([1])._get_snapshot() == (True, False, [1], None)
    done, cancelled, _, error = failed(ValueError("no"))._get_snapshot()
    assert (done, cancelled, type(error)) == (True, False, ValueError)
    assert new()._get_snapshot() == (False, False, None, None)
    gone = new()
    gone.cancel()
    assert gone._get_snapshot() == (True, True, None, None)


def test_the_repr_names_the_task_and_its_state() -> None:
    future = new("square", 7)
    assert repr(future) == "<AppFuture square #7 pending>"
    future.begin()
    assert future.running()
    assert repr(future) == "<AppFuture square #7 running>"
    future.settle(Status.OK, pack(1))
    assert repr(future) == "<AppFuture square #7 done>"
    assert repr(failed(OSError())) == "<AppFuture f #1 failed>"
    future = new()
    future.cancel()
    assert repr(future) == "<AppFuture f #1 cancelled>"


def test_a_future_cannot_be_pickled_and_says_what_to_do() -> None:
    with pytest.raises(SerializationError, match="pass it as an argument"):
        pack(new())


def test_a_result_that_cannot_be_read_here_is_an_error_of_that_future() -> None:
    future = new()
    future.settle(Status.OK, pack(1)._replace(payload=b"\x80\x05rubbish"))
    with pytest.raises(SerializationError, match="the result of 'f' cannot be read here"):
        future.result()


def test_parts_of_a_result_are_futures_too() -> None:
    future = new("pair", 5)
    first, missing, attribute = future[0], future[9], future.real
    name, deep = future["name"], future[0][1].imag
    assert isinstance(first, PartFuture)
    assert not first.done()
    assert repr(deep) == "<PartFuture pair[0][1].imag #5 pending>"
    future.settle(Status.OK, pack(((1, 2j), "b")))
    assert first.result() == (1, 2j)
    assert deep.result() == 2.0
    assert (first.done(), first.failed(), missing.failed()) == (True, False, True)
    with pytest.raises(IndexError):
        missing.result()
    with pytest.raises(AttributeError, match="real"):
        attribute.result()
    with pytest.raises(TypeError, match="indices"):
        name.result()
    done, _ = wait([first, future[1], missing], 5)
    assert len(done) == 3


def test_parts_of_what_failed_or_was_cancelled_end_as_it_did() -> None:
    future = new("pair", 5)
    part = future[0].x
    future.fail(ValueError("root"))
    with pytest.raises(DependencyError, match=r"'pair\[0\].x' \(task 5\) cannot be had: it needs 'pair\[0\]' .* root"):
        part.result()
    assert isinstance(part.exception().__cause__, ValueError)
    cancelled = new("pair", 6)
    part = cancelled[0]
    cancelled.cancel()
    assert part.cancelled()
    alone = new("pair", 7)
    part = alone[0]
    assert part.cancel()
    assert not alone.done()


def test_a_future_is_not_mistaken_for_what_it_will_be() -> None:
    future = new("pair", 5)
    with pytest.raises(TypeError, match=r"cannot be iterated over before its result is there: say future\[0\]"):
        _, _ = future
    with pytest.raises(TypeError, match=r"pair.reslut cannot be called: .* Did you mean .result\(\)\?"):
        future.reslut()
    with pytest.raises(TypeError, match=r"pair.total cannot be called: .* not there yet\. Call it in an app"):
        future.total()
    assert not hasattr(future, "__array__")
    assert not hasattr(future, "_ipython_display_")
    with pytest.raises(SerializationError):
        pack(future[0])


def test_a_held_future_with_a_small_result_costs_less_than_600_bytes() -> None:
    client: Any = ClientThatCancels()
    payload = pack(7)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        futures: list[AppFuture[Any]] = [AppFuture(i, "noop", client) for i in range(10_000)]
        for future in futures:
            future.settle(Status.OK, payload._replace(payload=bytes(bytearray(payload.payload))))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    each = (after - before) / len(futures)
    print(f"{each:.0f} bytes for each future")
    assert each < 600


def test_a_process_with_too_many_files_can_wait_for_results() -> None:
    future = new()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.01)
        settler = threading.Timer(0.01, lambda: future.settle(Status.OK, pack(7)))
        settler.start()
        assert future.result(60) == 7
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    settler.join()


def test_many_threads_may_wait_for_one_result_with_and_without_a_limit() -> None:
    future = new()
    found: list[Any] = []
    limits = [None, 60.0, 1e12, 0.001]
    threads = [threading.Thread(target=lambda limit=limit: found.append(wait_for(future, limit))) for limit in limits]
    for thread in threads:
        thread.start()
    threads[3].join()
    assert found == ["late"]
    while len(future._bells) < 3:
        threads[0].join(0.001)
    future.settle(Status.OK, pack(7))
    for thread in threads:
        thread.join()
    assert found == ["late", 7, 7, 7]
    assert future._bells == ()


def wait_for(future: AppFuture[Any], limit: float | None) -> Any:
    try:
        return future.result(limit)
    except concurrent.futures.TimeoutError:
        return "late"
