"""The errors of tasks say what failed, where it has written, and what depended on it."""

from __future__ import annotations

import sys
import traceback
from concurrent.futures import CancelledError
from pathlib import Path

import msgspec
import pytest

from pilotflow.errors import DependencyError, WorkerLost
from pilotflow.future_errors import dependency_failed, failure_of
from pilotflow.messages.records import Status
from pilotflow.remote_errors import pack_exception
from pilotflow.serialize import Packed
from tests.core.made_futures import failed, new


def test_the_error_of_a_dependent_names_the_whole_chain_and_holds_the_root() -> None:
    a = failed(ValueError("root"), "a", 1)
    b, c = new("b", 2), new("c", 3)
    b.fail(dependency_failed(a, b))
    c.fail(dependency_failed(b, c))
    error = c.exception()
    assert isinstance(error, DependencyError)
    assert error.chain == ("'b' (task 2)", "'a' (task 1)")
    assert error.__cause__ is a.exception()
    assert "'c' (task 3) did not run: it needs 'b' (task 2) <- 'a' (task 1), of which the last failed" in str(error)
    assert "ValueError: root" in str(error)


def test_the_error_of_a_dependent_shows_where_the_first_failure_has_written(tmp_path: Path) -> None:
    a, b, c = failed(ValueError("root"), "a", 1), new("b", 2), new("c", 3)
    a.stderr = str(tmp_path / "err")
    Path(a.stderr).write_text("first\nwhat went wrong\n")
    b.fail(dependency_failed(a, b))
    c.fail(dependency_failed(b, c))
    error = c.exception()
    assert isinstance(error, DependencyError)
    assert str(error).endswith(f"The stderr of 'a' (task 1) ({a.stderr}) ends with:\nfirst\nwhat went wrong")
    assert (error.stderr, error.stderr_tail) == (a.stderr, "first\nwhat went wrong")
    Path(a.stderr).unlink()
    assert str(dependency_failed(a, b)).endswith(f"({a.stderr}) is empty, or cannot be read here.")


@pytest.mark.parametrize(
    ("out", "err", "told"),
    [
        ("/o", None, "The stdout of 'f' (task 1) is in /o"),
        (None, "/e", "The stderr of 'f' (task 1) is in /e"),
        ("/o", "/e", "The stdout of 'f' (task 1) is in /o, its stderr in /e"),
        ("/oe", "/oe", "The output of 'f' (task 1) is in /oe"),
    ],
)
def test_an_exception_notes_where_its_task_s_output_is(out: str | None, err: str | None, told: str) -> None:
    future = new()
    future.stdout, future.stderr = out, err
    future.settle(Status.ERROR, pack_exception(ValueError("text", 3)))
    error = future.exception()
    assert isinstance(error, ValueError)
    assert error.args == ("text", 3)
    lines = "".join(traceback.format_exception(error)).splitlines()
    assert lines.count(told) == 1
    assert (lines[-1] == told) is (sys.version_info >= (3, 11)), "Python 3.10 shows no notes; the remote text has it"
    lost = failure_of(future, Status.LOST, Packed(msgspec.msgpack.encode(["it crashed"])))
    assert str(lost).endswith(f"\n{told}")
    never = failure_of(future, Status.TOO_LARGE, Packed(msgspec.msgpack.encode(["it is too large"])))
    assert told not in "".join(traceback.format_exception(never)), "it has never run"


def test_the_errors_of_a_long_chain_stay_short() -> None:
    last = failed(ValueError("root"), "first", 1)
    root = last.exception()
    for i in range(2, 3000):
        following = new("link", i)
        following.fail(dependency_failed(last, following))
        last = following
    error = last.exception()
    assert isinstance(error, DependencyError)
    assert len(str(error)) < 500
    assert error.chain[0] == "'link' (task 2998)"
    assert error.chain[-1] == "'first' (task 1)"
    assert error.__cause__ is root


def test_a_cancelled_dependency_is_named_as_such() -> None:
    future = new("a", 1)
    future.cancel()
    error = dependency_failed(future, new("b", 2))
    assert "'b' (task 2) did not run: it needs 'a' (task 1), which was cancelled" in str(error)
    assert isinstance(error.__cause__, CancelledError)


def test_what_the_last_worker_said_last_stands_below_the_attempts_and_is_none_of_them() -> None:
    lost = new()
    lost.settle(Status.LOST, Packed(msgspec.msgpack.encode(["attempt 1: killed", "attempt 2: killed\nends with:\nno"])))
    error = lost.exception()
    assert isinstance(error, WorkerLost)
    assert error.attempts == ("attempt 1: killed", "attempt 2: killed")
    assert "\n  attempt 1: killed\n  attempt 2: killed\nends with:\nno\nLook for crashes" in str(error)


def test_a_task_that_may_run_once_and_was_cut_by_its_blocks_end_is_told_what_to_do_about_that() -> None:
    line = "attempt 1: manager on n1 (block b-0) ended while it ran: its block's walltime is over"
    cut = new()
    cut.settle(Status.LOST, Packed(msgspec.msgpack.encode([line])))
    assert "never run twice" in str(cut.exception())
    assert "Look for crashes" not in str(cut.exception())
    died = new()
    died.settle(Status.LOST, Packed(msgspec.msgpack.encode(["attempt 1: worker on n1 was killed by signal 9"])))
    assert "Look for crashes" in str(died.exception())
