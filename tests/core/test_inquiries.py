"""The interchange's front desk: whom it asks before it answers, and what it says if they are silent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pilotflow.core.exchange import Exchange
from pilotflow.core.inquiries import ANSWER_S, INQUIRIES_MAX, MOVES_MAX, Inquiry
from pilotflow.core.pool import Pool
from pilotflow.core.whereabouts import place_of
from pilotflow.explanation import Explanation, Kind, Named, State
from pilotflow.messages.client import (
    CancelTasks,
    DefineClass,
    DefineFunction,
    Hello,
    LookUp,
    Submit,
    TaskView,
    from_client,
    to_client,
)
from pilotflow.messages.codec import BadMessage, Envelope, encode
from pilotflow.messages.control import Explained, ExplainTask, StatusQuery, StatusReport, from_control, to_control
from pilotflow.messages.manager import (
    Done,
    Function,
    IsAt,
    ManagerAlive,
    NodeReady,
    Register,
    ReserveNode,
    Returned,
    Run,
    WhereIs,
    from_manager,
    to_manager,
)
from pilotflow.messages.records import Refused, Result, Status, Task
from pilotflow.messages.views import BlockView, ClientView, ExecutorView, Stretch, Whereabouts
from pilotflow.resources import Capacity, Request


class Bench:
    """An exchange with a client, one manager of one slot, and other terminals; every message is sent over a wire."""

    def __init__(self, *, client: bool = True, epoch: int = 1) -> None:
        self.exchange = Exchange("r", epoch, "1", "3.11.0")
        self.now = 1000.0
        self.letters: dict[Any, list[Any]] = {}
        if client:
            self.client(
                Hello("1", "3.11.0", 77, "r", epoch), DefineFunction(1, b"d", b"b"), DefineClass(1, Request(), (), 5)
            )

    def client(self, *messages: Any) -> list[Any]:
        self.exchange.on_client("client", _travelled(messages, from_client()), (), self.now)
        return self.turn("client")

    def manager(self, *messages: Any, key: str = "m1") -> list[Any]:
        self.exchange.on_manager(key, _travelled(messages, from_manager()), (), self.now)
        return self.turn(key)

    def ask(self, task: str, key: str = "terminal", token: int = 5) -> list[Any]:
        self.exchange.on_control(key, _travelled([ExplainTask(token, task)], from_control()), self.now)
        return self.turn(key)

    def turn(self, key: str) -> list[Any]:
        self.letters = {}
        decoders: dict[Any, Any] = {"client": to_client(), "m1": to_manager(), "m2": to_manager()}
        for to, letter in self.exchange.turn(self.now).items():
            self.letters[to] = _travelled(letter.messages, decoders.get(to, to_control()))
        self.exchange.take_lost()
        return self.letters.get(key, [])

    def wait(self, seconds: float) -> list[Any]:
        """Let time go by; what the terminal hears then."""
        self.now += seconds
        return self.turn("terminal")

    def join(self, key: str = "m1", slots: int = 1) -> None:
        self.manager(
            Register("1", "3.11.0", "cpu", "cpu-0", key, key, 1, Capacity(8000, slots=slots), None, [], []), key=key
        )

    def submit(self, *ids: int) -> list[Task]:
        self.client(Submit([Task(id, 0, 1, 1, b"") for id in ids]))
        return [task for message in self.letters.get("m1", []) if isinstance(message, Run) for task in message.tasks]

    def sent(self, to: str, kind: type) -> Any:
        (message,) = [message for message in self.letters.get(to, []) if isinstance(message, kind)]
        return message


def _travelled(messages: Any, decode: Any) -> list[Any]:
    return list(decode(encode(Envelope(1, 1, 0, 0, False, list(messages)))).messages)


def answer(messages: list[Any]) -> Explanation:
    (message,) = [message for message in messages if isinstance(message, Explained)]
    assert message.token == 5
    explanation: Explanation = message.explanation
    return explanation


def told(bench: Bench, view: ClientView) -> list[Any]:
    """The client answers the question that it has just been asked; what the terminal hears then."""
    bench.client(TaskView(bench.sent("client", LookUp).token, view))
    return bench.letters.get("terminal", [])


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


def alike(*stretches: Stretch, task: int = 0, name: str = "square") -> ClientView:
    """What the program says of pending tasks that are called alike."""
    count = sum(stretch.last - stretch.first + 1 for stretch in stretches)
    return ClientView(task or stretches[0].first, name, alike=count, among=stretches)


def test_of_tasks_with_one_name_one_that_waits_is_answered_for_though_the_program_knows_of_none_that_runs() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7, 8, 9)
    bench.ask("square")
    why = answer(told(bench, alike(Stretch(7, 9, "square"))))
    assert (why.task, why.state) == (8, State.QUEUED)
    assert why.reasons[-1].text == "3 tasks called 'square' have not ended; this one waits."


def test_the_one_that_waits_need_not_be_the_first_of_its_kind() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7, 8, 9, 10)
    bench.ask("odd")
    why = answer(told(bench, alike(Stretch(7, 7, "cube"), Stretch(9, 9, "square"), name="cube")))
    assert (why.task, why.name, why.state) == (9, "square", State.QUEUED)


def test_one_that_came_back_from_a_lost_node_waits_though_the_program_was_told_that_it_runs() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7, 8)
    bench.exchange.on_hang_up("m1", bench.now)
    bench.ask("square")
    why = answer(told(bench, alike(Stretch(7, 8, "square"), task=8)))
    assert (why.task, why.state) == (7, State.QUEUED)


def test_one_that_waits_in_the_program_is_answered_for_if_none_waits_in_the_queue() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7)
    bench.ask("square")
    needs = (Named(7, "square"),)
    view = ClientView(8, "square", 2, needs, 1, needs, 1, among=(Stretch(7, 7, "square"),))
    assert told(bench, view) == [], "what it waits for is asked about"
    bench.manager(IsAt(bench.sent("m1", WhereIs).token, Whereabouts(True, 0, 3.0)))
    why = answer(bench.letters["terminal"])
    assert (why.task, why.state) == (8, State.WAITING)
    assert why.reasons[-1].text == "2 tasks called 'square' have not ended; this one waits."


def test_if_none_waits_that_is_all_that_is_said_of_the_others() -> None:
    bench = Bench()
    bench.join(slots=2)
    bench.submit(7, 8)
    bench.ask("square")
    assert told(bench, alike(Stretch(7, 8, "square"))) == []
    bench.manager(IsAt(bench.sent("m1", WhereIs).token, Whereabouts(True, 0, 3.0)))
    why = answer(bench.letters["terminal"])
    assert (why.task, why.state) == (7, State.RUNNING)
    assert (
        why.reasons[-1].text
        == "2 tasks called 'square' have not ended. None was found that waits; this is one of them."
    )


def test_of_those_that_were_handed_out_one_that_was_sent_ahead_is_answered_for() -> None:
    bench = Bench()
    bench.join()
    (first,) = bench.submit(1)
    bench.manager(Done(1, [Result(1, first.attempt, Status.OK, b"", (), 0, 1000)]))
    bench.submit(7, 8)
    bench.ask("square")
    assert told(bench, alike(Stretch(7, 8, "square"))) == []
    assert bench.sent("m1", WhereIs).task == 8
    bench.manager(IsAt(bench.sent("m1", WhereIs).token, Whereabouts(True, 0, None, 1)))
    why = answer(bench.letters["terminal"])
    assert (why.task, why.state) == (8, State.LEASED)
    assert why.reasons[-1].text == (
        "2 tasks called 'square' have not ended. None waits in the queue; this is one that was handed to a node."
    )


def test_endless_stretches_do_no_harm() -> None:
    bench = Bench()
    bench.join()
    bench.submit(7, 8)
    bench.ask("square")
    lies = (Stretch(1 << 40, 1 << 62, "x"), Stretch(9, 3, "x"), Stretch(-(1 << 60), -1, "x"), Stretch(3, 5, "x"))
    assert told(bench, ClientView(7, "square", alike=-3, among=lies)) == []
    assert answer(bench.wait(ANSWER_S)).task == 7


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
