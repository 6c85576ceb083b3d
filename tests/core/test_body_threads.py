"""There are always enough threads for functions that wait for each other, and no more than that needs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from pilotflow.errors import InfrastructureError
from pilotflow.runtime.body_threads import EAGER, PATIENCE_S, STUCK_S, BodyThreads
from pilotflow.runtime.own_threads import start_thread
from tests.waiting import until

LIMIT_S = 30.0


def refused(problem: InfrastructureError) -> None:
    raise AssertionError(problem)


class Starter:
    """Starts so many threads and no more."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, target: Callable[[], None], name: str) -> None:
        if not self.left:
            raise InfrastructureError("there are too many")
        self.left -= 1
        start_thread(target, name)


def test_functions_that_all_wait_do_not_hold_up_the_one_that_they_wait_for() -> None:
    threads = BodyThreads(logging.getLogger("test"))
    go, done = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        assert go.wait(LIMIT_S)
        done.release()

    for _ in range(3 * EAGER):
        threads.run(wait, refused)
    threads.run(go.set, refused)
    end = time.monotonic() + LIMIT_S
    while not go.wait(STUCK_S) and time.monotonic() < end:
        if time.monotonic() >= threads.due_at:
            threads.grow(time.monotonic())
    assert all(done.acquire(timeout=LIMIT_S) for _ in range(3 * EAGER))
    threads.close()


def test_threads_are_used_again_and_end_when_they_are_closed() -> None:
    threads = BodyThreads(logging.getLogger("test"))
    seen: set[int] = set()

    def note(done: threading.Event) -> None:
        seen.add(threading.get_ident())
        done.set()

    for _ in range(50):
        done = threading.Event()
        threads.run(partial(note, done), refused)
        assert done.wait(LIMIT_S)
    assert len(seen) <= EAGER
    names = {thread.name for thread in threading.enumerate()}
    assert any(name.startswith("pilotflow-body") for name in names)
    threads.close()
    until(lambda: not any(thread.ident in seen for thread in threading.enumerate()), "the end of all threads")


def test_a_function_that_breaks_its_promise_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    threads = BodyThreads(logging.getLogger("test"))
    done = threading.Event()
    threads.run(partial(divmod, 1, 0), refused)
    for _ in range(EAGER):
        threads.run(done.set, refused)
    assert done.wait(LIMIT_S)
    until(lambda: "ZeroDivisionError" in caplog.text, "the words in the log")
    threads.close()


def test_what_no_thread_can_be_started_for_is_run_when_there_can_be_one(caplog: pytest.LogCaptureFixture) -> None:
    starter, done = Starter(0), threading.Semaphore(0)
    threads = BodyThreads(logging.getLogger("test"), starter)
    for _ in range(3):
        threads.run(done.release, refused)
    begun = time.monotonic()
    tried_at = begun + 2 * STUCK_S
    threads.grow(tried_at)
    assert threads.due_at == tried_at + STUCK_S, "it is tried again"
    assert [record.getMessage() for record in caplog.records] == ["functions of join_apps wait: there are too many"]
    starter.left = 1
    threads.grow(begun + 4 * STUCK_S)
    assert all(done.acquire(timeout=LIMIT_S) for _ in range(3))
    threads.close()


def test_what_no_thread_has_come_free_for_is_refused_and_the_others_go_on() -> None:
    threads = BodyThreads(logging.getLogger("test"), Starter(2))
    go, waiting, problems = threading.Event(), threading.Semaphore(0), list[InfrastructureError]()

    def wait() -> None:
        waiting.release()
        assert go.wait(LIMIT_S)

    for _ in range(2):
        threads.run(wait, refused)
        assert waiting.acquire(timeout=LIMIT_S)
    threads.run(go.set, problems.append)
    now = time.monotonic()
    threads.grow(now + PATIENCE_S / 2)
    assert problems == []
    threads.grow(now + PATIENCE_S + 1.0)
    assert [str(problem) for problem in problems] == ["there are too many"]
    go.set()
    done = threading.Event()
    threads.run(done.set, refused)
    assert done.wait(LIMIT_S)
    threads.close()
