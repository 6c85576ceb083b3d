"""Calls of apps with `cache=True`: run once, found again in this run and later ones, and explained."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pilotflow as pf
from tests.integration import cache_tasks
from tests.integration.scripts import run_script
from tests.waiting import until


def config(tmp_path: Path, **others: Any) -> pf.Config:
    return pf.Config.for_this_machine(max_workers=2, run_dir=tmp_path / "runs", **others)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    with pf.load(config(tmp_path_factory.mktemp("cache"))) as run:
        yield run


@pytest.fixture
def log(tmp_path: Path, run: pf.Run) -> str:
    return str(tmp_path / "log")


def lines(log: str) -> list[str]:
    path = Path(log)
    return path.read_text(encoding="utf-8").split() if path.exists() else []


double = pf.python_app(cache=True)(cache_tasks.double)
wait_for = pf.python_app(cache=True)(cache_tasks.wait_for)


def kept(future: pf.AppFuture[Any]) -> None:
    """Wait until a result is in the cache: that is a moment after it has come in."""
    memo, key = future.memo, future.key
    until(lambda: memo.files.header(key.digest) is not None)


# ---- once -----------------------------------------------------------------------------------


def test_an_equal_call_is_not_run_again(log: str) -> None:
    first = double([1, 2], log)
    assert first.result() == [1, 2, 1, 2]
    again = double(x=[1, 2], log=log)
    assert again.done()
    assert again.result() == [1, 2, 1, 2]
    assert double([1, 3], log).result() == [1, 3, 1, 3]
    assert lines(log) == ["[1,", "2]", "[1,", "3]"]


def test_results_are_not_shared_objects(log: str) -> None:
    first = double([5], log)
    first.result().append(6)
    kept(first)
    assert double([5], log).result() == [5, 5]


def test_an_app_without_cache_always_runs(log: str) -> None:
    app = pf.python_app(cache_tasks.double)
    assert [app(1, log).result() for _ in range(2)] == [2, 2]
    assert lines(log) == ["1", "1"]
    assert "no app with cache=True" in str(pf.why_not_cached(app(1, log)))


def test_equal_calls_at_once_run_once(run: pf.Run, log: str, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    futures = [wait_for(flag, log) for _ in range(20)]
    until(lambda: bool(lines(log)))
    assert not any(future.done() for future in futures)
    assert f"waits for task {futures[0].task_id} (wait_for)" in str(run.explain(futures[7]))
    Path(flag).touch()
    assert [future.result() for future in futures] == ["seen"] * 20
    assert len(lines(log)) == 1
    assert "was running" in str(pf.why_not_cached(futures[5]))


def test_equal_calls_from_many_threads_run_once(log: str) -> None:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(double(77, log).result())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [154] * 16
    assert lines(log) == ["77"]


def test_a_call_that_waits_for_an_equal_one_runs_if_that_is_cancelled(log: str, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    first, second, third = [wait_for(flag, log) for _ in range(3)]
    until(lambda: len(lines(log)) == 1)
    assert first.cancel()
    until(lambda: len(lines(log)) == 2)
    Path(flag).touch()
    assert second.result() == third.result() == "seen"
    with pytest.raises(CancelledError):
        first.result()


def test_one_that_waits_can_be_cancelled_alone(log: str, tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    first, second = [wait_for(flag, log) for _ in range(2)]
    assert second.cancel()
    Path(flag).touch()
    assert first.result() == "seen"


def test_a_call_that_failed_runs_again_and_those_with_it_fail_alike(log: str, tmp_path: Path) -> None:
    app, cue = pf.python_app(cache=True)(cache_tasks.fail_once), tmp_path / "cue"
    futures = [app(1, log, str(cue)) for _ in range(3)]
    cue.touch()  # now that all have been called
    for future in futures:
        with pytest.raises(ValueError, match="not yet"):
            future.result()
    assert app(1, log, str(cue)).result() == 1
    assert len(lines(log)) == 2


# ---- dependencies ---------------------------------------------------------------------------


def test_a_result_counts_by_its_value_whatever_made_it(log: str) -> None:
    plain = pf.python_app(cache_tasks.double)
    kept_one = double([8], log)
    kept_one.result()
    kept(kept_one)
    by_future = double([plain(4, log)], log)
    assert by_future.result() == [8, 8]
    assert pf.why_not_cached(by_future).cached
    assert lines(log).count("[8]") == 1


def test_chains_of_known_calls_run_nothing(log: str) -> None:
    def chain() -> pf.AppFuture[int]:
        future = double(1, log)
        for _ in range(30):
            future = double(future, log)
        return future

    assert chain().result() == 2**31
    count = len(lines(log))
    assert chain().result() == 2**31
    assert len(lines(log)) == count


def test_calls_that_need_a_failed_task_fail_as_without_a_cache(log: str, tmp_path: Path) -> None:
    bad = pf.python_app(cache_tasks.fail_once)(1, log)
    early = double(bad, log)
    with pytest.raises(ValueError, match="not yet"):
        bad.result()
    for future in (early, double(bad, log)):
        with pytest.raises(pf.DependencyError, match="fail_once"):
            future.result()
    assert "needs has failed" in str(pf.why_not_cached(early)) or "before its key" in str(pf.why_not_cached(early))


def test_a_result_that_cannot_be_keyed_fails_the_call_that_takes_it(log: str) -> None:
    @pf.python_app
    def lock() -> Any:
        return object()

    with pytest.raises(
        pf.CacheKeyError, match=r"argument 'x'.*in the result of 'lock'.*class object.*ignore_for_cache"
    ):
        double(lock(), log).result()


def test_other_tasks_can_take_results_that_were_known(log: str) -> None:
    first = double("ab", log)
    first.result()
    kept(first)
    plain = pf.python_app(cache_tasks.double)
    assert plain([double("ab", log), 1], log).result() == ["abab", 1, "abab", 1]


# ---- what counts ----------------------------------------------------------------------------


def test_what_cannot_be_keyed_fails_at_the_call(log: str) -> None:
    with pytest.raises(
        pf.CacheKeyError, match=r"app 'double' has cache=True, and argument 'x', at \[1\], cannot be part"
    ):
        double([1, object()], log)


def test_ignored_arguments_do_not_count(tmp_path: Path, log: str) -> None:
    app = pf.python_app(cache=True, ignore_for_cache=["log"])(cache_tasks.double)
    first = app("ignored", log)
    first.result()
    kept(first)
    assert app("ignored", "nowhere").result() == "ignoredignored"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"ignore_for_cache": ["lgo"]}, "has no argument 'lgo'. Did you mean log"),
        ({"ignore_for_cache": "log"}, "takes a list of names"),
        ({"cache": 1}, r"cache=...\) takes True or False, not 1"),
        ({"version": 1.5}, "takes a string or a whole number"),
    ],
)
def test_wrong_keywords_are_told_at_decoration(words: dict[str, Any], message: str) -> None:
    with pytest.raises(pf.ConfigError, match=message):
        pf.python_app(**{"cache": True, **words})(cache_tasks.double)


def test_another_version_is_another_call(log: str) -> None:
    futures = []
    for version in ("1", "1", "2"):
        futures.append(double.options(version=version)("v", log))
        futures[-1].result()
        kept(futures[-1])
    assert lines(log) == ["'v'", "'v'"]
    assert "the version: '2' now, '1' then" in str(pf.why_not_cached(futures[2]))


def test_why_not_cached_names_the_part_that_differs(log: str) -> None:
    app = pf.python_app(cache=True)(cache_tasks.double)
    first = app(100, log)
    first.result()
    kept(first)
    time.sleep(0.002)
    report = pf.why_not_cached(app(101, log))
    assert not report.cached
    assert [difference.part for difference in report.differences] == ["argument 'x'"]
    assert "argument 'x': 101 now, 100 then" in str(report)
    assert pf.why_not_cached(app(100, log)).cached
    assert "It was cached: an equal call of 'double' had ended on 20" in str(pf.why_not_cached(app(100, log)))
    with pytest.raises(pf.ConfigError, match="takes the future"):
        pf.why_not_cached(3)  # type: ignore[arg-type]


# ---- commands and files ---------------------------------------------------------------------


def test_a_command_is_run_once(log: str) -> None:
    app = pf.bash_app(cache=True)(cache_tasks.command)
    first = app("word", log, stdout=pf.AUTO_LOGNAME)
    assert first.result() == 0
    kept(first)
    again = app("word", log, stdout=pf.AUTO_LOGNAME)
    assert again.result() == 0
    assert lines(log) == ["word"]
    assert again.stdout == first.stdout
    assert Path(str(again.stdout)).read_text() == "word\n"


def test_a_result_is_of_no_use_when_its_named_file_is_gone(log: str, tmp_path: Path) -> None:
    app = pf.python_app(cache=True)(cache_tasks.writes)
    path = tmp_path / "out.txt"
    first = app(log, stdout=str(path))
    assert first.result() == str(path)
    kept(first)
    assert app(log, stdout=str(path)).done()
    path.unlink()
    again = app(log, stdout=str(path))
    again.result()
    assert path.read_text() == "printed\n"
    assert f"its file {path} is gone or changed" in str(pf.why_not_cached(again))
    assert len(lines(log)) == 2


def test_arrays_and_big_results_come_back_whole(log: str) -> None:
    for value in (np.arange(300_000.0), b"x" * 500_000, ["a" * 1000] * 300):
        first = double(value, log)
        np.testing.assert_array_equal(first.result(), double(value, log).result())
        kept(first)
        again = double(value, log)
        assert pf.why_not_cached(again).cached
        np.testing.assert_array_equal(first.result(), again.result())


# ---- runs -----------------------------------------------------------------------------------


def test_a_cache_is_for_later_runs_too(tmp_path: Path) -> None:
    program = """
        import sys
        from dataclasses import dataclass
        import pilotflow as pf

        STEP = {step}

        @dataclass
        class Point:
            x: int

        def moved(point):
            return Point(point.x + STEP)

        @pf.python_app(cache=True)
        def move(point):
            print("runs", flush=True)
            return moved(point)

        with pf.load(cache="results"):
            future = move(move(Point(1)))
            assert future.result() == Point(1 + 2 * STEP)
            assert isinstance(future.result(), Point)
            assert move(future).result() == Point(1 + 3 * STEP)
            report = pf.why_not_cached(move(Point(1)))
            print(report.cached, pf.why_not_cached(future))
    """
    first = run_script(tmp_path, program.replace("{step}", "2")).stdout
    again = run_script(tmp_path, program.replace("{step}", "2")).stdout
    changed = run_script(tmp_path, program.replace("{step}", "3")).stdout
    assert first.startswith("True No call of 'move' was in the cache")
    assert again.startswith("True It was cached")
    assert "the code of 'moved' is not the same" in changed
    assert (tmp_path / "results").stat().st_mode & 0o777 == 0o700


def test_without_a_directory_a_cache_ends_with_its_run(tmp_path: Path, log: str) -> None:
    for _ in range(2):
        with pf.load(config(tmp_path)):
            assert double(1, log).result() == 2
    assert lines(log) == ["1", "1"]


def test_leaving_a_run_waits_for_calls_that_wait_for_others(tmp_path: Path, log: str) -> None:
    with pf.load(config(tmp_path), cache=tmp_path / "kept"):
        futures = [double(double(n % 2, log), log) for n in range(10)]
    assert [future.result() for future in futures] == [n % 2 * 4 for n in range(10)]
    assert len(lines(log)) == 3  # 0 twice is 0, and so known or running


def test_a_cache_that_cannot_be_used_is_told_at_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(pf.ConfigError, match="Cannot use the cache directory"):
        pf.load(config(tmp_path), cache=tmp_path / "file")
    with pytest.raises(pf.ConfigError, match="cache"):
        pf.load(config(tmp_path), cache=3)  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path, log: str) -> None:
    with pf.load(config(tmp_path), cache=tmp_path / "kept") as run:
        (tmp_path / "kept" / "aside").rmdir()
        assert [double(n, log).result() for n in range(3)] == [0, 2, 4]
    assert (run.directory / "pilotflow.log").read_text().count("results cannot be kept in the cache") == 1


def test_calls_that_wait_fail_with_the_run(tmp_path: Path, log: str) -> None:
    run = pf.load(config(tmp_path))
    first, second = [wait_for(str(tmp_path / "never"), log) for _ in range(2)]
    until(lambda: bool(lines(log)))
    run.close(wait=False)
    for future in (first, second):
        with pytest.raises(pf.RunClosed):
            future.result()


# ---- joins ----------------------------------------------------------------------------------


def test_a_join_that_is_known_starts_nothing(log: str) -> None:
    plain = pf.python_app(cache_tasks.double)

    @pf.join_app(cache=True, ignore_for_cache=["log"])
    def both(numbers: list[int], log: str) -> list[Any]:
        return [plain(number, log) for number in numbers]

    first, joined = both([1, 2], log), both([1, 2], log)
    assert first.result() == joined.result() == [2, 4]
    first.result().append(5)
    kept(first)
    assert both([1, plain(1, log)], log).result() == [2, 4]
    assert both([3], log).result() == [6]
    assert sorted(lines(log)) == ["1", "1", "2", "3"]


def test_a_join_whose_result_cannot_be_kept_runs_each_time(log: str) -> None:
    @pf.join_app(cache=True)
    def lock(log: str) -> Any:
        cache_tasks.noted(log, 1)
        return threading.Lock()

    assert all(hasattr(future.result(), "acquire") for future in [lock(log), lock(log)])
    assert hasattr(lock(log).result(), "acquire")
    assert lines(log) == ["1", "1", "1"]
