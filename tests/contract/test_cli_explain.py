"""`pilotflow explain` and `run.explain`: real runs say why a task is not running, where it runs, how it ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import pilotflow as pf
from pilotflow.errors import ConfigError, RequestTooLarge, RunClosed
from pilotflow.explanation import Explanation, Kind, State
from pilotflow.providers.base import BlockJob, BlockState, BlockStatus
from pilotflow.runtime.past import explain_past
from tests.command_line import ROOT, on_terminal, pilotflow
from tests.integration.faults import frozen, managers_of
from tests.waiting import until

GOLDEN = ROOT / "tests" / "golden"


def explain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return pilotflow("explain", *arguments, cwd=cwd)


def said(*arguments: str, cwd: Path) -> str:
    done = explain(*arguments, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(*arguments: str, cwd: Path, code: int = 2) -> str:
    done = explain(*arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (code, "")
    assert "Traceback" not in done.stderr
    return done.stderr


# ---- tasks ----------------------------------------------------------------------------------


def wait_for(path: str, *needs: object) -> int:
    """Wait until a file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)
    return 1


def note_and_wait(log: str, gate: str) -> None:
    """Say that it has begun, and wait."""
    with open(log, "a") as file:
        file.write(".")
    wait_for(gate)


def add(*needs: int) -> int:
    return sum(needs)


def fail() -> None:
    raise ValueError("bad luck \udcff")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file for which tasks wait."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def config(tmp_path: Path, provider: pf.LocalProvider | None = None, **words: Any) -> pf.Config:
    executor = pf.ExecutorConfig(num_cpus=2, provider=provider or pf.LocalProvider())
    return pf.Config(executors=[executor], run_dir=tmp_path / "runs", **words)


def until_running(run: pf.Run, *futures: pf.AppFuture[Any]) -> None:
    until(lambda: all(run.explain(future).state is State.RUNNING for future in futures), what="the start of tasks")


# ---- waiting --------------------------------------------------------------------------------


