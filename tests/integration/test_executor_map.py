"""`PilotExecutor.map` does what that of `concurrent.futures` does, and reads no further ahead than it is told."""

from __future__ import annotations

import concurrent.futures
import gc
import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pilotflow import PilotExecutor
from tests.integration import call_tasks
from tests.integration.executors import WORKERS, two_workers
from tests.waiting import until


@pytest.fixture(scope="module")
def ex(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PilotExecutor]:
    with two_workers(tmp_path_factory.mktemp("runs")) as executor:
        yield executor


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "hold")


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_gives_results_in_order(ex: PilotExecutor, chunksize: int) -> None:
    assert list(ex.map(pow, range(10), range(10), chunksize=chunksize)) == list(map(pow, range(10), range(10)))
    assert list(ex.map(lambda x: -x, range(7), chunksize=chunksize)) == [-i for i in range(7)]
    assert list(ex.map(partial(call_tasks.add, y=1), range(7), chunksize=chunksize)) == list(range(1, 8))


def test_map_stops_with_the_shortest_iterable_and_takes_none(ex: PilotExecutor) -> None:
    assert list(ex.map(call_tasks.add, range(3), itertools.count())) == [0, 2, 4]
    assert list(ex.map(call_tasks.same, [])) == []
    assert list(ex.map(call_tasks.same, [], chunksize=5)) == []


def test_map_reads_its_iterables_at_once(ex: PilotExecutor) -> None:
    read = iter(range(5))
    results = ex.map(call_tasks.same, read)
    assert next(read, None) is None
    assert list(results) == [0, 1, 2, 3, 4]


def test_map_raises_where_the_call_raised(ex: PilotExecutor) -> None:
    results = ex.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert [next(results), next(results)] == [(0, 1), (0, 1)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("chunksize", [1, 4])
def test_map_reads_an_endless_iterable_only_as_far_ahead_as_told(ex: PilotExecutor, chunksize: int) -> None:
    read = itertools.count()
    results = ex.map(call_tasks.same, (next(read) for _ in itertools.count()), buffersize=5, chunksize=chunksize)
    assert next(read) == 5 * chunksize
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    assert next(read) <= 10 * chunksize + 2
    results.close()  # type: ignore[attr-defined]


def test_map_checks_its_numbers_at_once(ex: PilotExecutor) -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="chunksize must be >= 1"):
            ex.map(call_tasks.same, [1], chunksize=wrong)
        with pytest.raises(ValueError, match="buffersize must be None or > 0"):
            ex.map(call_tasks.same, [1], buffersize=wrong)
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        ex.map(call_tasks.same, [1], buffersize="5")  # type: ignore[arg-type]


def test_map_times_out_and_cancels_the_rest(ex: PilotExecutor, place: str) -> None:
    ex.submit(call_tasks.same, 0).result()
    holds = [ex.submit(call_tasks.hold, f"{place}{i}") for i in range(WORKERS)]
    for i in range(WORKERS):
        until(partial(call_tasks.started, f"{place}{i}"))
    start = time.monotonic()
    results = ex.map(call_tasks.hold, [f"{place}-{i}" for i in range(3)], timeout=0.1)
    with pytest.raises(concurrent.futures.TimeoutError):
        next(results)
    assert 0.1 <= time.monotonic() - start < 20
    for i in range(WORKERS):
        call_tasks.let_go(f"{place}{i}")
    concurrent.futures.wait(holds)
    assert ex.submit(call_tasks.same, 1).result() == 1
    assert not any(call_tasks.started(f"{place}-{i}") for i in range(3))


def test_dropping_the_iterator_cancels_what_has_not_started(ex: PilotExecutor, place: str) -> None:
    holds = [f"{place}{i}" for i in range(WORKERS)]
    later = [f"{place}later{i}" for i in range(10)]
    results = ex.map(call_tasks.hold, holds + later)
    for path in holds:
        until(partial(call_tasks.started, path))
    call_tasks.let_go(holds[0])
    assert next(results) == holds[0]
    del results
    gc.collect()
    call_tasks.let_go(holds[1])
    for path in later:
        call_tasks.let_go(path)
    assert ex.run.wait(30)
    assert sum(call_tasks.started(path) is not None for path in later) <= WORKERS
