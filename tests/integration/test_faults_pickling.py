"""Values that cannot travel: their own future fails with words, and nobody else notices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pilotflow import AUTO_LOGNAME, PilotExecutor, Run, WorkerLost, bash_app, python_app
from pilotflow.errors import DependencyError, RemoteTraceback, SerializationError
from tests.integration import fault_tasks as tasks
from tests.integration import fault_values as values
from tests.integration.faults import config, running

make = python_app(values.make)
throw = python_app(values.throw)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with running(tmp_path_factory.mktemp("pickling")) as run:
        yield run


@pytest.fixture(autouse=True)
def neighbours(run: Run) -> Iterator[None]:
    """Tasks before, between and after, which must not notice anything."""
    before = [tasks.square(i) for i in range(50)]
    yield
    after = [tasks.square(i) for i in range(50)]
    assert [future.result(60) for future in before + after] == [i * i for i in range(50)] * 2
    assert len(run.blocks()) == 1


def text_of(future: Future[Any]) -> str:
    error = future.exception(60)
    assert type(error) is SerializationError
    return str(error)


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        ((values.Unpicklable(),), {}, "argument args[0] (Unpicklable)"),
        ((1, [2, {"k": values.Unpicklable()}]), {}, "argument args[1][1]['k'] (Unpicklable)"),
        ((), {"x": values.Holder(values.Unpicklable())}, "argument kwargs['x'].inner (Unpicklable)"),
    ],
)
def test_an_argument_that_cannot_be_pickled_is_named(args: Any, kwargs: Any, where: str) -> None:
    text = text_of(_anything(*args, **kwargs))
    assert f"in a call of app 'take_anything': {where} cannot be sent to a worker" in text
    assert "this one stays here" in text


def take_anything(*args: Any, **kwargs: Any) -> None:
    """A task that does not mind."""


_anything = python_app(take_anything)


@pytest.mark.parametrize("value", [threading.Lock(), (i for i in range(3))], ids=["lock", "generator"])
def test_locks_and_generators_cannot_be_arguments(value: Any) -> None:
    assert "argument args[0]" in text_of(_anything(value))


@pytest.mark.parametrize(
    ("args", "kwargs", "where"),
    [
        ((1, values.UnpicklableElsewhere()), {}, "args[1]"),
        (([1, {"k": (2, values.UnpicklableElsewhere())}], 2, 3, 4), {}, "args[0][1]['k'][1]"),
        ((), {"x": 1, "y": values.Holder(values.UnpicklableElsewhere())}, "kwargs['y'].inner"),
        ((bytes(200_000), bytearray(200_000), values.UnpicklableElsewhere()), {}, "args[2]"),
    ],
)
def test_an_argument_whose_unpickling_raises_is_named(args: Any, kwargs: Any, where: str) -> None:
    text = text_of(_anything(*args, **kwargs))
    assert f"in a call of 'take_anything': argument {where} cannot be unpickled on the worker: OSError" in text
    assert "no such device here" in text


def command(first: Any, second: Any = None, inputs: Any = ()) -> str:
    return "true"


_command = bash_app(command)
_printing = python_app(stdout=AUTO_LOGNAME)(take_anything)
CALLS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a command": (_command, {}, "command"),
    "a command with inputs as a parameter": (_command, {"inputs": [1]}, "command"),
    "output to a file": (_printing, {}, "take_anything"),
    "inputs": (_anything, {"inputs": [1]}, "take_anything"),
    "output to a file, and inputs": (_printing, {"inputs": [1]}, "take_anything"),
    "output said in the call, and inputs": (_anything, {"inputs": [1], "stderr": AUTO_LOGNAME}, "take_anything"),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_we_put_before_the_arguments_of_a_call_does_not_count(call: str) -> None:
    app, words, name = CALLS[call]
    text = text_of(app(1, [values.Unpicklable()], **words))
    assert f"in a call of app '{name}': argument args[1][0] (Unpicklable) cannot be sent to a worker" in text
    text = text_of(app(1, [values.UnpicklableElsewhere()], **words))
    assert f"in a call of '{name}': argument args[1][0] cannot be unpickled on the worker: OSError" in text


@pytest.mark.parametrize("app", [_anything, _printing])
def test_a_value_among_inputs_that_are_only_waited_for_is_named_as_one(app: Any) -> None:
    inputs = [1, {"k": values.Unpicklable()}]
    assert "argument inputs[1]['k'] (Unpicklable) cannot be sent to a worker" in text_of(app(7, inputs=inputs))
    inputs = [1, {"k": values.UnpicklableElsewhere()}]
    assert "argument inputs[1]['k'] cannot be unpickled on the worker" in text_of(app(7, inputs=inputs))


def test_an_argument_that_kills_who_unpickles_it_counts_as_a_lost_worker() -> None:
    error = _anything(values.DiesWhenUnpickled()).exception(60)
    assert isinstance(error, WorkerLost)
    assert "exited with code 4" in str(error)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("unpicklable", "the result of 'make' (Unpicklable) cannot be sent back"),
        ("deep", "the result of 'make' (dict) cannot be sent back: result['a'][1] (Unpicklable): RuntimeError"),
        ("lock", "the result of 'make' (lock) cannot be sent back"),
        ("generator", "the result of 'make' (generator) cannot be sent back"),
    ],
)
def test_a_result_that_cannot_be_pickled_fails_its_future_alone(kind: str, words: str) -> None:
    assert words in text_of(make(kind))


def test_a_result_whose_unpickling_raises_here_fails_its_future_alone() -> None:
    future = make("rotten")
    text = text_of(future)
    assert "the result of 'make' cannot be read here" in text
    assert "it has gone bad" in text
    with pytest.raises(SerializationError):
        future.result(1)


def test_a_result_that_cannot_be_read_here_cannot_be_read_by_the_next_task_either() -> None:
    """It is never unpickled on the way, so the failure is the next task's."""
    text = text_of(tasks.echo(make("rotten")))
    assert "in a call of 'echo': an argument, or a result that it needs, cannot be unpickled on the worker" in text
    assert "it has gone bad" in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lock", "tests.integration.fault_values.HoldsLock: I hold a lock"),
        ("lock without text", "tests.integration.fault_values.NoText: (its text cannot be had)"),
    ],
)
def test_an_exception_that_cannot_travel_is_described(kind: str, words: str) -> None:
    future = throw(kind)
    text = text_of(future)
    assert "raised an exception that cannot be pickled" in text
    assert words in text
    cause = future.exception(1).__cause__  # type: ignore[union-attr]
    assert isinstance(cause, RemoteTraceback)
    assert "in throw" in str(cause)