def test_a_task_that_finds_no_room_says_what_is_short_and_what_to_do(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        app = pf.python_app(wait_for)
        running = app(str(gate))
        until_running(run, running)
        wide = pf.python_app(num_cpus=2)(wait_for)(str(gate))
        assert said("2", cwd=tmp_path) == (
            "Task 2 (wait_for) is queued.\n"
            "\n"
            f"  local  It asks for 2 cores. 1 of 2 is free on its node ({os.uname().nodename}).\n"
            "\n"
            "What now: It starts when enough of what runs there has ended. For more nodes, raise max_blocks of "
            "executor 'local' (now 1).\n"
        )
        huge = pf.python_app(num_cpus=99)(wait_for)(str(gate))
        with pytest.raises(RequestTooLarge):
            huge.result(60)
        lines = said("runs/0001", "3", cwd=tmp_path).splitlines()
        assert lines[0] == "Task 3 (wait_for) has failed."
        assert lines[2].endswith("It asks for 99 cores a node; the largest node has 2 (executor 'local').")
        gate.touch()
        assert running.result() + wide.result() == 2


def test_a_task_that_needs_others_shows_the_chain_to_what_runs(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        first = pf.python_app(wait_for)(str(gate))
        middle = pf.python_app(add)(first)
        last = pf.python_app(add)(middle, first)
        until_running(run, first)
        text = re.sub(r"running for \S+", "running for 1s", said("3", cwd=tmp_path))
        text = re.sub(r"worker \d \(pid \d+\)", "worker 1 (pid 7)", text)
        assert text.splitlines() == [
            "Task 3 (add) waits for task 1 (wait_for).",
            "",
            "  It needs the results of 2 tasks that have not ended: task 2 (add) and task 1 (wait_for).",
            "",
            "  The chain: 3 (add) <- 2 (add) <- 1 (wait_for)",
            "",
            "  Task 1 (wait_for) is running.",
            f"    local  It has been running for 1s on node {os.uname().nodename} (block local-0), in worker 1 (pid 7).",
        ]
        gate.touch()
        assert last.result() == 2


def test_a_future_of_another_kind_is_waited_for(tmp_path: Path) -> None:
    outside: Future[int] = Future()
    with pf.load(config(tmp_path)) as run:
        task = pf.python_app(add)(outside)
        why = run.explain(task)
        assert why.state is State.WAITING
        assert why.reasons[0].text == "It needs the result of a future of another kind (Future)."
        outside.set_result(5)
        assert task.result() == 5


@dataclass(frozen=True, kw_only=True)
class SlowProvider(pf.LocalProvider):
    """A batch system with a queue: blocks start when a file is there."""

    gate: Path

    _jobs: dict[str, BlockJob] = field(default_factory=dict, init=False, repr=False, compare=False)
    _started: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def submit(self, job: BlockJob) -> str:
        self._jobs["4711"] = job
        return "4711"

    def status(self, ids: Sequence[str]) -> dict[str, BlockStatus]:
        if self.gate.exists() and not self._started:
            self._started["4711"] = super().submit(self._jobs["4711"])
        if not self._started:
            return {"4711": BlockStatus(BlockState.PENDING, "2 jobs are ahead of it")}
        return {"4711": super().status([self._started["4711"]])[self._started["4711"]]}

    def cancel(self, ids: Sequence[str]) -> None:
        super().cancel(list(self._started.values()))


def test_a_task_that_waits_for_a_block_says_what_the_provider_says(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path, SlowProvider(gate=gate))) as run:
        task = pf.python_app(len)("four")
        until(lambda: "2 jobs" in run.explain(task).reasons[0].text, what="the provider's words")
        text = re.sub(r"pending for \S+\. ", "pending for 1s. ", said("1", cwd=tmp_path))
        assert text == (
            "Task 1 (len) is queued.\n"
            "\n"
            "  local  Block local-0 (batch id 4711) has been pending for 1s. Its provider says: 2 jobs are ahead of it.\n"
            "\n"
            "What now: It starts when that block does, which is up to its provider.\n"
        )
        gate.touch()
        assert task.result() == 4
        assert run.explain(task).state is State.DONE


def test_blocks_that_do_not_start_are_told_with_their_last_reason_and_the_next_try(tmp_path: Path) -> None:
    with pf.load(config(tmp_path, pf.LocalProvider(worker_init="exit 5"))) as run:
        task = pf.python_app(len)("four")
        why = until(lambda: _second_failure(run.explain(task)), what="the second failure")
        assert re.fullmatch(
            r"2 blocks in a row ended before a manager had joined\. The last one, local-1, failed with exit code 5\. "
            r"The next try is in \S+",
            why,
        )
        assert isinstance(task.exception(), pf.BlockStartError)
        assert run.explain(task).state is State.FAILED


def _second_failure(explanation: Explanation) -> str:
    return next(
        (
            reason.text
            for reason in explanation.reasons
            if reason.kind is Kind.START_FAILURES and reason.text.startswith("2") and "next try" in reason.text
        ),
        "",
    )


# ---- ended ----------------------------------------------------------------------------------


def test_ended_tasks_say_how_and_when_during_the_run_and_after_it(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        good, bad = pf.python_app(add)(), pf.python_app(fail)()
        after = pf.python_app(add)(bad)
        cancelled = pf.python_app(wait_for)(str(gate))
        until_running(run, cancelled)
        cancelled.cancel()
        for future in (good, bad, after):
            future.exception()
        with pytest.raises(CancelledError):
            cancelled.result()
        assert [run.explain(future).state for future in (good, bad, after, cancelled)] == [
            State.DONE,
            State.FAILED,
            State.FAILED,
            State.CANCELLED,
        ]
        check_ended(tmp_path)
    check_ended(tmp_path)
    assert refused("99", cwd=tmp_path, code=3) == f"Run {run.run_id} is over, and its record has no task '99'.\n"
    with pytest.raises(RunClosed, match="is over"):
        run.explain(99)
    assert run.explain(bad).state is State.FAILED


def test_a_task_is_found_by_its_label_while_it_waits_and_when_it_has_ended(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        running = pf.python_app(wait_for)(str(gate), label="slow-one")
        until_running(run, running)
        done = pf.python_app(label="quick-one")(add)()
        assert done.result() == 0
        assert said("slow-one", cwd=tmp_path).startswith("Task 1 (wait_for) is running")
        gate.touch()
    assert said("slow-one", cwd=tmp_path).startswith("Task 1 (wait_for) is done.")
    assert said("quick-one", cwd=tmp_path).startswith("Task 2 (add) is done.")


def check_ended(tmp_path: Path) -> None:
    when = r"It ended on \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \((\S+ ago|just now)\)"
    assert re.fullmatch(rf"Task 1 \(add\) is done\.\n\n  {when}, after \S+ of work\.\n", said("1", cwd=tmp_path))
    assert re.fullmatch(
        rf"Task 2 \(fail\) has failed\.\n\n  ValueError: bad luck \?\n  {when}, after \S+ of work\.\n",
        said("fail", cwd=tmp_path),
    )
    assert re.fullmatch(
        r"Task 3 \(add\) has failed\.\n\n  DependencyError: 'add' \(task 3\) did not run: it needs 'fail' \(task 2\), "
        rf"which failed: ValueError: bad luck \S+\n  {when}\.\n",
        said("3", cwd=tmp_path),
    )
    assert re.fullmatch(rf"Task 4 \(wait_for\) was cancelled\.\n\n  {when}\.\n", said("wait_for", cwd=tmp_path))


def test_a_run_without_a_record_still_answers_for_futures(tmp_path: Path) -> None:
    with pf.load(config(tmp_path, store=False)) as run:
        good, bad = pf.python_app(add)(), pf.python_app(fail)()
        assert (good.result(), type(bad.exception())) == (0, ValueError)
        assert str(run.explain(good)) == "Task 1 (add) is done.\n\n  It has a result."
        assert run.explain(bad).reasons[0].text == "ValueError: bad luck \udcff"
        with pytest.raises(ConfigError, match="no such task is pending, and it keeps no record of those that ended"):
            run.explain(1)


def test_the_record_of_a_run_that_never_was_knows_nothing(tmp_path: Path) -> None:
    assert explain_past(tmp_path / "run.db", "1") is None
    (tmp_path / "run.db").write_text("no database at all" * 100)
    assert explain_past(tmp_path / "run.db", "1") is None
    assert explain_past(tmp_path / "run.db", "square") is None


# ---- for programs and terminals -------------------------------------------------------------


def test_json_has_what_the_text_has_and_its_numbers(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        running = pf.python_app(wait_for)(str(gate))
        until_running(run, running)
        wide = pf.python_app(num_cpus=2)(wait_for)(str(gate))
        last = pf.python_app(add)(wide)
        text = said("3", "--json", cwd=tmp_path).replace(os.uname().nodename, "NODE")
        assert text == (GOLDEN / "explain_waiting.json").read_text(encoding="utf-8")
        assert json.loads(text)["root"]["reasons"][0]["numbers"] == {
            "asked_cpus_milli": 2000,
            "free_cpus_milli": 1000,
            "node_cpus_milli": 2000,
        }
        gate.touch()
        assert last.result() == 1


def test_text_is_folded_and_bold_on_terminals_only(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        running = pf.python_app(wait_for)(str(gate))
        until_running(run, running)
        wide = pf.python_app(num_cpus=2)(wait_for)(str(gate))
        for columns in (80, 40):
            text = on_terminal("explain", "2", cwd=tmp_path, columns=columns)
            assert "\x1b[1mTask 2 (wait_for) is queued.\x1b[0m" in text
            assert "\x1b[1mWhat now:\x1b[0m" in text
            plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
            assert max(map(len, plain.splitlines())) <= columns
        assert "\x1b" not in said("2", cwd=tmp_path)
        gate.touch()
        wide.result()


# ---- who is asked what ----------------------------------------------------------------------


def test_names_and_numbers_that_are_wrong_get_one_message_and_exit_code_2(tmp_path: Path, gate: Path) -> None:
    assert refused(cwd=tmp_path) == "Name a task by its number or its name, such as `pilotflow explain 17`.\n"
    assert refused("17", cwd=tmp_path).startswith(
        f"There is no run in {tmp_path}/runs. Start one with `pilotflow run WORKFLOW`, or "
    )
    assert refused("-1", cwd=tmp_path) == ("There is no task -1: tasks and jobs are counted from 1.\n")
    assert refused("last", "--jsn", cwd=tmp_path) == (
        "There is no option --jsn (did you mean '--json'?). See `pilotflow explain --help`.\n"
    )
    with pf.load(config(tmp_path)) as run:
        tasks = [pf.python_app(wait_for)(str(gate)) for _ in range(3)]
        until_running(run, *tasks[:2])
        assert refused("runs", cwd=tmp_path).startswith("Name a task by its number or its name")
        assert refused("wait_four", cwd=tmp_path) == (
            f"Run {run.run_id} has no task called 'wait_four' (did you mean 'wait_for'?): none is pending, and its "
            "record has none that ended. Its tasks are called: wait_for.\n"
        )
        assert refused("99", cwd=tmp_path) == (
            f"Run {run.run_id} has no task 99: no such task is pending, and its record has none that ended.\n"
        )
        assert "3 tasks called 'wait_for' have not ended; this one waits." in said("wait_for", cwd=tmp_path)
        assert run.explain("wait_for").task == 3
        for wrong in (True, 1.5, None, "", " "):
            with pytest.raises(ConfigError, match=r"explain\(task\) takes"):
                run.explain(wrong)  # type: ignore[arg-type]
        gate.touch()


def test_a_name_is_answered_with_a_task_that_waits_though_others_have_only_just_begun(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    with pf.load(config(tmp_path)) as run:
        pf.python_app(add)().result(60)
        tasks = [pf.python_app(note_and_wait)(str(log), str(gate)) for _ in range(6)]
        until(lambda: log.exists() and len(log.read_text()) == 2, what="the start of two")
        why = run.explain("note_and_wait")  # the program hears of starts at most once a second
        gate.touch()
    assert (why.task, why.state) == (tasks[2].task_id, State.QUEUED)
    assert why.reasons[-1].text == "6 tasks called 'note_and_wait' have not ended; this one waits."


def test_a_future_of_another_run_is_not_mistaken_for_one_of_this(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as one:
        mine = pf.python_app(wait_for)(str(gate))
        with pf.load(config(tmp_path)) as other, pytest.raises(ConfigError, match="belongs to another run"):
            other.explain(mine)
        assert one.explain(mine).task == mine.task_id
        gate.touch()


def test_a_program_that_is_busy_elsewhere_is_not_waited_for_long(tmp_path: Path, gate: Path) -> None:
    busy, done = threading.Event(), threading.Event()

    def hold_up(_: Future[Any]) -> None:
        busy.set()
        done.wait(60)

    with pf.load(config(tmp_path)) as run:
        running = pf.python_app(wait_for)(str(gate))
        until_running(run, running)
        short = pf.python_app(add)()
        short.add_done_callback(hold_up)
        assert busy.wait(60)
        try:
            text = said("1", cwd=tmp_path)
            unknown = refused("add", cwd=tmp_path, code=3)
        finally:
            done.set()
        silent = f"The run's program (pid {os.getpid()}) has not answered within 2s."
        assert text.startswith(f"Task 1 is running.\n\n  {silent} What only it knows is missing here")
        assert "It has been running for" in text
        assert unknown.startswith(f"Nothing is known of task 'add' here. {silent}")
        gate.touch()


def test_a_callback_may_not_ask_because_it_would_wait_for_itself(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    with pf.load(config(tmp_path)) as run:

        def ask(future: Future[Any]) -> None:
            try:
                run.explain(1)
            except RunClosed as error:
                errors.append(error)

        task = pf.python_app(add)()
        task.add_done_callback(ask)
        task.result()
        until(lambda: errors)
    assert "it would wait for itself" in str(errors[0])


def test_a_manager_that_is_frozen_is_named(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        running = pf.python_app(wait_for)(str(gate))
        until_running(run, running)
        (manager,) = managers_of(run)
        with frozen(manager):
            why = run.explain(running)
        assert why.state is State.LEASED
        assert re.fullmatch(
            rf"It was handed to node {os.uname().nodename} \(block local-0\)\. "
            r"The manager there has not answered; it was last heard of \S+ ago\.",
            why.reasons[0].text,
        )
        gate.touch()
        running.result()


def test_an_answer_takes_milliseconds_with_many_tasks(tmp_path: Path, gate: Path) -> None:
    with pf.load(config(tmp_path)) as run:
        app = pf.python_app(wait_for)
        tasks = [app(str(gate)) for _ in range(20_000)]
        until_running(run, tasks[0])
        took_s = []
        for _ in range(5):  # the best counts, on a machine that may be busy
            begun = time.monotonic()
            why = run.explain(tasks[-1])
            took_s.append(time.monotonic() - begun)
            assert why.reasons[-1].kind is Kind.AHEAD
        print(f"an explanation among 20,000 tasks took {min(took_s) * 1000:.1f} ms")
        assert min(took_s) < 2.0
        run.close(wait=False)
