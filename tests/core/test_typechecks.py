"""Wrong types are refused with the argument's name, and right ones do not cost an import of typeguard."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from pilotflow.errors import ConfigError
from pilotflow.typechecks import check_arguments, check_call, describe, field_error, split_field_error, type_problem


class Quacks(Protocol):
    def quack(self) -> str: ...


class Duck:
    def quack(self) -> str:
        return "quack"


@dataclass(frozen=True)
class Pond:
    depth: float = 1
    fish: int | None = None
    name: str = "pond"
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_arguments(self)


FITS: list[tuple[Any, Any]] = [
    (1, int),
    (1, float),
    (True, bool),
    (None, int | None),
    (2, int | None),
    ("x", str | int),
    ("a", Literal["a", "b"]),
    (["a"], list[str]),
    (("a", "b"), Sequence[str]),
    ({"a": 1}, dict[str, int]),
    ({"a": 1}, Mapping[str, int]),
    ((1, "a"), tuple[int, str]),
    (len, Callable[..., Any]),
    (Path(), str | os.PathLike[str]),
    (Duck(), Quacks),
    (object(), Any),
    ({1}, set[int]),
]
DOES_NOT: list[tuple[Any, Any, str]] = [
    ("two", int, "'two' is str, expected int."),
    (True, int, "True is bool, expected int."),
    (False, int | None, "False is bool, expected int | None."),
    (True, float | str, "True is bool, expected float | str."),
    (1, bool, "1 is int, expected bool."),
    (1.5, int, "1.5 is float, expected int."),
    (None, str, "None is None, expected str."),
    ("c", Literal["a", "b"], "'c' is str, expected 'a' or 'b'."),
    ([1], list[str], "[1] is not list[str]: item 0 of list is not an instance of str."),
    ("ab", list[str], "'ab' is str, expected list[str]."),
    ({"a": "b"}, dict[str, int], "value of key 'a' of dict is not an instance of int"),
    (3, Callable[..., Any], "3 is int, expected a function"),
    (object(), Quacks, "expected Quacks."),
    (b"x", str | os.PathLike[str], "b'x' is bytes, expected str | PathLike[str]."),
]


@pytest.mark.parametrize(("value", "annotation"), FITS, ids=str)
def test_a_value_of_the_right_type_passes(value: object, annotation: Any) -> None:
    check_call("f", "x", value, annotation)


@pytest.mark.parametrize(("value", "annotation", "words"), DOES_NOT, ids=str)
def test_a_value_of_a_wrong_type_is_named(value: object, annotation: Any, words: str) -> None:
    problem = type_problem(value, annotation)
    assert problem is not None
    assert words in problem
    with pytest.raises(ConfigError) as caught:
        check_call("f", "x", value, annotation)
    assert str(caught.value) == f"f(x=...): {problem}"


def test_the_fields_of_a_record_are_checked_when_it_is_made() -> None:
    Pond(depth=2, fish=3, names=["a"])
    with pytest.raises(ConfigError) as caught:
        Pond(fish="many")  # type: ignore[arg-type]
    assert str(caught.value) == "Pond(fish=...): 'many' is str, expected int | None."


def test_an_error_about_fields_can_be_taken_apart() -> None:
    error = field_error(Pond, ("depth", "fish"), "too many: of both\nin two lines")
    assert str(error) == "Pond(depth=..., fish=...): too many: of both\nin two lines"
    parts = split_field_error(error)
    assert parts == ("Pond", ("depth", "fish"), "too many: of both\nin two lines")
    assert split_field_error(ConfigError("something else (a=...)")) is None


def test_annotations_are_described_as_they_are_written() -> None:
    assert describe(tuple[int, ...]) == "tuple[int, ...]"
    assert describe(Any) == "Any"


def test_only_records_have_fields_to_check() -> None:
    with pytest.raises(TypeError):
        check_arguments(3)


def test_a_program_without_mistakes_and_event_loops_imports_nothing_for_them() -> None:
    program = (
        "import sys; from pilotflow import Config, load, python_app; Config(executors=list(Config().executors));"
        "assert not {'asyncio', 'typeguard', 'pydantic', 'yaml', 'rich'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30, cwd=Path(__file__).parents[2])
