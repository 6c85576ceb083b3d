"""Tasks that fail are tried again as told, timeouts end everything that a task has started, all can be cancelled."""

from __future__ import annotations

import concurrent.futures
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow import ConfigError, DependencyError, TaskTimeout
from tests.integration import call_tasks, retry_tasks
from tests.processes import is_alive
from tests.waiting import until


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    node = pf.ExecutorConfig(label="node", max_workers_per_node=2, runtime_grace=0.5)
    with pf.load(pf.Config(run_dir=tmp_path_factory.mktemp("runs"), executors=[node])) as run:
        yield run


pytestmark = pytest.mark.usefixtures("run")

fail_times = pf.python_app(retry_tasks.fail_times)
what_came = pf.python_app(allow_failed=True)(retry_tasks.what_came)
fail = pf.python_app(call_tasks.fail)


@pf.bash_app
def shell(command: str) -> str:
    return command


# ---- retries --------------------------------------------------------------------------------


def test_a_task_is_tried_again_as_often_as_its_app_says(tmp_path: Path) -> None:
    assert fail_times.options(retries=2)(str(tmp_path / "a"), 2).result(30) == 3
    with pytest.raises(ConnectionError, match="try 3"):
        fail_times.options(retries=2)(str(tmp_path / "b"), 5).result(30)
    with pytest.raises(ConnectionError, match="try 1"):
        fail_times(str(tmp_path / "c"), 1).result(30)
    command = f"echo x >> {tmp_path}/d; test $(wc -l < {tmp_path}/d) = 3"
    assert shell.options(retries=2)(command).result(30) == 0


def test_pauses_between_tries_grow(tmp_path: Path) -> None:
    path = tmp_path / "tries"
    assert fail_times.options(retries=3, backoff=0.2)(str(path), 3).result(60) == 4
    first, second, third, last = retry_tasks.tries_of(path)
    assert second - first >= 0.2
    assert third - second >= 0.4
    assert last - third >= 0.8


def test_a_pausing_task_can_be_cancelled(run: pf.Run, tmp_path: Path) -> None:
    path = tmp_path / "tries"
    future = fail_times.options(retries=3, backoff=3600)(str(path), 3)
    until(path.exists)
    assert run.wait(0.3) is False
    until(lambda: "waits for its next try" in str(run.explain(future)))
    assert "Try 1 of it has failed. It is tried again in " in str(run.explain(future))
    assert future.cancel()
    assert run.wait(30)


def test_a_handler_is_asked_about_each_failure_and_decides(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def patient(error: BaseException, tries: int) -> bool | float:
        asked.append((str(error), tries))
        return 0.1 if tries < 3 else isinstance(error, ConnectionError)

    assert fail_times.options(retry_handler=patient)(str(tmp_path / "a"), 4).result(30) == 5
    assert asked == [("try 1", 1), ("try 2", 2), ("try 3", 3), ("try 4", 4)]
    asked.clear()
    with pytest.raises(ConnectionError, match="try 2"):
        fail_times.options(retry_handler=patient, retries=1)(str(tmp_path / "b"), 4).result(30)
    assert asked == [("try 1", 1)]
    with pytest.raises(ConnectionError, match="try 1"):
        fail_times.options(retry_handler=lambda error, tries: False, retries=9)(str(tmp_path / "c"), 4).result(30)


def test_a_handler_that_fails_ends_the_task_with_both_errors(tmp_path: Path) -> None:
    def broken(error: BaseException, tries: int) -> bool:
        raise KeyError("no such table")

    future = fail_times.options(retry_handler=broken)(str(tmp_path / "a"), 4)
    after = what_came(future)
    with pytest.raises(ConfigError, match=r"retry_handler failed: KeyError: 'no such table'.*ConnectionError: 'try 1'"):
        future.result(30)
    assert after.result(30)[0] == "ConfigError"

    def leaving(error: BaseException, tries: int) -> bool:
        sys.exit("that is enough")

    left = fail_times.options(retry_handler=leaving)(str(tmp_path / "left"), 4)
    with pytest.raises(ConfigError, match="retry_handler failed: SystemExit: that is enough"):
        left.result(30)
    nonsense = fail_times.options(retry_handler=lambda error, tries: "yes")(str(tmp_path / "b"), 4)
    with pytest.raises(ConfigError, match="not 'yes', which is str"):
        nonsense.result(30)


def test_what_waits_for_a_task_waits_for_its_last_try(tmp_path: Path) -> None:
    first = fail_times.options(retries=2, backoff=0.1)(str(tmp_path / "a"), 2)
    assert what_came(first, other=[first]).result(30) == ("int", "3", [3])


def test_the_run_may_say_it_for_all_tasks(tmp_path: Path) -> None:
    told: list[int] = []

    def handler(error: BaseException, tries: int) -> bool:
        told.append(tries)
        return True

    config = pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path, retry_handler=handler, retries=2)
    with pf.load(config):
        assert fail_times(str(tmp_path / "a"), 2).result(30) == 3
        with pytest.raises(ConnectionError, match="try 1"):
            fail_times.options(retries=0)(str(tmp_path / "b"), 2).result(30)
    assert told == [1, 2]
    with pf.PilotExecutor(config=config) as executor, pytest.raises(ConnectionError, match="try 3"):
        executor.submit(retry_tasks.fail_times, str(tmp_path / "c"), 9).result(30)


# ---- timeouts -------------------------------------------------------------------------------


