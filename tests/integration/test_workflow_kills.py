"""Whatever of a workflow's run is killed at whatever moment: no finished job is lost, and none runs again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pilotflow import Config, InterchangeLost
from pilotflow.core.job_states import JobState
from pilotflow.durable_run import DurableRun
from pilotflow.runtime.connection import read_connection
from pilotflow.runtime.durable import Durable
from pilotflow.workflow.coordinator import go_on
from pilotflow.workflow.engine import Engine
from pilotflow.workflow.inbox import Inbox
from pilotflow.workflow.records import Action, Deed, Trigger
from pilotflow.workflow.store import JobStore
from tests.integration import workflow_tools as tools
from tests.integration.workflow_tools import GATE, MARK, Program, a_job, a_run, a_workflow
from tests.waiting import until

pytestmark = pytest.mark.timeout(600)  # many processes, one after another, on a machine that may be busy


@pytest.fixture
def runs() -> Iterator[list[Path]]:
    """Runs whose processes are gone when the test is over."""
    made: list[Path] = []
    yield made
    for run in made:
        for pid in tools.marked(run, b""):
            tools.kill(pid)


def coordinator(program: Program, _: random.Random) -> None:
    program.kill()


def interchange(program: Program, _: random.Random | None = None) -> None:
    for pid in tools.marked(program.run, b"pilotflow.runtime.interchange"):
        tools.kill(pid)


def manager(program: Program, _: random.Random) -> None:
    kill_one(program.run, 0)


def worker(program: Program, _: random.Random) -> None:
    kill_one(program.run, 2)


def kill_one(run: Path, generation: int) -> None:
    """Kill one of the manager's family, if one is there at this moment."""
    with contextlib.suppress(StopIteration):
        tools.kill(tools.of_a_manager(run, generation))


def job(program: Program, dice: random.Random) -> None:
    """The process of a job that runs now; where they are short, one that is there within a moment."""
    for _ in range(100):
        found = tools.job_processes(program.run)
        if found and _caught(pid := dice.choice(found)):
            tools.kill(pid)
            return


def _caught(pid: int) -> bool:
    """Stop a process; whether it had not ended by itself before that."""
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        os.kill(pid, signal.SIGSTOP)
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def program_and_interchange(program: Program, _: random.Random) -> None:
    program.kill()
    interchange(program)


def everything(program: Program, _: random.Random) -> None:
    program.kill()
    for pid in tools.marked(program.run, b""):
        tools.kill(pid)


