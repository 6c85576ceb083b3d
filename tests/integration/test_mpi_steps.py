"""Steps without MPI: calls over ranks, their results, errors and ends, with real processes on this host."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotflow.errors import (
    ConfigError,
    InfrastructureError,
    RankError,
    SerializationError,
    TaskError,
    TaskTimeout,
)
from pilotflow.launchers.mpirun import MpirunLauncher
from pilotflow.launchers.steps import Step
from pilotflow.runtime.head_agent import StepEnd
from pilotflow.serialize import join, pack, pack_call
from tests.integration import mpi_tasks as tasks
from tests.integration.step_tools import ROOT, FakeMpirun, call_of, error_of, local, outcome, runner, value_of
from tests.processes import is_alive
from tests.waiting import until

# ---- results -----------------------------------------------------------------------------------


def test_the_result_is_what_rank_0_returned_or_the_list_of_what_all_returned(tmp_path: Path) -> None:
    steps = runner(tmp_path)
    first = steps.call(local("a"), call_of(tasks.scaled, "x", factor=10), time.monotonic())
    every = steps.call(
        local("b", ranks_per_node=2), call_of(tasks.scaled, "y", factor=10, return_ranks="all"), time.monotonic()
    )
    assert value_of(outcome(first)) == (0, "x")
    assert value_of(outcome(every)) == [(0, "y"), (10, "y"), (20, "y"), (30, "y")]
    assert not list((tmp_path / "steps").iterdir())


def test_one_rank_is_a_list_of_one(tmp_path: Path) -> None:
    call = call_of(tasks.scaled, "y", return_ranks="all")
    assert value_of(outcome(runner(tmp_path).call(local(nodes=1), call, time.monotonic()))) == [(0, "y")]


def test_big_arrays_travel_to_every_rank_and_back(tmp_path: Path) -> None:
    array: Any = np.arange(300_000, dtype=np.float64)

    def changed(values: Any, seed: int) -> Any:
        values += seed + int(os.environ["PILOTFLOW_RANK"])
        return values, bytes(200_000), "small"

    call = call_of(changed, array, 5, return_ranks="all")
    found = value_of(outcome(runner(tmp_path).call(local(), call, time.monotonic())))
    for rank, (values, long, small) in enumerate(found):
        np.testing.assert_array_equal(values, array + 5 + rank)
        assert (long, small) == (bytes(200_000), "small")


def test_results_of_other_tasks_are_put_into_the_arguments_as_they_came(tmp_path: Path) -> None:
    futures: list[Future[Any]] = []
    packed = pack_call((Future(),), {"factor": 3}, futures)
    arguments = join([packed, pack({"big": np.ones(50_000)})])
    call = call_of(tasks.scaled, arguments=arguments, return_ranks="all")
    found = value_of(outcome(runner(tmp_path).call(local(), call, time.monotonic())))
    assert [number for number, _ in found] == [0, 3]
    assert all(value["big"].sum() == 50_000 for _, value in found)


def test_ranks_know_where_they_are(tmp_path: Path) -> None:
    call = call_of(tasks.whole_environment, return_ranks="all")
    step = local(ranks_per_node=2)
    running = runner(tmp_path).call(step, call, time.monotonic())
    hosts = (tmp_path / "steps" / "step" / "hosts").read_text()
    found = value_of(outcome(running))
    assert hosts == "localhost\n" * 4
    assert [one["PILOTFLOW_RANK"] for one in found] == ["0", "1", "2", "3"]
    assert [one["PILOTFLOW_NODE_RANK"] for one in found] == ["0", "0", "1", "1"]
    assert [one["PILOTFLOW_LOCAL_RANK"] for one in found] == ["0", "1", "0", "1"]
    assert {one["MASTER_ADDR"] for one in found} == {"localhost"}
    assert {one["PILOTFLOW_HOSTFILE"] for one in found} == {str(tmp_path / "steps" / "step" / "hosts")}


def test_nobody_else_can_read_a_steps_files(tmp_path: Path) -> None:
    running = runner(tmp_path).call(local(), call_of(tasks.saving, str(tmp_path), 0.0), time.monotonic())
    until((tmp_path / "ready.1").exists, "rank 1 is there")
    folder = tmp_path / "steps" / "step"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir() if not path.name.startswith("std")} == {
        "call": 0o600,
        "hosts": 0o600,
    }
    running.kill("enough", time.monotonic())
    outcome(running)


# ---- errors ------------------------------------------------------------------------------------


def test_what_a_rank_raised_is_the_cause_of_the_error_that_names_the_rank(tmp_path: Path) -> None:
    call = call_of(tasks.failing, 2)
    started = time.monotonic()
    error = error_of(outcome(runner(tmp_path).call(local(ranks_per_node=2), call, started)))
    assert isinstance(error, RankError)
    assert (error.rank, error.host, error.failed, error.exit_code) == (2, os.uname().nodename, (2,), None)
    assert str(error).startswith(
        f"Rank 2 of 4 of 'failing' (on {error.host}) raised tests.integration.mpi_tasks.OurErr"
    )
    assert error.__cause__ is not None
    cause = error.__cause__.__cause__
    assert isinstance(cause, tasks.OurError)
    assert cause.rank == 2
    text = str(error.__cause__)
    assert text.index("OurError: rank 2 does not like this") < text.index("was the direct cause of the following")
    assert "pilotflow/runtime/ranks.py" not in text
    assert time.monotonic() - started < 60  # the others were ended, they had not


def test_other_ranks_that_failed_too_are_summarised(tmp_path: Path) -> None:
    def all_fail() -> None:
        rank, folder = tasks.rank(), Path(os.environ["PILOTFLOW_HOSTFILE"]).parent
        while rank != 1 and not (folder / "ended.1").exists() and not (folder / "result.1").exists():
            time.sleep(0.001)
        raise ValueError(f"number {rank}")

    class KeepsGoing(FakeMpirun):
        def step(self, command: Sequence[str], step: Step) -> list[str]:
            argv = super().step(command, step)
            return ["sh", "-c", 'for i in 0 1 2 3 4 5 6 7; do PMI_RANK=$i "$@" & done; wait; exit 1', "sh", *argv[3:]]

    call = call_of(all_fail)
    error = error_of(outcome(runner(tmp_path, KeepsGoing()).call(local(nodes=8), call, time.monotonic())))
    assert isinstance(error, RankError)
    assert (error.rank, error.failed) == (1, tuple(range(8)))
    assert "raised ValueError: number 1. So did others: rank 0 raised ValueError: number 0; rank 2 raised" in str(error)
    assert str(error).endswith("; and 2 more.")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_rank_that_dies_without_words_is_a_loss_that_names_it(tmp_path: Path, number: signal.Signals) -> None:
    call = call_of(tasks.killed, 1, int(number))
    done = outcome(runner(tmp_path).call(local(), call, time.monotonic()))
    error = error_of(done, StepEnd.LOST)
    assert isinstance(error, InfrastructureError)
    words = f"Rank 1 of 2 of 'killed' (on {os.uname().nodename}) was killed by signal {int(number)} ({number.name})."
    assert done.words.startswith(words)
    assert done.exit_code == 128 + number


def test_a_rank_that_leaves_with_a_code_is_the_users_error_with_its_last_words(tmp_path: Path) -> None:
    error = error_of(outcome(runner(tmp_path).call(local(), call_of(tasks.exits, 1, 3), time.monotonic())))
    assert isinstance(error, RankError)
    assert error.exit_code == 3
    assert "Rank 1 of 2 of 'exits'" in str(error)
    assert "ended with exit code 3. The output ends with:\nthese are its last words" in str(error)


def test_a_rank_that_leaves_with_0_before_it_has_returned_is_an_error(tmp_path: Path) -> None:
    error = error_of(outcome(runner(tmp_path).call(local(), call_of(tasks.exits, 0, 0), time.monotonic())))
    assert "Rank 0 of 2 of 'exits' ended with exit code 0 before the function had returned." in str(error)


def test_a_result_that_cannot_travel_is_an_error_that_says_so(tmp_path: Path) -> None:
    error = error_of(outcome(runner(tmp_path).call(local(), call_of(tasks.unpicklable), time.monotonic())))
    assert error.__cause__ is not None
    assert isinstance(error.__cause__.__cause__, SerializationError)
    assert "(generator) cannot be sent back" in str(error)


def test_a_result_above_the_limit_is_an_error_that_says_so(tmp_path: Path) -> None:
    call = dataclasses.replace(call_of(tasks.scaled, bytes(1 << 20)), max_bytes=1 << 19)
    error = error_of(outcome(runner(tmp_path).call(local(), call, time.monotonic())))
    assert "more than the run's max_message_bytes=524288" in str(error)


def test_a_module_that_ranks_do_not_have_is_named(tmp_path: Path) -> None:
    call = dataclasses.replace(call_of(tasks.scaled, 1), body=b"\1" + pickle.dumps(("no_such", "f")))
    error = error_of(outcome(runner(tmp_path).call(local(), call, time.monotonic())))
    assert "function 'f' of module 'no_such' cannot be imported" in str(error)


def test_a_launcher_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    steps = runner(tmp_path, MpirunLauncher(program="mpirun-that-is-not-here"))
    with pytest.raises(ConfigError, match="mpirun-that-is-not-here: No such file or directory") as caught:
        steps.call(local(), call_of(tasks.scaled, 1), time.monotonic())
    assert "of 'scaled' cannot be started" in str(caught.value)


def test_a_launcher_that_fails_is_a_loss_with_its_own_words(tmp_path: Path) -> None:
    class Refused(FakeMpirun):
        def step(self, command: Sequence[str], step: Step) -> list[str]:
            return ["sh", "-c", "echo 'srun: error: Unable to create step' >&2; exit 1"]

    done = outcome(runner(tmp_path, Refused()).call(local(), call_of(tasks.scaled, 1), time.monotonic()))
    assert done.end is StepEnd.LOST
    expected = "The step of 'scaled' ended with exit code 1, and no rank said why. The output ends with:\nsrun: error:"
    assert done.words.startswith(expected)


# ---- commands ----------------------------------------------------------------------------------


def test_a_command_runs_as_every_rank(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    out.write_text("before\n")
    command = ["sh", "-c", "echo $RANK of $WORLD_SIZE on $PILOTFLOW_NODE_RANK"]
    step = local(ranks_per_node=2)
    running = runner(tmp_path).command(step, command, time.monotonic(), stdout=str(out))
    assert value_of(outcome(running)) == 0
    assert sorted(out.read_text().split("\n")) == [
        "",
        "0 of 4 on 0",
        "1 of 4 on 0",
        "2 of 4 on 1",
        "3 of 4 on 1",
        "before",
    ]


def test_a_command_that_fails_names_its_rank_and_code_and_shows_its_stderr(tmp_path: Path) -> None:
    command = ["sh", "-c", "[ $RANK = 1 ] || exec sleep 60; echo no input file >&2; exit 3"]
    running = runner(tmp_path).command(local(), command, time.monotonic(), name="solve")
    error = error_of(outcome(running, close=False))
    assert isinstance(error, RankError)
    assert error.exit_code == 3
    assert f"Rank 1 of 2 of 'solve' (on {error.host}) ended with exit code 3. The output ends with:\nno in" in str(
        error
    )
    running.close()
    assert "no input file" in (tmp_path / "steps" / "step" / "stderr").read_text()  # what was printed stays
    assert [path.name for path in (tmp_path / "steps" / "step").iterdir()] == ["stderr"]


def test_a_command_that_is_killed_is_the_users_error(tmp_path: Path) -> None:
    command = ["sh", "-c", "[ $RANK = 0 ] || exec sleep 60; kill -ABRT $$"]
    error = error_of(outcome(runner(tmp_path).command(local(), command, time.monotonic())))
    assert isinstance(error, RankError)
    assert error.exit_code == -signal.SIGABRT


# ---- ends --------------------------------------------------------------------------------------


def test_a_step_past_its_runtime_is_warned_and_its_ranks_can_save(tmp_path: Path) -> None:
    steps = runner(tmp_path, grace_s=30.0)
    running = steps.call(local(runtime_s=600.0), call_of(tasks.saving, str(tmp_path), 0.1), time.monotonic())
    until(lambda: (tmp_path / "ready.0").exists() and (tmp_path / "ready.1").exists(), "both are ready")
    assert running.advance(time.monotonic()) is None
    assert running.advance(time.monotonic() + 600) is None  # the clock says that it is over
    done = outcome(running)
    error = error_of(done, StepEnd.TIMEOUT)
    assert isinstance(error, TaskTimeout)
    assert str(error) == "'saving' ran longer than its runtime or timeout of 10m and was ended."
    assert sorted(path.name for path in tmp_path.glob("saved.*")) == ["saved.0", "saved.1"]
    assert 0 < done.duration_us < 60e6


def test_ranks_that_do_not_care_are_killed_with_everything_they_started(tmp_path: Path) -> None:
    steps = runner(tmp_path, grace_s=0.1)
    running = steps.call(local(), call_of(tasks.leaving_a_child_behind, str(tmp_path)), time.monotonic())
    until(lambda: len([p for p in tmp_path.glob("child.*") if p.read_text()]) == 2, "both have a child")
    children = [int(path.read_text()) for path in tmp_path.glob("child.*")]
    running.stop("it was cancelled", time.monotonic())
    error = error_of(outcome(running), StepEnd.CANCELLED)
    assert (type(error), str(error)) == (TaskError, "it was cancelled")
    assert not [pid for pid in children if is_alive(pid)]


def test_a_launcher_that_does_not_obey_is_killed_itself(tmp_path: Path) -> None:
    class Stubborn(FakeMpirun):
        def step(self, command: Sequence[str], step: Step) -> list[str]:
            return ["sh", "-c", f"trap '' TERM USR1; touch {tmp_path}/up; sleep 60 & sleep 60; wait"]

    running = runner(tmp_path, Stubborn(), grace_s=0.0).call(local(), call_of(tasks.scaled, 1), time.monotonic())
    until((tmp_path / "up").exists, "it is up")
    running.stop("enough", time.monotonic())
    now = time.monotonic()
    assert running.advance(now) is None
    assert running.due_at is not None
    assert running.advance(running.due_at) is None  # as if that time had passed
    assert outcome(running).end is StepEnd.CANCELLED


def test_a_lost_node_ends_the_step_without_a_warning(tmp_path: Path) -> None:
    steps = runner(tmp_path, grace_s=600.0)
    running = steps.call(local(), call_of(tasks.saving, str(tmp_path), 0.0), time.monotonic())
    until(lambda: (tmp_path / "ready.0").exists() and (tmp_path / "ready.1").exists(), "both are ready")
    running.kill("node2 was lost", time.monotonic())
    running.kill("and again", time.monotonic())
    done = outcome(running)
    assert (done.end, done.words) == (StepEnd.CANCELLED, "node2 was lost")
    assert not list(tmp_path.glob("saved.*"))


def test_a_step_is_waited_for_without_polling(tmp_path: Path) -> None:
    running = runner(tmp_path).command(local(), ["sleep", "0.3"], time.monotonic())
    assert running.due_at is None  # nothing to do until the descriptor is readable
    value_of(outcome(running))


def test_the_death_of_the_agent_ends_the_ranks(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from tests.integration import mpi_tasks, step_tools
folder = Path({str(tmp_path)!r})
running = step_tools.runner(folder).command(
    step_tools.local(), ["sh", "-c", f"echo $$ >{{folder}}/pid.$RANK.new; mv {{folder}}/pid.$RANK.new {{folder}}/pid.$RANK; exec sleep 60"],
    time.monotonic(),
)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program]) as agent:
        try:
            until(lambda: len(list(tmp_path.glob("pid.?"))) == 2, "the ranks are there")
            pids = [int(path.read_text()) for path in tmp_path.glob("pid.?")]
        finally:
            agent.kill()
    until(lambda: not any(is_alive(pid) for pid in pids), "no ranks are left")