def test_a_timeout_ends_a_function_that_no_exception_can_stop(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    future = pf.python_app(timeout=1)(retry_tasks.sleep_in_c)(str(path))
    with pytest.raises(TaskTimeout, match=r"'sleep_in_c' ran for .* and was ended .* its timeout is 1s, for all"):
        future.result(60)
    until(lambda: not is_alive(int(path.read_text())), "the end of the worker")


def test_a_timeout_ends_a_command_with_all_its_children(tmp_path: Path) -> None:
    command = f"setsid sleep 1000 & echo $! > {tmp_path}/a; sleep 1000 & echo $! > {tmp_path}/b; wait"
    with pytest.raises(TaskTimeout, match="'shell' ran for"):
        shell.options(timeout="3s")(command).result(60)
    for name in "ab":
        pid = int((tmp_path / name).read_text())
        until(partial(lambda pid: not is_alive(pid), pid), "the end of the command's children")


def test_a_timeout_counts_all_attempts_and_no_pauses(tmp_path: Path) -> None:
    slow = pf.python_app(timeout=2.0, retries=99, backoff=0.5)(retry_tasks.fail_twice_then_sleep)
    began = time.monotonic()
    with pytest.raises(TaskTimeout, match=r"its timeout is 2s, for all its attempts together"):
        slow(0.2, str(tmp_path / "a")).result(60)
    assert time.monotonic() - began > 3.0, "pauses of 0.5 s and 1 s are not counted"
    assert len((tmp_path / "a").read_text().splitlines()) == 3
    quick = pf.python_app(timeout=30.0, retries=3)(retry_tasks.sleep_then_fail)
    with pytest.raises(ConnectionError):
        quick(0.0, str(tmp_path / "b")).result(60)
    assert len((tmp_path / "b").read_text().splitlines()) == 4


def test_a_timeout_does_not_count_the_time_in_the_queue(tmp_path: Path) -> None:
    place = str(tmp_path / "hold")
    holds = [pf.python_app(call_tasks.hold)(f"{place}{i}") for i in range(2)]
    waiting = pf.python_app(timeout=2)(call_tasks.same)(5)
    for i in range(2):
        until(partial(call_tasks.started, f"{place}{i}"))
    with pytest.raises(concurrent.futures.TimeoutError):
        waiting.result(2.5)
    for i in range(2):
        call_tasks.let_go(f"{place}{i}")
    assert waiting.result(30) == 5
    assert all(hold.result(30) for hold in holds)


def test_the_shorter_of_runtime_and_timeout_ends_an_attempt(tmp_path: Path) -> None:
    both = pf.python_app(runtime=1, timeout=60, retries=1)(retry_tasks.sleep_then_fail)
    with pytest.raises(TaskTimeout, match="its runtime is 1s"):
        both(50.0, str(tmp_path / "a")).result(60)
    assert len((tmp_path / "a").read_text().splitlines()) == 2, "an attempt that took too long is tried again"


def test_a_manager_that_ignores_requests_does_not_ignore_timeouts(tmp_path: Path) -> None:
    executor = pf.ExecutorConfig(max_parallel_jobs=1, runtime_grace=0.5)
    with pf.load(pf.Config(run_dir=tmp_path, executors=[executor])):
        with pytest.raises(TaskTimeout, match="its timeout is 300ms"):
            shell.options(timeout=0.3)("sleep 100").result(60)
        assert shell.options(runtime=0.1)("sleep 0.5").result(60) == 0


# ---- failures that are wanted ---------------------------------------------------------------


def test_an_app_that_allows_failures_sees_exceptions_in_the_place_of_results(tmp_path: Path) -> None:
    failed, place = fail("the root"), str(tmp_path / "hold")
    late = pf.python_app(call_tasks.hold)(place)
    assert what_came(failed, other=late if late.cancel() else None).result(30)[0] == "ValueError"
    failed.exception(30)
    kind, text, other = what_came(failed, other=pf.python_app(call_tasks.same)(1)).result(30)
    assert (kind, text, other) == ("ValueError", "the root", 1)
    kind, text, _ = what_came(pf.python_app(call_tasks.same)(failed)).result(30)
    assert kind == "DependencyError"
    assert "ValueError: the root" in text
    (kind, _, _) = what_came(late).result(30)
    assert kind == "CancelledError"
    with pytest.raises(DependencyError):
        what_came.options(allow_failed=None)(failed).result(30)


def test_it_may_pass_on_what_it_sees() -> None:
    keep = pf.python_app(allow_failed=True)(call_tasks.same)
    error = keep(fail("kept")).result(30)
    assert isinstance(error, ValueError)
    assert "kept" in str(error)


# ---- cancel_all -----------------------------------------------------------------------------


def test_everything_can_be_cancelled_at_once(run: pf.Run, tmp_path: Path) -> None:
    place = str(tmp_path / "hold")
    holds = [pf.python_app(call_tasks.hold)(f"{place}{i}") for i in range(2)]
    pids = [until(partial(call_tasks.started, f"{place}{i}")) for i in range(2)]
    many = [pf.python_app(call_tasks.same)(i) for i in range(1_000)]
    waiting: list[Any] = [pf.python_app(call_tasks.same)([hold]) for hold in holds]
    paused = fail_times.options(retries=1, backoff=3600)(str(tmp_path / "f"), 1)
    assert run.cancel_all() == len(holds) + len(many) + len(waiting) + 1
    for future in (*holds, *many, *waiting, paused):
        with pytest.raises(CancelledError):
            future.result(0)
    until(lambda: not any(map(is_alive, pids)), "the end of all processes")
    assert run.wait(30)
    assert run.cancel_all() == 0
    assert pf.python_app(call_tasks.same)(1).result(30) == 1
