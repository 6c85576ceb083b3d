"""The interchange's front desk: whom it asks before it answers, and what it says if they are silent."""

from __future__ import annotations

import msgspec
import pytest

from pilotflow.core.exchange import Exchange
from pilotflow.core.inquiries import ANSWER_S, INQUIRIES_MAX, MOVES_MAX, Inquiry
from pilotflow.core.pool import Pool
from pilotflow.core.whereabouts import place_of
from pilotflow.explanation import Explanation, Kind, Named, State
from pilotflow.messages.client import CancelTasks, DefineClass, LookUp, Submit, TaskView
from pilotflow.messages.codec import BadMessage, Envelope, encode
from pilotflow.messages.control import Explained, StatusQuery, StatusReport, to_control
from pilotflow.messages.manager import (
    Done,
    Function,
    IsAt,
    ManagerAlive,
    NodeReady,
    ReserveNode,
    Returned,
    Run,
    WhereIs,
)
from pilotflow.messages.records import Refused, Result, Status, Task
from pilotflow.messages.views import BlockView, ClientView, ExecutorView, Stretch, Whereabouts
from pilotflow.resources import Capacity, Request
from tests.core.inquiry_bench import Bench, answer, told


def test_a_queued_task_is_answered_as_soon_as_the_program_has_spoken() -> None:
    bench = Bench()
    bench.submit(7)
    assert bench.ask("7") == []
    assert bench.sent("client", LookUp).task == "7"
    why = answer(told(bench, ClientView(7, "square")))
    assert (why.task, why.name, why.state) == (7, "square", State.QUEUED)
    assert not bench.exchange.inquiries


def test_a_name_is_looked_up_by_the_program() -> None:
    bench = Bench()
    bench.submit(7, 8)
    bench.ask("square")
    why = answer(told(bench, ClientView(7, "square", alike=2, among=(Stretch(7, 8, "square"),))))
    assert (why.task, why.state) == (7, State.QUEUED)
    assert why.reasons[-1].text == "2 tasks called 'square' have not ended; this one waits."


def test_a_program_that_does_not_answer_is_left_out_after_a_while_and_that_is_said() -> None:
    bench = Bench()
    bench.submit(7)
    bench.ask("7")
    assert bench.exchange.next_deadline() <= bench.now + ANSWER_S
    assert bench.wait(ANSWER_S - 0.1) == []
    why = answer(bench.wait(0.1))
    assert (why.task, why.state) == (7, State.QUEUED)
    assert why.reasons[0].kind is Kind.SILENT
    assert why.reasons[0].text == (
        "The run's program (pid 77) has not answered within 2s. "
        "What only it knows is missing here: names, dependencies and blocks."
    )
    assert why.advice == "See whether that program is stopped or very busy."
    bench.ask("square")
    why = answer(bench.wait(ANSWER_S))
    assert (why.task, why.state) == (0, State.UNKNOWN)
    assert why.reasons[1].text == "The interchange does not know task square; the run's program may."


def test_a_run_without_a_program_is_not_waited_for() -> None:
    why = answer(Bench(client=False).ask("7"))
    assert why.reasons[0].text == (
        "The run's program is not connected. What only it knows is missing here: names, dependencies and blocks."
    )


def test_an_unknown_task_is_unknown() -> None:
    bench = Bench()
    bench.ask("sqare")
    why = answer(told(bench, ClientView(0, names=("square",))))
    assert (why.state, why.reasons[0].text) == (
        State.UNKNOWN,
        "No task sqare is pending in this run. There are: square.",
    )


def test_the_manager_that_holds_a_task_is_asked_where_it_is() -> None:
    bench = Bench()
    bench.join()
    (task,) = bench.submit(7)
    bench.ask("7")
    assert told(bench, ClientView(7, "square")) == []
    question = bench.sent("m1", WhereIs)
    assert (question.task, question.attempt) == (7, task.attempt)
    bench.manager(IsAt(question.token, Whereabouts(True, 0, 3.0)))
    why = answer(bench.letters["terminal"])
    assert (why.state, why.reasons[0].text) == (
        State.RUNNING,
        "It has been running for 3s on node m1 (block cpu-0), in worker 0.",
    )


def test_a_manager_that_does_not_answer_is_left_out_after_a_while() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7)
    bench.ask("7")
    told(bench, ClientView(7, "square"))
    why = answer(bench.wait(ANSWER_S))
    assert why.state is State.LEASED
    assert why.reasons[0].text == (
        "It was handed to node m1 (block cpu-0). The manager there has not answered; it was last heard of 2s ago."
    )


