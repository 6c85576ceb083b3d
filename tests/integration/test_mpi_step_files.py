"""What ranks print, and files that they have promised, with real processes on this host."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest

from pilotflow.bodies import pack_function
from pilotflow.errors import MissingOutputs, RankError
from pilotflow.runtime.head_agent import RankCall
from pilotflow.runtime.task_output import Output
from pilotflow.runtime.tasks import BashCall, InSetting, PythonCall, Setting
from tests.integration import mpi_tasks as tasks
from tests.integration.step_tools import call_of, error_of, local, outcome, runner, value_of


@pytest.mark.parametrize(("mode", "before"), [("w", ""), ("a", "old\n")])
def test_output_files_of_a_function_are_emptied_once_and_have_what_every_rank_printed(
    tmp_path: Path, mode: str, before: str
) -> None:
    out = tmp_path / "logs" / "out.txt"
    out.parent.mkdir()
    out.write_text("old\n")
    call = call_of(tasks.printing, Output((str(out), mode), None), "hello")
    call = dataclasses.replace(call, body=pack_function(PythonCall(tasks.printing)))
    value_of(outcome(runner(tmp_path).call(local(ranks_per_node=3), call, time.monotonic())))
    lines = sorted(out.read_text().splitlines())
    assert lines == sorted([*before.split(), *(f"hello from {rank}" for rank in range(6))])


def test_a_bash_app_runs_its_command_in_every_rank(tmp_path: Path) -> None:
    def command(name: str) -> str:
        return f"echo {name} $PILOTFLOW_RANK"

    out = str(tmp_path / "out.txt")
    call = call_of(command, Output((out, "w"), (out, "w")), "it", return_ranks="all")
    call = dataclasses.replace(call, body=pack_function(BashCall(command, "command")))
    assert value_of(outcome(runner(tmp_path).call(local(), call, time.monotonic()))) == [0, 0]
    assert sorted(Path(out).read_text().splitlines()) == ["it 0", "it 1"]


def promising(function: Any, *paths: Path, uploads: tuple[Any, ...] = (), **words: Any) -> RankCall:
    """A call of the function that promises these files."""
    setting = Setting(outputs=tuple(map(str, paths)), uploads=uploads)
    call = call_of(function, setting, [], *map(str, paths), **words)
    return dataclasses.replace(call, body=pack_function(InSetting(function, function.__name__)))


@pytest.mark.parametrize("slow", range(3))
def test_files_that_ranks_have_promised_are_looked_for_when_the_last_has_returned(tmp_path: Path, slow: int) -> None:
    def write(*paths: str) -> int:
        rank = int(os.environ["PILOTFLOW_RANK"])
        while rank == slow and any(not os.path.exists(path) for path in paths if path != paths[slow]):
            time.sleep(0.005)
        Path(paths[rank]).touch()
        return rank

    paths = [tmp_path / f"out-{rank}" for rank in range(3)]
    call = promising(write, *paths, return_ranks="all")
    assert value_of(outcome(runner(tmp_path).call(local(nodes=3), call, time.monotonic()))) == [0, 1, 2]


def test_files_that_no_rank_has_made_are_missed_by_name(tmp_path: Path) -> None:
    def lazy(made: str, *_: str) -> None:
        if os.environ["PILOTFLOW_RANK"] == "1":
            Path(made).touch()

    call = promising(lazy, tmp_path / "made", tmp_path / "missing", tmp_path / "no" / "where")
    error = error_of(outcome(runner(tmp_path).call(local(ranks_per_node=2), call, time.monotonic())))
    assert isinstance(error, MissingOutputs)
    assert error.paths == (str(tmp_path / "missing"), str(tmp_path / "no" / "where"))
    assert "'lazy' has ended" in str(error)


def test_what_ranks_have_made_is_stored_once(tmp_path: Path) -> None:
    def write(path: str) -> None:
        if os.environ["PILOTFLOW_RANK"] == "1":
            Path(path).write_text("made")

    call = promising(write, tmp_path / "made", uploads=(tasks.Noted(str(tmp_path / "made"), str(tmp_path / "stored")),))
    value_of(outcome(runner(tmp_path).call(local(nodes=3), call, time.monotonic())))
    assert (tmp_path / "stored").read_text() == "made;"


def test_what_ranks_have_printed_is_stored_once(tmp_path: Path) -> None:
    def talk(*_: str) -> None:
        print("said", flush=True)

    out = tmp_path / "out"
    stream = tasks.Noted(str(out), str(tmp_path / "stored"))
    setting, output = Setting(streams=(stream,)), Output((str(out), "w"), None)
    call = call_of(talk, setting, [], output)
    call = dataclasses.replace(call, body=pack_function(InSetting(PythonCall(talk), "talk")))
    value_of(outcome(runner(tmp_path).call(local(nodes=3), call, time.monotonic())))
    assert (tmp_path / "stored").read_text() == "said\nsaid\nsaid\n;"


def test_a_rank_that_leaves_before_others_can_look_for_its_files_is_an_error(tmp_path: Path) -> None:
    def leave(path: str) -> None:
        Path(path).touch()
        if os.environ["PILOTFLOW_RANK"] == "1":
            os._exit(0)

    error = error_of(outcome(runner(tmp_path).call(local(), promising(leave, tmp_path / "made"), time.monotonic())))
    assert isinstance(error, RankError)
    assert "ended with exit code 0 before the function had returned" in str(error)


def test_what_ranks_print_stays_in_the_steps_directory(tmp_path: Path) -> None:
    value_of(outcome(runner(tmp_path).call(local(), call_of(tasks.printing, "hello"), time.monotonic())))
    folder = tmp_path / "steps" / "step"
    assert [path.name for path in folder.iterdir()] == ["stdout"]
    assert sorted((folder / "stdout").read_text().splitlines()) == ["hello from 0", "hello from 1"]