def test_exceptions_that_pickle_and_do_not_unpickle_arrive_all_the_same() -> None:
    error = throw("two arguments").exception(60)
    assert type(error) is values.TwoArguments
    assert str(error) == "one and two"


def test_an_exception_survives_a_cause_that_cannot_travel() -> None:
    error = throw("cause").exception(60)
    assert type(error) is ValueError
    assert str(error) == "outer"
    assert "the cause holds a lock" in str(error.__cause__)


def test_dependents_of_a_value_that_cannot_travel_say_which_task_failed() -> None:
    error = tasks.echo([tasks.square(2), make("unpicklable")]).exception(60)
    assert type(error) is DependencyError
    assert "'make'" in str(error)
    assert type(error.__cause__) is SerializationError


def test_an_executor_names_the_argument_too(tmp_path: Path) -> None:
    with PilotExecutor(config=config(tmp_path)) as pool:
        text = text_of(pool.submit(print, 1, [values.Unpicklable()]))
        assert "argument args[1][0] (Unpicklable)" in text
        assert "'print'" in text
        anything = partial(take_anything)  # travels with its call, before the arguments
        assert "argument args[1][0] (Unpicklable)" in text_of(pool.submit(anything, 1, [values.Unpicklable()]))
        text = text_of(pool.submit(anything, 1, [values.UnpicklableElsewhere()]))
        assert "argument args[1][0] cannot be unpickled on the worker" in text
        assert "argument function (partial)" in text_of(pool.submit(partial(print, values.Unpicklable())))
        assert "the result (Unpicklable)" in text_of(pool.submit(values.Unpicklable))
        assert pool.submit(pow, 2, 3).result(60) == 8