KILLS: dict[Callable[[Program, random.Random], None], int] = {
    coordinator: 5,
    interchange: 5,
    manager: 2,
    worker: 5,
    job: 5,
    program_and_interchange: 5,
    everything: 5,
}
"""So many in one run; blocks that are lost again and again are replaced later and later."""
SAMPLES = [
    pytest.param(victim, 120, f"sample {group}", id=f"{victim.__name__}-sample{group}")
    for victim, kills in KILLS.items()
    for group in range(-(-5 // kills))
]
GROUPS = [
    pytest.param(victim, 2000, f"{group}", marks=pytest.mark.soak, id=f"{victim.__name__}-{group}")
    for victim, kills in KILLS.items()
    for group in range(50 // kills)
]


@pytest.mark.parametrize(("victim", "jobs", "seed"), [*SAMPLES, *GROUPS])
def test_what_has_finished_is_neither_lost_nor_repeated(
    victim: Callable[[Program, random.Random], None],
    jobs: int,
    seed: str,
    tmp_path: Path,
    runs: list[Path],
    record_property: Callable[[str, object], None],
) -> None:
    kills = KILLS[victim]
    record_property("count", kills)
    dice = random.Random(f"{victim.__name__} {seed}")
    half = jobs // 2
    command = f"{MARK}; sleep 0.02" if victim is job else MARK  # one must be there to be killed
    work = [a_job(n, command) for n in range(half)] + [a_job(half + n, command, n) for n in range(half)]
    run = a_run(tmp_path, a_workflow(*work))
    runs.append(run)
    program = Program(run)
    seen: list[tuple[set[str], dict[str, list[int]]]] = []
    for moment in sorted(dice.sample(range(1, jobs * 9 // 10), kills)):
        until(lambda least=moment: tools.ended(run) >= least, f"{moment} jobs have ended", 300)  # type: ignore[misc]
        time.sleep(dice.random() * 0.05)
        victim(program, dice)
        done = tools.completed(run)
        seen.append((done, {name: tools.mark(run, name) for name in done}))
        if victim in (coordinator, program_and_interchange, everything):
            program = Program(run)
    code = program.wait(300)
    for done, before in seen:
        again = {name for name in done if tools.mark(run, name) != before[name]}
        assert not again, "they had finished, and ran again"
    failed = _check(run, jobs, code, kills if victim is job else 0)
    record_property("jobs that were killed", failed)
    assert victim is not job or failed


def _check(run: Path, jobs: int, code: int, killed_max: int) -> int:
    """Each job has one final result, and ended well but for those whose own process was killed."""
    final = tools.query(run, "SELECT job, how, exit_code FROM results WHERE how NOT IN ('lost', 'cancelled')")
    assert len({job for job, _, _ in final}) == len(final), "a job has one final result"
    failed = [code for _, how, code in final if how != "completed"]
    assert failed == [137] * len(failed)
    assert len(failed) <= killed_max
    assert code == (1 if failed else 0)
    states = tools.states(run)
    assert states.pop("completed") == len(final) - len(failed)
    assert sum(states.values()) == jobs - len(final) + len(failed), "the others failed, or waited for those"
    assert set(states) <= {"failed", "cancelled"}
    for name, attempts in tools.marks(run).items():
        assert len(set(attempts)) == len(attempts), f"attempts at {name} cannot be told apart: {attempts}"
    until(lambda: tools.nothing_left(run), "no process of the run is left")
    return len(failed)


def test_results_that_come_in_one_moment_with_the_loss_of_the_interchange_do_not_hang_the_run(
    tmp_path: Path, runs: list[Path]
) -> None:
    run = a_run(tmp_path, a_workflow(*(a_job(n, MARK if n < 2 else f"{GATE}; {MARK}") for n in range(60))))
    runs.append(run)
    program = Program(run)
    until(lambda: tools.ended(run) == 2, "the first jobs end")
    others = tools.marked(run, b"")
    program.process.send_signal(signal.SIGSTOP)  # what comes now is heard together
    (tmp_path / "go").touch()
    until(lambda: len(tools.marks(run)) >= 22, "jobs end of which the program has not heard")
    for pid in others:  # so that nobody tells these results once more
        tools.kill(pid)
    program.process.send_signal(signal.SIGCONT)
    assert program.wait() == 0
    assert tools.states(run) == {"completed": 60}


def test_a_bug_in_the_client_loop_is_followed_by_another_loop(tmp_path: Path, runs: list[Path]) -> None:
    run = a_run(tmp_path, a_workflow(*(a_job(n, f"{MARK}; sleep 0.02") for n in range(40))))
    runs.append(run)

    def break_it(engine: Engine) -> None:
        until(lambda: tools.ended(run) >= 2, "jobs end")
        assert engine.run is not None
        engine.run.client.call(lambda: int("no number"))  # type: ignore[arg-type]

    @contextlib.contextmanager
    def beside(engine: Engine) -> Iterator[None]:
        breaking = threading.Thread(target=break_it, args=[engine])
        breaking.start()
        yield
        breaking.join()

    assert go_on(run, beside) == 0
    assert tools.states(run) == {"completed": 40}
    assert "the client loop ends because of a bug" in (run / "pilotflow.log").read_text()


@pytest.mark.parametrize("pid_was_given_away", [False, True])
def test_an_interchange_that_dies_while_it_is_taken_over_is_lost_and_no_bug(
    tmp_path: Path, runs: list[Path], pid_was_given_away: bool
) -> None:
    run = a_run(tmp_path, a_workflow(a_job(0, "sleep 600")))
    runs.append(run)
    program = Program(run)
    until(lambda: tools.states(run).get("running"), "the job runs")
    pid = tools.interchange_pid(run)
    program_and_interchange(program, random.Random(0))
    store = JobStore(run, logging.getLogger("test"))
    with subprocess.Popen(["sleep", "600"]) as other:
        durable = Durable(
            directory=run,
            run_id=dict(tools.query(run, "SELECT key, value FROM run"))["run_id"],
            epoch=1,
            store=store,
            journal=Inbox(),
            keep_s=3600.0,
            known=lambda _: None,
            interchange=read_connection(run / "connection.json"),
            interchange_pid=other.pid if pid_was_given_away else pid,
            spare=True,
        )
        try:
            with pytest.raises(InterchangeLost, match=r"does not answer|in the meantime"):
                DurableRun(Config(), durable)
        finally:
            other.kill()
    store.close(10.0)


def test_a_command_of_an_action_that_ignores_its_end_does_not_keep_an_interrupted_program(
    tmp_path: Path, runs: list[Path]
) -> None:
    stubborn = "trap '' TERM; touch begun; while :; do sleep 0.1; done"
    action = Action(trigger=Trigger.ON_WORKFLOW_START, deed=Deed.RUN_COMMANDS, commands=(stubborn,))
    run = a_run(tmp_path, a_workflow(a_job(0), actions=(action,)))
    runs.append(run)
    program = Program(run)
    until((tmp_path / "begun").exists, "the command runs")
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() == 130


def test_managers_finish_what_they_run_without_a_coordinator_and_the_next_one_has_the_results(
    tmp_path: Path, runs: list[Path]
) -> None:
    run = a_run(tmp_path, a_workflow(a_job(0, f"{MARK}; {GATE}; touch done"), a_job(1, MARK, 0)))
    runs.append(run)
    program = Program(run)
    until(lambda: tools.marks(run), "the job runs")
    program.kill()
    (tmp_path / "go").touch()
    until(lambda: (tmp_path / "done").exists() and not tools.job_processes(run), "the job has ended by itself")
    assert tools.completed(run) == set()
    assert Program(run).wait() == 0
    assert tools.marks(run) == {"job0": [1], "job1": [1]}
    lives = tools.query(run, "SELECT epoch, how FROM lives")
    assert lives == [(1, None), (1, "succeeded")]


def test_an_interchange_that_nobody_goes_on_with_ends_everything_after_its_time(
    tmp_path: Path, runs: list[Path]
) -> None:
    run = a_run(tmp_path, a_workflow(a_job(0, f"{MARK}; {GATE}"), a_job(1, MARK, 0)), keep_s=1.0)
    runs.append(run)
    program = Program(run)
    until(lambda: tools.marks(run), "the job runs")
    program.kill()
    (tmp_path / "go").touch()
    until(lambda: tools.nothing_left(run), "everything has ended")
    assert Program(run).wait() == 0
    assert tools.marks(run)["job1"] == [1]
    assert tools.marks(run)["job0"] == [1, 2], "what was cut before its commit is a new attempt"


def test_a_job_that_is_killed_is_a_failure_of_its_own(tmp_path: Path, runs: list[Path]) -> None:
    run = a_run(tmp_path, a_workflow(a_job(0, "kill -9 $$"), a_job(1, MARK, 0), a_job(2, MARK)))
    runs.append(run)
    assert Program(run).wait() == 1
    rows = tools.query(run, "SELECT how, exit_code FROM results WHERE job = 0")
    assert rows == [("failed", 137)]
    found = [JobState(state) for (state,) in tools.query(run, "SELECT state FROM jobs ORDER BY job")]
    assert found == [JobState.FAILED, JobState.CANCELLED, JobState.COMPLETED]


def test_managers_take_what_they_run_to_the_successor_of_a_killed_interchange(tmp_path: Path, runs: list[Path]) -> None:
    work = [a_job(0, f"{MARK}; {GATE}"), *(a_job(n, f"{MARK}; sleep 0.2") for n in range(1, 6))]
    run = a_run(tmp_path, a_workflow(*work))
    runs.append(run)
    program = Program(run)
    until(lambda: len(tools.completed(run)) >= 2, "the long job runs, and short ones have ended")
    began = time.monotonic()
    interchange(program)
    (tmp_path / "go").touch()
    assert program.wait() == 0
    assert time.monotonic() - began < Config().heartbeat_limit_s, "nobody waited for the grace of lost managers"
    assert tools.marks(run) == {f"job{n}": [1] for n in range(6)}, "no attempt was lost"
    assert tools.query(run, "SELECT epoch, how FROM lives") == [(1, "succeeded")]
    until(lambda: tools.nothing_left(run), "no process of the run is left")


def test_managers_take_what_they_run_to_the_program_that_goes_on_when_all_but_they_were_killed(
    tmp_path: Path, runs: list[Path]
) -> None:
    work = [a_job(0, f"{MARK}; {GATE}"), *(a_job(n, f"{MARK}; sleep 0.1") for n in range(1, 4)), a_job(4, MARK, 0)]
    run = a_run(tmp_path, a_workflow(*work))
    runs.append(run)
    for killed in (1, 2):
        program = Program(run)
        ended = 1 if killed == 1 else 3
        until(lambda: len(tools.completed(run)) >= ended, "a long job runs, others end")  # noqa: B023
        manager_pid = tools.of_a_manager(run, 0)
        program.kill()
        interchange(program)
    program = Program(run)
    (tmp_path / "go").touch()
    assert program.wait() == 0
    assert tools.marks(run) == {f"job{n}": [1] for n in range(5)}, "no attempt was lost"
    assert tools.query(run, "SELECT epoch, how FROM lives") == [(1, None), (2, None), (3, "succeeded")]
    assert tools.query(run, "SELECT COUNT(DISTINCT block) FROM managers") == [(1,)], "its block was taken over"
    assert not tools.query(run, "SELECT * FROM places")
    until(lambda: not psutil.pid_exists(manager_pid), "the manager was sent away")
    until(lambda: tools.nothing_left(run), "no process of the run is left")


def test_the_time_of_attempts_that_have_failed_counts_after_a_resume(tmp_path: Path, runs: list[Path]) -> None:
    command = f'{MARK}; if [ "$TORC_ATTEMPT_ID" = 1 ]; then sleep 1.5; exit 3; fi; sleep 60'
    job = a_job(0, command, retries=5, timeout_s=4.0)
    run = a_run(tmp_path, a_workflow(job))
    runs.append(run)
    program = Program(run)
    until(lambda: len(tools.marks(run).get("job0", [])) == 2, "the second attempt has begun")
    everything(program, random.Random(0))
    assert Program(run).wait() == 1
    assert tools.marks(run) == {"job0": [1, 2, 3]}, "nothing is tried when no time is left"
    how, words = tools.query(run, "SELECT how, words FROM results WHERE attempt = 3")[0]
    assert (how, words) == ("terminated", "its timeout of 4s is over")
    first_us, third_us = (
        tools.query(run, f"SELECT duration_us FROM results WHERE attempt = {number}")[0][0] for number in (1, 3)
    )
    assert third_us < 4.0e6 <= first_us + third_us + 0.1e6, "what was left of 4 s after 1.5 s"


def test_what_a_dead_program_has_left_running_is_ended_by_cancelling_the_run(tmp_path: Path, runs: list[Path]) -> None:
    run = a_run(tmp_path, a_workflow(a_job(0, f"{MARK}; sleep 300"), a_job(1, MARK, 0)))
    runs.append(run)
    program = Program(run)
    until(lambda: tools.marks(run), "the job runs")
    program.kill()
    done = tools.command_line(tmp_path)("cancel", "last", "--json")
    assert json.loads(done.stdout)["cancelled"] == 2
    assert tools.states(run) == {"cancelled": 2}
    until(lambda: tools.nothing_left(run), "no process of the run is left")
