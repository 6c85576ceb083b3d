"""Keys of cached calls: equal where values and code are equal, different where they differ, and in words where neither can be told."""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotflow.caching.keys import AppKey, CallKey
from pilotflow.caching.text import gaps
from pilotflow.caching.values import cache_key, filled, text_of
from pilotflow.errors import CacheKeyError
from tests.core import cache_functions


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: float
    y: float


class Pair(NamedTuple):
    left: int
    right: int


class Molecule:
    def __init__(self, formula: str) -> None:
        self.formula = formula


def text(value: Any) -> bytes:
    return filled(text_of(value))


def key(
    function: Callable[..., Any], *args: Any, version: str | None = None, ignored: str = "", **kwargs: Any
) -> CallKey:
    app = AppKey("f", "python_app", function, version, frozenset(ignored.split()))
    return app.call(args, kwargs).key()


def differing(one: CallKey, other: CallKey) -> set[str]:
    return {part.name for part in set(one.parts) ^ set(other.parts)}


DISTINCT: list[Any] = [
    None, True, False, 0, 1, -1, 10**5000, -(10**5000), 1.0, -0.0, 0.0, 1j, "", "1", b"1", bytearray(b"1"), "\ud800",
    "x" * 5000, "x" * 5001, [], (), {}, set(), frozenset(), [1], (1,), {1}, {1: 2}, {2: 1}, [[1]], [1, 2], [2, 1],
    ["ab", "c"], ["a", "bc"], [["a"], "b"], [["a", "b"]], deque([1]), range(3), range(4), slice(1, 2), ...,
    Decimal("1.0"), Decimal("1.00"), Fraction(1, 2), UUID(int=1), date(2026, 1, 1), datetime(2026, 1, 1),  # noqa: DTZ001
    datetime(2026, 1, 1, tzinfo=timezone.utc), timedelta(days=1), Colour.RED, Colour.GREEN, Access.READ,
    Access.READ | Access.WRITE, Point(1, 2), Point(2, 1), Pair(1, 2), (1, 2), Path("/a"), Path("a"), int, str, Point, len,
    "abc".upper, functools.partial(int, base=2), functools.partial(int, base=3), OrderedDict(a=1, b=2),
    OrderedDict(b=2, a=1), defaultdict(int), defaultdict(list), Counter("a"), memoryview(b"ab"), sys, threading,
    np.arange(3), np.arange(3.0), np.arange(3, dtype="i4"), np.arange(3).reshape(3, 1), np.arange(4), np.zeros((0, 3)),
    np.zeros((3, 0)), np.array(["a", "b"]), np.array(["a", None], dtype=object), np.float64(1), np.float32(1),
    np.dtype("f4"), np.dtype("f8"), np.array("2026-01-01", dtype="datetime64[D]"),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
]  # fmt: skip


def test_different_values_never_share_a_key() -> None:
    texts = [text(value) for value in DISTINCT]
    clashes = [
        (one, other)
        for i, one in enumerate(DISTINCT)
        for j, other in enumerate(DISTINCT)
        if i < j and texts[i] == texts[j]
    ]
    assert not clashes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({3, 1, 2}, {2, 3, 1}),
        ({"x": {1, 2}, "y": [{"p": 1, "q": 2}]}, {"y": [{"q": 2, "p": 1}], "x": {2, 1}}),
        (Point(1.0, 2.0), Point(1.0, 2.0)),
        (Path("/a/b"), PurePosixPath("/a/b")),
        (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
        (np.arange(10)[::2], np.array([0, 2, 4, 6, 8])),
    ],
)
def test_equal_values_have_one_key(one: Any, other: Any) -> None:
    assert text(one) == text(other)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_texts_are_equal_only_if_values_are(one: Any, other: Any) -> None:
    if text(one) == text(other):
        assert repr(one) == repr(other) or one == other
    elif one == other:  # only numbers of different types, or zeros of different sign, are equal and apart
        assert repr(one) != repr(other)


@given(PLAIN)
def test_a_future_counts_as_its_result(value: Any) -> None:
    future: Future[Any] = Future()
    waiting = text_of({"x": [future, 1], "y": (future,)})
    assert gaps(waiting) == [future, future]
    future.set_result(value)
    assert filled(waiting) == text({"x": [value, 1], "y": (value,)}) == text({"x": [future, 1], "y": (future,)})