def test_what_another_manager_says_is_not_the_answer() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7)
    bench.join("m2")
    bench.ask("7")
    told(bench, ClientView(7, "square"))
    token = bench.sent("m1", WhereIs).token
    bench.manager(IsAt(token, Whereabouts(True, 9, 9.0)), IsAt(999, Whereabouts(True)), key="m2")
    assert "terminal" not in bench.letters


def test_a_task_that_moves_is_followed_but_not_for_ever() -> None:
    bench = Bench()
    bench.join()
    (task,) = bench.submit(7)
    bench.ask("7")
    told(bench, ClientView(7, "square"))
    for _ in range(MOVES_MAX - 1):
        bench.manager(Returned([(7, task.attempt)]))
        (task,) = bench.sent("m1", Run).tasks
        assert bench.sent("m1", WhereIs).attempt == task.attempt
    bench.manager(Returned([(7, task.attempt)]))
    assert answer(bench.letters["terminal"]).reasons[0].text == (
        "It is on its way to node m1 (block cpu-0), or back from there."
    )


def test_a_waiting_task_is_answered_with_what_all_of_it_waits_for() -> None:
    bench = Bench()
    bench.join()
    bench.submit(1, 2)
    bench.ask("9")
    chain = (Named(5, "part"), Named(2, "square"))
    why = answer(told(bench, ClientView(9, "total", needs=chain[:1], needed=1, chain=chain, links=2)))
    assert (why.task, why.state, why.chain) == (9, State.WAITING, chain)
    assert why.root is not None
    assert (why.root.task, why.root.name, why.root.state) == (2, "square", State.QUEUED)
    assert why.root.reasons[0].kind is Kind.SLOTS


def test_a_task_that_ends_while_it_is_asked_about_has_ended() -> None:
    bench = Bench()
    bench.join()
    (task,) = bench.submit(7)
    bench.ask("7")
    bench.manager(Done(1, [Result(7, task.attempt, Status.OK, b"")]))
    bench.turn("client")
    bench.ask("7", key="other")
    bench.client(TaskView(1, ClientView(7, "square")))
    why = answer(bench.letters["terminal"])
    assert (why.state, why.reasons[0].text) == (
        State.ENDED,
        "It has just ended, and its result is on its way to the run's program.",
    )


def test_a_task_that_is_held_back_says_so() -> None:
    bench = Bench()
    bench.ask("7")
    why = answer(told(bench, ClientView(7, "square", held_back=True)))
    assert (why.state, why.reasons[0].kind) == (State.QUEUED, Kind.HELD_BACK)


def test_after_a_restart_a_task_waits_for_the_managers_that_may_have_it() -> None:
    bench = Bench(epoch=2)
    bench.client(Submit([Task(7, 0, 1, 1, b"")], again=True))
    bench.ask("7")
    assert answer(told(bench, ClientView(7, "square"))).reasons[0].kind is Kind.RESTART


def test_a_task_that_is_being_cancelled_says_so() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7)
    bench.client(CancelTasks(1, [7], running=True))
    bench.ask("7")
    told(bench, ClientView(7, "square"))
    bench.manager(IsAt(bench.sent("m1", WhereIs).token, Whereabouts(True, 0, 3.0)))
    assert answer(bench.letters["terminal"]).reasons[0].kind is Kind.ENDING


def test_a_terminal_that_has_left_is_not_answered() -> None:
    bench = Bench()
    bench.submit(7)
    bench.ask("7")
    bench.exchange.on_hang_up("terminal", bench.now)
    assert told(bench, ClientView(7, "square")) == []
    assert not bench.exchange.inquiries


def test_too_many_questions_are_refused_and_silly_ones_are_garbage() -> None:
    bench = Bench()
    for number in range(INQUIRIES_MAX):
        assert bench.ask("7", key=f"terminal {number}") == []
    (refusal,) = bench.ask("7")
    assert isinstance(refusal, Refused)
    with pytest.raises(BadMessage):
        bench.ask("7" * 1001)
    assert bench.wait(ANSWER_S) == []
    assert len(bench.letters) >= INQUIRIES_MAX
    assert not bench.exchange.inquiries


def test_the_status_is_still_answered_at_once() -> None:
    bench = Bench()
    bench.exchange.on_control("terminal", [StatusQuery()], bench.now)
    assert isinstance(bench.turn("terminal")[0], StatusReport)


@pytest.mark.parametrize("number", ["0", "-1", "٣", "1e3", "9" * 18, "9" * 19, "", " 7", "7 "])
def test_odd_numbers_are_names(number: str) -> None:
    bench = Bench()
    bench.submit(7)
    bench.ask(number)
    assert answer(bench.wait(ANSWER_S)).state is State.UNKNOWN


