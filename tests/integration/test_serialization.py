"""Values on their whole way to a worker and back: sizes around every limit, arrays, frames, feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pilotflow as pf
from tests.integration import call_tasks

SIZES = [0, 1, 16 << 10, *(k * 1024 + d for k in (32, 64, 96, 128) for d in (-1, 0, 1)), 1 << 20, 8 << 20]
same = pf.python_app(call_tasks.same)
make_counting = pf.python_app(call_tasks.make_counting)
pass_on = pf.python_app(call_tasks.pass_on)
value_of = pf.python_app(call_tasks.value_of)


@pytest.fixture(scope="module", autouse=True, params=["unix", "tcp"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pf.Run]:
    config = pf.Config.for_this_machine(
        max_workers=2, run_dir=tmp_path_factory.mktemp("runs"), tcp=request.param == "tcp"
    )
    with pf.load(config) as run:
        yield run


@pf.python_app
def describe(value: Any) -> tuple[str, int, int, int]:
    data = bytes(value)
    return type(value).__name__, len(data), data[0] if data else -1, data[-1] if data else -1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_size_arrive_and_come_back(kind: Callable[[bytes], Any]) -> None:
    values = [kind(bytes([7]) * (size - 1) + b"\x08" if size else b"") for size in SIZES]
    told = [describe(value) for value in values]
    for size, future in zip(SIZES, told, strict=True):
        ends = (-1, -1) if not size else (7 if size > 1 else 8, 8)
        assert future.result() == (kind.__name__, size, *ends)
    for value, home in zip(values, [same(same(value)) for value in values], strict=True):
        assert type(home.result()) is type(value)
        assert bytes(home.result()) == bytes(value)


ARRAYS = {
    "zero size": np.empty((0, 3)),
    "small": np.arange(10),
    "shared frame": np.arange(5_000.0),
    "own file": np.arange(300_000.0),
    "not contiguous": np.arange(200_000.0)[::3],
    "fortran order": np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
    "structured": np.array([(1, 2.5)] * 20_000, dtype=[("a", "i4"), ("b", "f8")]),
    "objects": np.array([{"a": 1}, None, "x"], dtype=object),
}


@pf.python_app
def change(array: Any) -> Any:
    array.flat[:1] = array.flat[-1:]
    return array


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_are_arguments_results_and_dependencies_that_may_be_changed(array: Any) -> None:
    first = change(array)
    second = change(first)
    expected = array.copy()
    expected.flat[:1] = expected.flat[-1:]
    for future in (first, second, change(first)):
        found = future.result()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, expected)
        assert found.flags.writeable
        found.flat[:1] = found.flat[-1:]


@pytest.mark.parametrize("size", [20_000, 100_000])
def test_hundreds_of_medium_arrays_travel_in_one_call(size: int) -> None:
    arrays: list[Any] = [np.full(size, i % 250, np.uint8) for i in range(300)]
    found = same(arrays).result()
    assert [int(a[0]) for a in found] == [int(a[-1]) for a in found] == [i % 250 for i in range(300)]
    assert sum(a.nbytes for a in same(same(arrays)).result()) == 300 * size


def test_what_changes_after_the_call_is_not_seen_by_the_task() -> None:
    gate: Future[None] = Future()
    for big in (
        np.zeros(5_000),
        np.zeros(500_000),
        bytearray(70_000),
        bytearray(500_000),
        [0] * 10,
        {"a": np.zeros(9)},
    ):
        future = same(big, inputs=[gate])
        if isinstance(big, dict):
            big["a"][:] = 1
        elif isinstance(big, np.ndarray):
            big[:] = 1
        else:
            big[:] = b"\1" * len(big) if isinstance(big, bytearray) else [1]
        if not gate.done():
            gate.set_result(None)
        found = future.result()
        assert not np.any(found["a"] if isinstance(found, dict) else np.asarray(found))


def test_a_result_changed_here_is_not_changed_for_tasks_that_need_it() -> None:
    arrays: list[Any] = [np.zeros(3_000) for _ in range(20)] + [np.zeros(300_000)]
    gate: Future[None] = Future()
    first = same(arrays)
    second = same(first, inputs=[gate])
    for array in first.result():
        array[:] = 1
    gate.set_result(None)
    assert not any(array.any() for array in second.result())


def test_a_result_that_feeds_other_tasks_is_not_unpickled_here() -> None:
    before = call_tasks.CountsUnpickling.count
    link = make_counting(0)
    for _ in range(20):
        link = pass_on(link)
    assert value_of(link).result() == 20
    finished = make_counting(np.arange(100_000))
    assert len(value_of([finished, finished][0]).result()) == 100_000
    assert call_tasks.CountsUnpickling.count == before
    finished.result()
    assert call_tasks.CountsUnpickling.count == before + 1


def test_a_body_is_sent_once_however_many_apps_and_calls_have_it(run: pf.Run) -> None:
    before = len(run.client.definitions.known)
    apps = [pf.python_app(call_tasks.value_of) for _ in range(5)]
    boxes = [app(make_counting(i)) for i in range(20) for app in apps]
    assert len({future.fn for future in boxes}) == 1
    assert len(run.client.definitions.known) - before <= 2


def test_a_wide_fan_in_of_big_and_small_results_arrives_in_order() -> None:
    parts = [same(np.full(30_000, i) if i % 10 == 0 else i) for i in range(200)]
    found = same(parts).result()
    assert [int(np.max(part)) for part in found] == list(range(200))


def test_a_result_that_is_too_big_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path_factory.mktemp("small"), max_message_bytes="4m")
    with pf.load(config):
        with pytest.raises(pf.SerializationError, match="max_message_bytes"):
            same(bytes(5 << 20)).result()
        with pytest.raises(pf.SerializationError, match="max_message_bytes"):
            pf.python_app(bytes)(5 << 20).result()
        assert same(bytes(3 << 20)).result() == bytes(3 << 20)


def test_arguments_that_are_too_big_only_with_the_results_they_need_fail_with_words(tmp_path: Path) -> None:
    def make(count: int) -> bytes:
        return bytes(count)

    config = pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path, max_message_bytes="1m")
    with pf.load(config):
        piece = pf.python_app(make)
        total = pf.python_app(lambda *parts, **words: sum(map(len, parts)))
        last = pf.python_app(lambda n: n)
        parts = [piece(600_000), piece(400_000), piece(30_000)]
        assert total(*parts[1:]).result(60) == 430_000
        for _ in range(2):  # the second time with results that are there already
            bad = total(*parts, b"own" * 9000)
            after = last(bad)
            with pytest.raises(pf.SerializationError) as caught:
                bad.result(60)
            text = str(caught.value)
            assert "the arguments of '<lambda>' have " in text
            assert " with the 3 results they need" in text
            assert f"max_message_bytes={1 << 20}; the longest of these results has 6000" in text
            with pytest.raises(pf.DependencyError):
                after.result(60)
        shorts = [piece(30_000) for _ in range(40)]  # each of them would travel inside its message
        with pytest.raises(pf.SerializationError, match="with the 40 results they need"):
            total(*shorts).result(60)
