"""The exchange with peers that repeat themselves, come again, or were there before its restart."""

from __future__ import annotations

import msgspec
import pytest

from pilotflow.messages.client import AckResults, Crashed, DefineFunction, ManagerUp, Submit
from pilotflow.messages.codec import BadMessage
from pilotflow.messages.manager import Done, ManagerAlive, Recorded, Registered, Reregister, Run
from pilotflow.messages.records import ForgetFunctions, Result, Status, Task
from tests.core.exchange_bench import HUGE, Bench, done, register


def test_a_manager_that_is_not_known_is_asked_to_register() -> None:
    bench = Bench()
    assert bench.manager(ManagerAlive(None), key="m9") == [Reregister()]


def test_results_of_tasks_that_a_manager_does_not_hold_are_dropped_and_said_to_be_recorded() -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    for result in (
        Result(1, task.attempt + 1, Status.OK, b""),
        Result(1, task.attempt - 1, Status.OK, b""),
        Result(1, -5, Status.OK, b""),
        Result(99, task.attempt, Status.OK, b""),
        Result(-1, HUGE, Status.OK, b"", (), -(1 << 63), HUGE),
    ):
        assert bench.manager(Done(3, [result])) == [Recorded([3])]
    bench.manager(register("m2"), key="m2")
    assert bench.manager(done(task), key="m2") == [Recorded([1])]
    assert bench.results() == []
    bench.manager(done(task))
    assert [result.id for result in bench.results()] == [1]


def test_a_repeated_batch_is_delivered_once() -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    for _ in range(3):
        bench.manager(done(task))
    assert len(bench.results()) == 1
    manager = bench.exchange.peers["m1"].manager.id
    bench.client(AckResults([(manager, 1), (manager, 99), (HUGE, 1), (-1, -1)]))
    assert [m for m in bench.said["m1"] if isinstance(m, Recorded)] == [Recorded([1])]
    assert bench.manager(done(task)) == [Recorded([1])]
    assert len(bench.results()) == 1


def test_of_a_lost_task_only_the_last_workers_last_words_are_told() -> None:
    bench = Bench()
    for number in range(1, 6):
        task = (bench.submit(1) if number == 1 else bench.given())[-1]
        text = f"worker on n1 died\nends with:\nword {number}"
        bench.manager(Done(number, [Result(task.id, task.attempt, Status.CRASHED, text.encode())]))
    [lost] = bench.results()
    bench.turn("client")
    lines = msgspec.msgpack.decode(lost.payload)
    assert lines[:4] == [f"attempt {number}: worker on n1 died" for number in range(1, 5)]
    assert lines[4] == "attempt 5: worker on n1 died\nends with:\nword 5"
    told = [message for message in bench.said["client"] if isinstance(message, Crashed)]
    assert [line for message in told for _, _, line in message.attempts] == lines[:4]


def test_a_registration_that_comes_twice_leaves_one_manager_that_keeps_its_work() -> None:
    bench = Bench()
    (task,) = bench.submit(1)
    first = bench.exchange.peers["m1"].manager.id
    (answer,) = bench.manager(register(running=[(1, task.attempt)]))
    assert isinstance(answer, Registered)
    assert answer.manager == first
    bench.manager(done(task))
    assert [result.id for result in bench.results()] == [1]


def test_a_manager_that_begins_anew_without_a_task_gets_it_again_unless_its_result_comes_along() -> None:
    bench = Bench()
    lost, ended = bench.submit(1, 2)
    answers = bench.manager(register(), done(ended))
    (run,) = [message for message in answers if isinstance(message, Run)]
    assert [(task.id, task.attempt) for task in run.tasks] == [(1, lost.attempt)]  # one object: see the attempt raised
    assert [result.id for result in bench.results()] == [2]