def test_a_key_is_the_same_in_another_process() -> None:
    program = """
        from tests.core.test_cache_keys import *
        print(key(cache_functions.uses_helper, {"b", "a", "c"}).digest.hex())
        print([text(value).hex() for value in DISTINCT if type(value) is not memoryview][:60])
    """
    lines = [line.strip() for line in program.strip().splitlines()]
    outputs = {
        subprocess.run(
            [sys.executable, "-c", "\n".join(lines)],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_pandas_values_are_keyed_by_what_is_in_them() -> None:
    pd = pytest.importorskip("pandas")
    columns: dict[str, Any] = {
        "i": [1, 2],
        "s": ["a", None],
        "t": pd.to_datetime(["2026-01-01", "2026-01-02"]),
        "z": pd.to_datetime(["2026-01-01", None], utc=True),
        "c": pd.Categorical(["x", "y"]),
        "n": pd.array([1, None], dtype="Int64"),
        "o": [[1], (2,)],
    }
    frame = pd.DataFrame(columns, index=["p", "q"])
    others = [
        frame.rename(columns={"i": "j"}),
        frame.rename(index={"p": "r"}),
        frame.astype({"i": "float64"}),
        frame.iloc[::-1],
        *(frame.assign(**{name: list(reversed(list(frame[name])))}) for name in columns),
    ]
    texts = [
        text(frame),
        *map(text, others),
        text(frame["i"]),
        text(frame.index),
        text(frame.set_index(["i", "c"]).index),
    ]
    assert len(set(texts)) == len(texts)
    assert text(frame) == text(frame.copy())
    assert text([pd.Timestamp("2026-01-01"), pd.NaT, pd.NA]) == text([pd.Timestamp("2026-01-01"), pd.NaT, pd.NA])


# ---- code -----------------------------------------------------------------------------------


def made(source: str, name: str = "f", **others: Any) -> Callable[..., Any]:
    space: dict[str, Any] = {"__name__": "made", **others}
    exec(source, space)
    function: Callable[..., Any] = space[name]
    return function


def test_the_body_counts_and_comments_and_docstrings_do_not() -> None:
    plain = made("def f(x):\n    return x + 1")
    commented = made('def f(x):\n    "Adds."\n\n    # one\n    return x + 1')
    documented_otherwise = made('def f(x):\n    "Adds one."\n    return x + 1')
    other = made("def f(x):\n    return x + 2")
    assert key(commented, 1) == key(documented_otherwise, 1)
    assert differing(key(plain, 1), key(other, 1)) == {"the code of 'f'"}


def test_defaults_and_enclosing_values_count() -> None:
    def outer(n: int) -> Callable[[int], int]:
        return lambda x: x + n

    assert key(outer(1), 1) == key(outer(1), 1)
    assert key(outer(1), 1) != key(outer(2), 1)
    assert key(made("def f(x, y=1): ..."), 1) != key(made("def f(x, y=2): ..."), 1)
    assert key(made("def f(x, *, y=1): ..."), 1) != key(made("def f(x, *, y=2): ..."), 1)


def test_inner_functions_count() -> None:
    one = made("def f(x):\n    def g(): return 1\n    return g()")
    other = made("def f(x):\n    def g(): return 2\n    return g()")
    assert key(one, 1) != key(other, 1)


def test_functions_classes_and_constants_of_the_same_package_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(cache_functions.uses_helper, 1)
    by_class = key(cache_functions.uses_class, 1)
    with monkeypatch.context() as patch:
        patch.setattr(cache_functions, "LIMIT", 11)
        assert differing(before, key(cache_functions.uses_helper, 1)) == {"the code of 'helper'"}
    with monkeypatch.context() as patch:
        patch.setattr(cache_functions.Scale, "apply", lambda self, x: x * 3)
        assert differing(by_class, key(cache_functions.uses_class, 1)) == {"the code of 'Scale'"}
    assert key(cache_functions.uses_helper, 1) == before


def test_modules_beside_the_functions_own_count_and_installed_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = "import statistics, keyed_helpers\nfrom keyed_helpers import total, Model\n"
    main += "def by_module(x): return keyed_helpers.total(x)\ndef by_name(x): return total(x)\n"
    main += "def by_class(x): return Model().run(x)\ndef by_import(x):\n    import keyed_helpers as h\n    return h.total(x)\n"
    main += "def installed(x): return statistics.mean(x)\n"
    helpers = "import functools\nSTEP = 1\n@functools.cache\ndef total(x): return x + STEP\n"
    helpers += "class Base:\n    def run(self, x): return total(x) * self.scale\nclass Model(Base):\n    scale = 2\n"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "keyed_main.py").write_text(main, encoding="utf-8")

    def keys(text: str) -> dict[str, CallKey]:
        (tmp_path / "keyed_helpers.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        for name in ("keyed_main", "keyed_helpers"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        module = importlib.import_module("keyed_main")
        return {
            name: key(getattr(module, name), 1)
            for name in ("by_module", "by_name", "by_class", "by_import", "installed")
        }

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = keys(helpers)
    assert keys(helpers) == before
    step = keys(helpers.replace("STEP = 1", "STEP = 5"))
    assert {name for name in before if step[name] != before[name]} == {"by_module", "by_name", "by_class", "by_import"}
    assert differing(before["by_module"], step["by_module"]) == {"the code of 'keyed_helpers.total'"}
    for old, new in (("scale = 2", "scale = 3"), ("* self", "+ self")):
        edited = keys(helpers.replace(old, new))
        assert {name for name in before if edited[name] != before[name]} == {"by_class"}


def test_what_a_function_uses_and_cannot_be_keyed_does_not_count() -> None:
    assert key(cache_functions.uses_object, 1) == key(cache_functions.uses_object, 1)


def test_a_recursive_function_has_a_key() -> None:
    assert key(cache_functions.calls_itself, 1) == key(cache_functions.calls_itself, 1)


def test_a_version_takes_the_place_of_the_code() -> None:
    lock = threading.Lock()

    def guarded(x: int) -> int:
        with lock:
            return x

    with pytest.raises(CacheKeyError, match=r"enclosing variable 'lock' of function 'guarded': .*lock.*version='1'"):
        key(guarded, 1)
    assert key(guarded, 1, version="1") == key(guarded, 1, version="1")
    assert differing(key(guarded, 1, version="1"), key(guarded, 1, version="2")) == {"the version"}


# ---- arguments ------------------------------------------------------------------------------


def area(width: int, height: int = 2, *rest: int, unit: str = "m", **words: int) -> None: ...


def test_arguments_count_by_parameter_however_they_are_given() -> None:
    assert key(area, 1) == key(area, 1, 2) == key(area, height=2, width=1) == key(area, 1, unit="m")
    assert key(area, 1, a=1, b=2) == key(area, 1, b=2, a=1)
    assert key(area, 1) != key(area, 1, 2, 3)
    assert differing(key(area, 1), key(area, 1, unit="cm")) == {"argument 'unit'"}


def test_ignored_arguments_do_not_count() -> None:
    assert key(area, 1, unit="m", ignored="unit") == key(area, 1, unit="cm", ignored="unit")


def test_a_wrong_call_has_a_key_too() -> None:
    assert key(area) == key(area)


def test_builtins_and_partials_can_be_apps() -> None:
    assert key(max, 1, 2) != key(max, 2, 1)
    assert key(functools.partial(pow, 2), 3) != key(functools.partial(pow, 3), 3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), r"argument 'width' cannot be part of a key: values of class object"),
        ([1, {"a": threading.Lock()}], r"argument 'width', at \[1\]\['a'\], cannot be part of a key: .*lock"),
        (Point(1, Molecule("H2O")), r"at \.y, .* class tests\.core\.test_cache_keys\.Molecule"),  # type: ignore[arg-type]
        ((number for number in range(1)), "generator"),
        (np.random.default_rng(1), "Generator"),
    ],
)
def test_what_cannot_be_keyed_is_said_with_its_place_and_a_remedy(value: Any, words: str) -> None:
    with pytest.raises(CacheKeyError, match=words) as raised:
        key(area, value)
    for part in ("app 'f' has cache=True", "ignore_for_cache=['width']", "pilotflow.cache_key"):
        assert part in str(raised.value)


def test_what_has_no_end_or_is_too_deep_is_said() -> None:
    ring: list[Any] = []
    ring.append(ring)
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(CacheKeyError, match="contains itself"):
        key(area, ring)
    with pytest.raises(CacheKeyError, match="nested this deeply") as raised:
        key(area, deep)
    assert len(str(raised.value)) < 1000


def test_a_class_can_be_registered_and_its_subclasses_are_too() -> None:
    class Registered(Molecule): ...

    class Special(Registered): ...

    @cache_key.register(Registered)
    def _(molecule: Registered) -> str:
        return molecule.formula

    assert key(area, Registered("H2O")) == key(area, Registered("H2O"))
    assert key(area, Registered("H2O")) != key(area, Registered("CO2"))
    assert key(area, Registered("H2O")) != key(area, Special("H2O"))


def test_a_dataclass_without_a_value_in_a_field_has_a_key() -> None:
    point = dataclasses.replace(Point(1, 2))
    del point.y
    assert text(point) == text(point)
