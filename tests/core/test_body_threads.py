"""There are always enough threads for functions that wait for each other, and no more than that needs."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial

import pytest

from pilotflow.runtime.body_threads import EAGER, STUCK_S, BodyThreads

LIMIT_S = 30.0


def test_functions_that_all_wait_do_not_hold_up_the_one_that_they_wait_for() -> None:
    threads = BodyThreads(logging.getLogger("test"))
    go, done = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        assert go.wait(LIMIT_S)
        done.release()

    for _ in range(3 * EAGER):
        threads.run(wait)
    threads.run(go.set)
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
        threads.run(partial(note, done))
        assert done.wait(LIMIT_S)
    assert len(seen) <= EAGER
    names = {thread.name for thread in threading.enumerate()}
    assert any(name.startswith("pilotflow-body") for name in names)
    threads.close()
    end = time.monotonic() + LIMIT_S
    while any(thread.ident in seen for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_function_that_breaks_its_promise_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    threads = BodyThreads(logging.getLogger("test"))
    done = threading.Event()
    threads.run(partial(divmod, 1, 0))
    for _ in range(EAGER):
        threads.run(done.set)
    assert done.wait(LIMIT_S)
    end = time.monotonic() + LIMIT_S
    while "ZeroDivisionError" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    threads.close()