def test_another_manager_under_the_same_name_replaces_the_first() -> None:
    bench = Bench()
    bench.submit(1)
    bench.manager(register(session="another life"))
    assert len(bench.exchange.peers) == len(bench.exchange.by_id) == 1
    assert [m.node for m in bench.said["client"] if isinstance(m, ManagerUp)] == ["m1", "m1"]
    assert bench.exchange.take_lost() == []


def test_an_acknowledgement_from_before_a_restart_does_not_reach_a_new_manager() -> None:
    old = Bench()
    manager = old.exchange.peers["m1"].manager.id
    new = Bench(epoch=2)
    (task,) = new.submit(1)
    new.manager(done(task))
    new.client(AckResults([(manager, 1)]))
    assert not [m for m in new.said["m1"] if isinstance(m, Recorded)]


def test_a_manager_that_still_runs_what_has_been_done_elsewhere_is_told_to_cancel_after_a_restart_too() -> None:
    bench = Bench(epoch=2)
    (task,) = bench.submit(1)
    bench.manager(done(task))
    answers = bench.manager(register("m2", running=[(1, (1 << 20) + 1)]), key="m2")
    assert [type(m).__name__ for m in answers] == ["Registered"]  # of an earlier life: the client may ask for it yet
    answers = bench.manager(register("m3", running=[(1, task.attempt)]), key="m3")
    assert [type(m).__name__ for m in answers] == ["Registered", "Cancel"]


def test_the_latest_of_two_attempts_that_come_back_after_a_restart_goes_on() -> None:
    bench = Bench(epoch=2)
    old = 1 << 20
    bench.manager(register("m2", running=[(1, old + 1)]), key="m2")
    bench.client(Submit([Task(1, 0, 1, 1, b"")], again=True))
    assert bench.exchange.scheduler.managers[bench.exchange.scheduler.tasks[1].manager].node == "m2"
    bench.manager(register("m3", running=[(1, old + 2)]), key="m3")
    assert bench.exchange.scheduler.managers[bench.exchange.scheduler.tasks[1].manager].node == "m3"
    assert [m.tasks for m in bench.said["m2"] if type(m).__name__ == "Cancel"] == [[(1, old + 1)]]


def test_a_manager_that_registers_twice_after_a_restart_keeps_what_the_client_asks_for_later() -> None:
    bench = Bench(epoch=2)
    running = [(1, (1 << 20) + 1)]
    for _ in range(2):
        bench.manager(register("m2", running=running), key="m2")
    assert [type(m).__name__ for m in bench.said["m2"]] == ["Registered", "Registered"]
    bench.client(Submit([Task(1, 0, 1, 1, b"")], again=True))
    assert bench.exchange.scheduler.managers[bench.exchange.scheduler.tasks[1].manager].node == "m2"
    bench.manager(register("m2"), key="m2")  # and if it does not hold it any more, it runs again
    assert bench.exchange.scheduler.tasks[1].attempt > 2 << 20


def test_a_function_is_forgotten_when_neither_the_client_nor_a_manager_has_a_task_of_it() -> None:
    bench = Bench()
    bench.client(DefineFunction(2, b"e", b"other"))
    (task,) = bench.submit(7)
    bench.client(ForgetFunctions([1, 2, HUGE]))
    assert not any(isinstance(message, ForgetFunctions) for message in bench.said["m1"]), "of one there is a task"
    with pytest.raises(BadMessage):
        bench.client(Submit([Task(8, 0, 2, 1, b"")]))
    bench.manager(done(task))
    bench.client(ForgetFunctions([]))
    assert bench.said["m1"][-1] == ForgetFunctions([1])
    with pytest.raises(BadMessage):
        bench.client(Submit([Task(9, 0, 1, 1, b"")]))


def test_a_function_is_not_forgotten_while_managers_may_come_with_tasks_of_it() -> None:
    bench = Bench(epoch=2)
    bench.client(ForgetFunctions([1]))
    assert [task.id for task in bench.submit(7)] == [7]
