"""Exceptions come home as what they were, with frames that can be walked, whatever they are."""

from __future__ import annotations

import io
import pdb  # noqa: T100
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pilotflow.errors import BashExitError, RemoteTraceback, SerializationError, WorkerLost
from pilotflow.remote_errors import add_note, pack_exception, unpack_exception
from tests.integration import call_tasks


def travel(function: Callable[..., Any], *args: Any) -> BaseException:
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001
        return unpack_exception(*pack_exception(error))
    raise AssertionError("it did not raise")


def frames(error: BaseException) -> list[tuple[str, str]]:
    return [(f.filename, f.name) for f in traceback.extract_tb(error.__traceback__)]


def test_the_remote_function_is_in_the_traceback_with_file_and_line() -> None:
    error = travel(call_tasks.fail, "text")
    assert type(error) is ValueError
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.filename, last.name) == (call_tasks.__file__, "fail")
    assert last.line == "raise ValueError(text)"


def test_the_cause_is_the_remote_text_and_its_cause_the_remote_cause() -> None:
    error = travel(call_tasks.fail_with_cause)
    assert type(error) is RuntimeError
    remote = error.__cause__
    assert isinstance(remote, RemoteTraceback)
    assert "ValueError: inner" in str(remote)
    assert "direct cause" in str(remote)
    assert type(remote.__cause__) is ValueError
    assert frames(remote.__cause__)[-1][1] == "fail"


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_exceptions_whose_attributes_cannot_be_set_come_home_and_take_notes() -> None:
    def fail() -> None:
        raise Frozen(3) from ValueError("inner")

    error = travel(fail)
    assert isinstance(error, Frozen)
    assert error.code == 3
    assert isinstance(error.__cause__, RemoteTraceback)
    assert isinstance(error.__cause__.__cause__, ValueError)
    add_note(error, "a note")
    assert "".join(traceback.format_exception(error)).count("a note") == 1


def test_a_debugger_can_walk_the_frames() -> None:
    error = travel(call_tasks.fail_deep, 3)
    said = io.StringIO()
    debugger = pdb.Pdb(stdin=io.StringIO("where\nup\nquit\n"), stdout=said, nosigint=True, readrc=False)
    debugger.reset()
    debugger.interaction(None, error.__traceback__)
    assert said.getvalue().count("call_tasks.py") >= 3


def test_endless_recursion_comes_home_with_both_ends_of_its_traceback() -> None:
    error = travel(call_tasks.recurse_for_ever)
    assert type(error) is RecursionError
    found = frames(error)
    assert 50 <= len(found) <= 110
    assert found[-1][1] == "recurse_for_ever"


def test_an_exception_with_a_constructor_of_its_own_keeps_type_and_attributes() -> None:
    error = travel(call_tasks.fail_with_arguments)
    assert type(error) is call_tasks.WithArguments
    assert error.code == 7
    assert str(error) == "7: seven"


def test_an_exception_that_cannot_travel_is_described() -> None:
    error = travel(call_tasks.fail_with_lock)
    assert isinstance(error, SerializationError)
    assert "WithLock: has a lock" in str(error)
    assert "fail_with_lock" in str(error.__cause__)


class Hostile(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(3)

    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_an_exception_whose_own_methods_raise_still_ends_its_task() -> None:
    def fail() -> None:
        raise Hostile

    assert type(travel(fail)) is Hostile


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt("x"), StopIteration(1), GeneratorExit(), OSError(2, "no", "f")]
)
def test_exceptions_that_are_no_errors_keep_type_and_arguments(error: BaseException) -> None:
    def fail() -> None:
        raise error

    home = travel(fail)
    assert type(home) is type(error)
    assert home.args == error.args


def test_our_own_errors_keep_their_attributes() -> None:
    for error in (BashExitError("app", 2, "/err", "tail"), WorkerLost("lost", ("a", "b"))):

        def fail(error: Exception = error) -> None:
            raise error

        home = travel(fail)
        assert type(home) is type(error)
        assert {**vars(home)} == vars(error)


def test_notes_survive() -> None:
    def fail() -> None:
        error = ValueError("x")
        vars(error)["__notes__"] = ["a note"]  # what add_note does, from Python 3.11 on
        raise error

    assert vars(travel(fail))["__notes__"] == ["a note"]
