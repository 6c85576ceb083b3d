"""Values become payloads and come back: any size, any array, functions and classes by name or value."""

from __future__ import annotations

import math
import pickle
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import dill
import numpy as np
import pytest

from pilotflow.bodies import digest, pack_function, unpack_function
from pilotflow.errors import SerializationError
from pilotflow.serialize import (
    BUFFER_BYTES,
    BUFFERS_MAX,
    INLINE_BYTES,
    Packed,
    join,
    pack,
    pack_call,
    unpack,
    unpack_call,
)
from tests.integration import call_tasks

SIZES = [0, 1, 16 << 10, *(k * 1024 + d for k in (32, 64, 96, 128) for d in (-1, 0, 1)), 1 << 20, 8 << 20]


def there_and_back(value: Any) -> Any:
    packed = pack(value)
    assert len(packed.frames) == sum(packed.layout)
    return unpack(*packed)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_size_travel(kind: Callable[[bytes], Any], size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    found = there_and_back(kind(data))
    assert isinstance(found, kind)  # type: ignore[arg-type]
    assert bytes(found) == data
    args, _ = unpack_call(*pack_call((1, kind(data), "x"), {}, []))
    assert bytes(args[1]) == data


def test_a_memoryview_keeps_its_shape_and_format() -> None:
    view = memoryview(np.arange(12, dtype="<i4").tobytes()).cast("i", (3, 4))
    found = there_and_back(view)
    assert (found.format, found.shape) == ("i", (3, 4))
    assert found.tolist() == view.tolist()
    assert bytes(there_and_back(memoryview(b"abcdef")[::2])) == b"ace"


ARRAYS = {
    "zero size": np.empty((0, 3)),
    "scalar": np.array(3.5),
    "small": np.arange(10),
    "medium": np.arange(5000.0),
    "big": np.arange(300_000.0),
    "not contiguous": np.arange(200_000.0)[::3],
    "a transposed slice": np.arange(90_000.0).reshape(300, 300).T[:, 5:],
    "fortran order": np.asfortranarray(np.arange(90_000.0).reshape(300, 300)),
    "structured": np.array([(1, 2.5, b"x")] * 20_000, dtype=[("a", "i4"), ("b", "f8"), ("c", "S3")]),
    "objects": np.array([{"a": 1}, None, "x"], dtype=object),
    "strings": np.array(["abc", "de"] * 10_000),
    "dates": np.arange("2020-01", "2024-01", dtype="M8[D]"),
    "read-only": np.broadcast_to(np.arange(3), (20_000, 3)),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_of_every_kind_travel_and_arrive_writable(array: Any) -> None:
    found = there_and_back(array)
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.flags.f_contiguous or not (array.flags.f_contiguous and array.ndim > 1)
    np.testing.assert_array_equal(found, array)
    assert found.flags.writeable


def test_big_arrays_travel_outside_the_pickle_stream() -> None:
    packed = pack({"a": np.zeros(BUFFER_BYTES, np.uint8), "b": np.zeros(BUFFER_BYTES - 1, np.uint8)})
    assert packed.layout == (1, 1)


@pytest.mark.parametrize("big", [np.zeros(20_000), bytearray(200_000), bytearray(70_000), np.zeros(20_000)[::2]])
def test_what_changes_after_packing_is_not_seen(big: Any) -> None:
    packed = pack_call((big,), {}, [])
    big[:] = bytes([1]) * len(big) if isinstance(big, bytearray) else 1
    (found,), _ = unpack_call(*packed)
    assert not np.any(np.frombuffer(found, np.uint8) if isinstance(found, bytearray) else found)


def test_a_read_only_view_of_an_array_that_changes_is_not_seen_to_change() -> None:
    base = np.zeros(20_000)
    view = base[:]
    view.flags.writeable = False
    packed = pack(view)
    base[:] = 1
    assert not unpack(*packed).any()


def test_more_arrays_than_frames_can_be_counted_travel_in_the_stream() -> None:
    arrays = [np.full(10_000, i) for i in range(BUFFERS_MAX + 20)]
    packed = pack(arrays)
    assert packed.layout[1] == BUFFERS_MAX
    found = unpack(*packed)
    assert [a[0] for a in found] == list(range(len(arrays)))


def new_future() -> Future[Any]:
    return Future()


@dataclass
class Holder:
    inside: Any


def test_futures_anywhere_become_numbers_and_come_back_as_results() -> None:
    a, b, c, d = (new_future() for _ in range(4))
    futures: list[Future[Any]] = []
    args = (a, [b, (c, {d: a, "k": b})], {c}, Holder({"x": [d]}))
    packed = pack_call(args, {"key": a}, futures)
    assert futures == [a, b, c, d]
    for results in (["ra", "rb", "rc", "rd"], ["ra" * 20_000, "rb", np.arange(100_000), "rd"]):
        if isinstance(results[2], np.ndarray):  # no key of a set
            packed = pack_call((a, [b, c, d]), {}, futures := [])
            found, _ = unpack_call(*join([packed, *map(pack, results)]))
            assert found[0] == results[0]
            assert found[1][0] == "rb"
            assert len(found[1][1]) == 100_000
            continue
        found, kwargs = unpack_call(*join([packed, *map(pack, results)]))
        assert found == ("ra", ["rb", ("rc", {"rd": "ra", "k": "rb"})], {"rc"}, Holder({"x": ["rd"]}))
        assert kwargs == {"key": "ra"}


def test_any_number_of_small_results_share_a_frame() -> None:
    futures: list[Future[Any]] = []
    packed = pack_call(([new_future() for _ in range(70_000)],), {}, futures)
    whole = join([packed, *(pack(i) for i in range(35_000)), pack(np.arange(9999)), *(pack(i) for i in range(34_999))])
    assert len(whole.frames) < 10
    (found,), _ = unpack_call(*whole)
    assert found[:35_000] == list(range(35_000))
    assert found[-1] == 34_998


def test_joined_results_do_not_stay_behind() -> None:
    futures: list[Future[Any]] = []
    packed = pack_call((new_future(),), {}, futures)
    with pytest.raises(SerializationError):
        unpack_call(*join([packed, Packed(b"\x80\x05rubbish")]))
    args, _ = unpack_call(*join([packed, pack("clean")]))
    assert args == ("clean",)


def test_an_argument_that_cannot_travel_is_named_with_its_path() -> None:
    lock = threading.Lock()
    for args, kwargs, path in (
        ((1, lock), {}, r"args\[1\] \(lock\)"),
        ((), {"key": {"deep": [1, lock]}}, r"kwargs\['key'\]\['deep'\]\[1\] \(lock\)"),
        ((Holder(lock),), {}, r"args\[0\]\.inside \(lock\)"),
        (((x for x in "abc"),), {}, r"args\[0\] \(generator\)"),
    ):
        with pytest.raises(SerializationError, match=path):
            pack_call(args, kwargs, [])


def test_a_value_whose_pickling_or_unpickling_raises_gives_its_reason() -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    with pytest.raises(SerializationError, match="RuntimeError: not me"):
        pack(Refuses())
    with pytest.raises(SerializationError, match="OSError: cannot be unpickled"):
        there_and_back(call_tasks.BadToUnpickle())


def test_a_value_that_ends_the_program_when_it_is_pickled_or_unpickled_gives_its_reason_too() -> None:
    with pytest.raises(SerializationError, match="SystemExit: 3"):
        pack(call_tasks.LeavesWhenPickled())
    with pytest.raises(SerializationError, match="SystemExit: 3"):
        there_and_back(call_tasks.LeavesWhenUnpickled())


def test_a_missing_module_says_where_to_install_it() -> None:
    with pytest.raises(SerializationError, match=r"Module 'no_such_module'.*worker_init"):
        unpack(b"\x80\x04cno_such_module\nname\n.")


@pytest.mark.parametrize(
    "function", [call_tasks.add, math.sqrt, pow, call_tasks.Box.method, call_tasks.decorated, np.sum], ids=repr
)
def test_an_importable_function_travels_as_its_name(function: Callable[..., Any]) -> None:
    body = pack_function(function)
    assert len(body) < 100
    assert unpack_function(body) is function


def test_the_function_of_an_app_travels_as_its_name() -> None:
    for app in (call_tasks.double, call_tasks.traced_app, call_tasks.Box.app_method):
        function = app.__pilotflow_function__
        assert len(pack_function(function)) < 100
        assert unpack_function(pack_function(function)) is function
        assert there_and_back(function) is function, "as an argument too"


def test_the_same_body_has_the_same_digest() -> None:
    assert digest(pack_function(call_tasks.add)) == digest(pack_function(call_tasks.add))
    assert digest(pack_function(call_tasks.add)) != digest(pack_function(call_tasks.same))


def test_lambdas_closures_and_nested_functions_travel_by_value() -> None:
    offset = 10

    def nested(x: int) -> int:
        return inner(x) + offset

    def inner(x: int) -> int:
        return -x

    for function in (nested, lambda x: inner(x) + offset):
        found = unpack_function(pack_function(function))
        assert found is not function
        assert found(3) == 7


def test_a_function_that_travels_by_value_remembers_its_file_for_tracebacks() -> None:
    def outer() -> Callable[[], int]:
        def inner() -> int:
            return 1

        return inner

    arrived = unpack_function(pack_function(outer))
    assert (arrived.__code__.co_filename, arrived().__code__.co_filename) == (__file__, __file__)
    assert arrived.__code__.co_firstlineno == outer.__code__.co_firstlineno


def test_a_function_that_holds_a_lock_travels_too() -> None:
    lock = threading.Lock()
    try:
        dill.dumps(lock)
    except TypeError:
        pytest.skip(f"dill {dill.__version__} does not know the locks of this Python yet")

    def guarded(x: int) -> int:
        with lock:
            return x + 1

    assert unpack_function(pack_function(guarded))(1) == 2


def test_a_function_that_holds_a_future_is_refused_with_words() -> None:
    future = new_future()
    with pytest.raises(SerializationError, match="a future cannot travel"):
        pack_function(lambda: future)


def test_a_cell_run_twice_in_one_module_sends_the_new_body() -> None:
    module = types.ModuleType("a_notebook")
    sys.modules[module.__name__] = module
    try:
        bodies = []
        for number in (1, 2):
            exec(f"def helper(): return {number}\ndef cell(): return helper() * 10", vars(module))
            bodies.append(pack_function(module.cell))
        del sys.modules[module.__name__]
        assert [unpack_function(body)() for body in bodies] == [10, 20]
    finally:
        sys.modules.pop(module.__name__, None)


def test_a_function_redefined_in_an_importable_module_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace = {"__name__": call_tasks.__name__}
    exec("def add(x, y): return 'new'", namespace)
    monkeypatch.setattr(call_tasks, "add", namespace["add"])
    body = pack_function(call_tasks.add)
    monkeypatch.undo()
    assert unpack_function(body)(1, 2) == "new"


def test_a_class_that_cannot_be_imported_comes_home_as_the_same_class() -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def again(self) -> Local:
            return Local(self.x + 1)

    found = there_and_back(Local(1))
    assert type(found) is Local
    assert type(found.again()) is Local
    assert there_and_back(Local) is Local


def test_small_calls_ride_inline_and_plain_pickle_reads_them() -> None:
    packed = pack_call((1, "x", None, 2.5), {}, [])
    assert packed.layout == ()
    assert pickle.loads(packed.payload) == ((1, "x", None, 2.5), {})
    assert pack_call(("x" * INLINE_BYTES,), {}, []).layout == (1, 0)
