"""The exchange against peers that lie, or send rubbish with valid keys."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
import pytest

from pilotflow.messages.client import (
    CancelTasks,
    Crashed,
    DefineClass,
    DefineExecutors,
    DefineSetup,
    DrainBlocks,
    FailExecutor,
    Hello,
    ManagerDown,
    SetupFailed,
    Submit,
)
from pilotflow.messages.codec import BadMessage, Envelope, encode
from pilotflow.messages.control import StatusQuery, StatusReport
from pilotflow.messages.manager import (
    AliveReply,
    Begun,
    CancelOutcome,
    Done,
    Leaving,
    ManagerAlive,
    ManagerRefused,
    Returned,
    WorkerSetupFailed,
    from_manager,
)
from pilotflow.messages.records import Excess, Refused, Result, Status, Task, encode_excess
from pilotflow.resources import BlockShape, Capacity, NodeShape, Request
from tests.core.exchange_bench import HUGE, NOW, Bench, done, register


@pytest.mark.parametrize(
    "message",
    [
        Submit([Task(1, 0, 99, 1, b"")]),
        Submit([Task(1, 0, 1, 99, b"")]),
        Submit([Task(1, -1, 1, 1, b"")]),
        Submit([Task(1, HUGE, 1, 1, b"")]),
        Submit([Task(1, 0, 1, 1, b"", (0, 0))]),
        Submit([Task(1, 0, 1, 1, b"", (1, -1))]),
        Submit([Task(1, 0, 1, 1, b"", (-1, 2))]),
        Submit([Task(1, 0, 1, 1, b"", (1,))]),
        Submit([Task(1, 0, 1, 1, b"", (HUGE, HUGE))]),
        Submit([Task(1, 0, 1, 1, b"", (5, 0))]),
        Submit([Task(1, 0, 1, 1, b"", (0, 0)), Task(2, 0, 1, 1, b"", (1, 0))]),
        DefineClass(2, Request(cpus_milli=-1), (), 5),
        DefineClass(2, Request(memory_bytes=HUGE), (), 5),
        DefineClass(2, Request(gpus_milli=-1), (), 5),
        DefineClass(2, Request(runtime_s=float("nan")), (), 5),
        DefineClass(2, Request(runtime_s=float("inf")), (), 5),
        DefineClass(2, Request(num_nodes=0), (), 5),
        DefineClass(2, Request(priority=-HUGE), (), 5),
        DefineClass(2, Request(resources=(("licence", -1),)), (), 5),
        DefineExecutors([BlockShape("cpu", NodeShape(cpus_milli=-1))], True),
        DefineExecutors([BlockShape("cpu", NodeShape(memory_bytes=HUGE))], True),
        DefineExecutors([BlockShape("cpu", NodeShape(resources=(("licence", -1),)))], True),
        DefineExecutors([BlockShape("cpu", nodes=0)], True),
        DefineExecutors([BlockShape("cpu", walltime_s=float("nan"))], True),
        DefineExecutors([BlockShape("cpu", walltime_s=0.0)], True),
    ],
)
def test_nonsense_of_a_client_is_refused_as_a_whole(message: Any) -> None:
    bench = Bench()
    with pytest.raises(BadMessage):
        bench.client(message, frames=[b"x"])
    assert not bench.exchange.scheduler.tasks
    assert list(bench.exchange.scheduler.classes) == [1]
    assert bench.submit(7)[0].id == 7


@pytest.mark.parametrize(
    "message",
    [
        register("m2", time_left_s=float("nan")),
        register("m2", time_left_s=-1.0),
        register("m2", leased=[(1, HUGE)]),
        register("m2", running=[(1, -1)]),
        ManagerAlive(float("nan")),
        ManagerAlive(-5.0),
        Done(1, [Result(1, 1, Status.OK, b"", (3, 0))]),
        Done(1, [Result(1, 1, Status.OK, b"", (0, 0))]),
    ],
)
def test_nonsense_of_a_manager_is_refused(message: Any) -> None:
    bench = Bench()
    with pytest.raises(BadMessage):
        bench.manager(message)
    assert len(bench.exchange.peers) == 1
    assert bench.submit(7)[0].id == 7


def test_only_the_bad_messages_of_a_letter_are_passed_over_and_all_are_counted() -> None:
    bench = Bench()
    with pytest.raises(BadMessage, match="unknown function") as caught:
        bench.client(
            Submit([Task(1, 0, 99, 1, b"", (1, 0))]),
            DefineClass(2, Request(cpus_milli=-1), (), 5),
            Submit([Task(2, 0, 1, 1, b"", (1, 0))]),  # nobody knows any more which frame is meant
            Submit([Task(3, 0, 1, 1, b"")]),
            frames=[b"x", b"y"],
        )
    assert caught.value.count == 3
    task = bench.submit(4)[-1]
    assert sorted(bench.exchange.scheduler.tasks) == [3, 4]
    with pytest.raises(BadMessage) as caught:
        bench.manager(Done(1, [Result(4, task.attempt, Status.OK, b"", (3, 0))]), ManagerAlive(-1.0), done(task, 2))
    assert caught.value.count == 2
    bench.turn("m1")
    assert [result.id for result in bench.results()] == [4]


def test_a_known_manager_that_registers_with_nonsense_keeps_what_it_holds() -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    with pytest.raises(BadMessage):
        bench.manager(register(leased=[(1, HUGE)]), ManagerAlive(None))
    assert bench.exchange.scheduler.holder(1) is not None
    bench.turn("m1")
    bench.manager(done(task))
    assert [result.id for result in bench.results()] == [1]


@pytest.mark.parametrize(
    "capacity",
    [
        Capacity(1000, slots=0, depth_limited=True),
        Capacity(1000, slots=-3),
        Capacity(1000, slots=HUGE),
        Capacity(-1, slots=1),
        Capacity(1000, HUGE, slots=1),
    ],
)
def test_a_manager_with_an_absurd_capacity_is_refused_with_words(capacity: Capacity) -> None:
    bench = Bench()
    (answer,) = bench.manager(register("m2", capacity), key="m2")
    assert isinstance(answer, ManagerRefused)
    assert "manager on m2" in answer.reason
    assert any(isinstance(m, ManagerDown) and m.refused for m in bench.said["client"])


def test_a_manager_of_another_version_is_refused_with_both_versions() -> None:
    bench = Bench()
    (answer,) = bench.manager(register("m2", version="9"), key="m2")
    assert isinstance(answer, ManagerRefused)
    assert "9" in answer.reason
    assert "the run has 1" in answer.reason
    (answer,) = bench.manager(register("m3", python="3.9.1"), key="m3")
    assert isinstance(answer, ManagerRefused)
    assert "Python 3.9.1, the run has 3.11.0" in answer.reason
    assert bench.lost == ["m2", "m3"], "nothing is kept of them"


def test_nothing_is_taken_from_a_client_that_has_not_said_hello() -> None:
    bench = Bench()
    for message in (Submit([Task(5, 0, 1, 1, b"")]), CancelTasks(1, [1], True), FailExecutor("cpu", "x")):
        with pytest.raises(BadMessage):
            bench.exchange.on_client("stranger", [message], (), NOW)
    bench.exchange.on_client("stranger", [Hello("1", "3.11.0", 1, "another run", 1)], (), NOW)
    (answer,) = bench.turn("stranger")
    assert isinstance(answer, Refused)
    assert bench.exchange.client == "client"


def test_nobody_takes_over_from_a_program_that_is_there_by_saying_its_process_id() -> None:
    bench = Bench()
    ours, theirs = (Hello("1", "3.11.0", 1, "r", 1, token) for token in (b"known to us alone", b"a guess"))
    bench.client(ours)
    bench.exchange.on_client("stranger", [theirs], (), NOW)
    (answer,) = bench.turn("stranger")
    assert answer == Refused("run r belongs to the program with pid 1")
    clients = [bench.exchange.client]
    bench.exchange.on_client("our next connection", [ours], (), NOW)
    clients.append(bench.exchange.client)
    bench.exchange.on_hang_up("our next connection", NOW)
    bench.exchange.on_client("next program", [theirs], (), NOW)
    clients.append(bench.exchange.client)
    assert clients == ["client", "our next connection", "next program"]


def test_a_manager_cannot_decide_that_a_task_was_lost_or_cancelled() -> None:
    bench = Bench()
    for status in (Status.LOST, Status.CANCELLED, Status.UNSTARTABLE):
        task = bench.submit(1)[-1]
        bench.manager(done(task, status=status))
    assert bench.results() == []  # each is a crash, and the task is tried again
    assert 1 in bench.exchange.scheduler.tasks


def test_a_manager_cannot_end_a_run_over_a_setup_that_its_executor_has_not() -> None:
    bench = Bench()
    with pytest.raises(BadMessage, match="no setup"):
        bench.manager(WorkerSetupFailed(b"rubbish"))
    assert not [message for message in bench.said.get("client", []) if isinstance(message, SetupFailed)]
    bench.client(DefineSetup("cpu", b"payload"))
    bench.manager(WorkerSetupFailed(b"why"))
    bench.turn("client")
    assert SetupFailed("cpu", b"why") in bench.said["client"]
    bench.manager(WorkerSetupFailed(b"", "10 workers died"))
    assert SetupFailed("cpu", b"", "10 workers died") in bench.said["client"]


@pytest.mark.parametrize("duration", [-1, -(1 << 63), HUGE])
def test_impossible_durations_do_not_upset_what_is_sent_ahead(duration: int) -> None:
    bench = Bench()
    tasks = bench.submit(*range(1, 50))
    bench.manager(Done(1, [Result(tasks[0].id, tasks[0].attempt, Status.OK, b"", (), duration)]))
    bench.submit(*range(100, 150))
    assert len(bench.results()) == 1


def test_words_about_tasks_that_are_not_a_managers_own_change_nothing() -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    bench.manager(register("m2"), key="m2")
    bench.said.clear()
    pair = (task.id, task.attempt)
    for message in (
        Begun([pair, (HUGE, HUGE), (-1, -1)]),
        Returned([pair, (99, 1)]),
        CancelOutcome(0, [pair, (99, 1)], [1, 99, HUGE]),
        CancelOutcome(HUGE, [pair], [1]),
        Leaving("", [pair, (98, 1)]),
    ):
        bench.manager(message, key="m2")
    assert bench.exchange.scheduler.managers[bench.exchange.scheduler.tasks[1].manager].node == "m1"
    assert all(isinstance(message, ManagerDown) for message in bench.said.get("client", []))


def test_a_task_that_a_manager_ended_though_nobody_asked_is_tried_again() -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    attempt = task.attempt
    bench.manager(CancelOutcome(0, [(1, attempt)], []))
    assert bench.exchange.scheduler.tasks[1].attempt == attempt + 1


def test_draining_and_failing_what_does_not_exist_is_fine() -> None:
    bench = Bench()
    bench.client(DrainBlocks(["nowhere"]), FailExecutor("nothing", ""), CancelTasks(HUGE, [HUGE, -1], True))
    assert bench.submit(1)


@pytest.mark.parametrize("payload", [b"rubbish", encode_excess(Excess("runtime", nan, inf, "m1"))])
def test_an_excess_that_cannot_be_read_counts_as_a_crash_of_the_worker(payload: bytes) -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    attempt = task.attempt
    bench.manager(Done(1, [Result(task.id, attempt, Status.EXCEEDED, payload)]))
    assert bench.results() == []
    again = bench.submit()[-1]
    assert (again.id, again.attempt) == (1, attempt + 1)
    bench.manager(done(again, seq=2))
    assert [result.status for result in bench.results()] == [Status.OK]


def test_an_excess_that_cannot_be_read_counts_as_a_crash_after_a_restart_too() -> None:
    bench = Bench(epoch=2)
    bench.manager(Done(1, [Result(7, 5, Status.EXCEEDED, b"rubbish")]))
    bench.client(Submit([Task(7, 0, 1, 1, b"")], again=True))
    bench.turn("client", NOW + 100)
    assert bench.results() == []
    crashes = [message for message in bench.said["client"] if isinstance(message, Crashed)]
    assert [id for message in crashes for id, _, _ in message.attempts] == [7]


@pytest.mark.parametrize("ran_s", [nan, inf, -1.0])
def test_a_manager_that_leaves_with_impossible_times_has_not_left(ran_s: float) -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    with pytest.raises(BadMessage, match="negative, endless or no number"):
        bench.manager(Leaving("bye", [(task.id, task.attempt)], [ran_s]))
    bench.manager(done(task))
    assert [result.id for result in bench.results()] == [1]


@pytest.mark.parametrize("field", ["duration_us", "started_us", "cpu_us", "peak_bytes", "exit_code"])
@pytest.mark.parametrize("number", [HUGE, -(1 << 63)])
def test_measures_that_no_database_holds_are_no_message(field: str, number: int) -> None:
    result = msgspec.structs.replace(Result(1, 1, Status.OK, b""), **{field: number})
    with pytest.raises(BadMessage):
        from_manager()(encode(Envelope(1, 1, 0, 0, False, [Done(1, [result])])))


def test_a_letter_full_of_signs_of_life_gets_one_answer() -> None:
    bench = Bench()
    assert bench.manager(*[ManagerAlive(5.0)] * 1000) == [AliveReply()]


def test_of_a_letter_with_many_questions_one_is_answered() -> None:
    bench = Bench()
    with pytest.raises(BadMessage, match="several questions") as caught:
        bench.exchange.on_control("terminal", [StatusQuery()] * 1000, NOW)
    assert caught.value.count == 999
    assert [type(message) for message in bench.turn("terminal")] == [StatusReport]