def test_views_that_lie_do_no_harm() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7)
    bench.ask("7")
    view = ClientView(1 << 60, "x", chain=(Named(-5, ""),), links=-1, needed=-3, alike=-1)
    assert answer(told(bench, view)).state is State.WAITING
    bench.client(TaskView(12345, ClientView(7)))
    bench.manager(ManagerAlive(None))


@pytest.mark.parametrize("time_s", [float("nan"), float("inf"), -1.0, 1e300])
def test_times_that_are_none_are_garbage(time_s: float) -> None:
    bench = Bench()
    bench.join()
    bench.submit(7)
    bench.ask("7")
    block = BlockView("b", "cpu", None, "pending", "", time_s)
    for view in (
        ClientView(7, blocks=(block,)),
        ClientView(7, executors=(ExecutorView("cpu", 1, 1, next_try_s=time_s),)),
    ):
        with pytest.raises(BadMessage):
            told(bench, view)
    told(bench, ClientView(7))
    with pytest.raises(BadMessage):
        bench.manager(IsAt(bench.sent("m1", WhereIs).token, Whereabouts(True, 0, time_s)))
    assert answer(bench.wait(ANSWER_S)).state is State.LEASED


class Clumsy(Exchange):
    """One with a bug."""

    def _answer(self, number: int, inquiry: Inquiry, now: float) -> Explanation | None:
        raise ZeroDivisionError("oops")


def test_a_bug_in_an_answer_is_told_and_the_run_goes_on() -> None:
    bench = Bench(client=False)
    bench.exchange = Clumsy("r", 1, "1", "3.11.0")
    (refusal,) = bench.ask("7")
    assert refusal.reason == "a bug of pilotflow: ZeroDivisionError('oops'). Please report it."
    assert not bench.exchange.inquiries


def test_a_task_on_several_nodes_waits_until_all_of_them_are_known_to_be_empty() -> None:
    bench = Bench()
    bench.client(DefineClass(2, Request(num_nodes=2), (), 5))
    bench.join()
    bench.join("m2")
    bench.client(Submit([Task(7, 0, 1, 2, b"")]))
    attempt = bench.sent("m1", ReserveNode).attempt
    bench.ask("7")
    why = answer(told(bench, ClientView(7, "mpi")))
    assert (why.state, why.reasons[0].text) == (
        State.LEASED,
        "It has nodes m1 and m2 (block cpu-0). 2 of 2 have not said yet that nothing runs there any more.",
    )
    for key in ("m2", "m1"):
        bench.manager(NodeReady(7, attempt), key=key)
    bench.ask("7")
    told(bench, ClientView(7, "mpi"))
    bench.manager(IsAt(bench.sent("m1", WhereIs).token, Whereabouts(True, 0, 2.0)))
    assert answer(bench.letters["terminal"]).reasons[0].text == (
        "It has been running for 2s on nodes m1 and m2 (block cpu-0), in worker 0."
    )


def test_a_pool_says_where_each_of_its_tasks_is() -> None:
    pool = Pool(Capacity(1000, slots=1))
    assert place_of(pool, 1, 1, 10.0) == Whereabouts(False)
    pool.on_function(Function(1, b"", b""))
    pool.on_class(1, Request())
    tasks = [Task(id, 1, 1, 1, b"") for id in (1, 2, 3)]
    pool.on_run(Run(tasks), (), 0)
    (worker,) = pool.workers.values()
    pool.on_ready(worker)
    pool.take_orders(10.0)
    assert place_of(pool, 1, 1, 12.5) == Whereabouts(True, worker.id, 2.5)
    assert place_of(pool, 1, 2, 12.5) == Whereabouts(False)
    assert place_of(pool, 2, 1, 12.5) == Whereabouts(True, None, None, 0)
    assert place_of(pool, 3, 1, 12.5) == Whereabouts(True, None, None, 1)
    worker.tasks.append(tasks[1])
    assert place_of(pool, 2, 1, 12.5) == Whereabouts(True, worker.id, None, 1)


def test_an_explanation_survives_the_wire_whole() -> None:
    bench = Bench()
    bench.submit(7)
    bench.ask("7")
    why = answer(told(bench, ClientView(7, "square")))
    message = Explained(1, why)
    decoded = to_control()(encode(Envelope(1, 1, 0, 0, False, [message]))).messages[0]
    assert msgspec.to_builtins(decoded) == msgspec.to_builtins(message)
