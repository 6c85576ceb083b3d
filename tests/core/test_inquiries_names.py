"""Of several tasks with the name that was asked for, one that waits is answered for."""

from __future__ import annotations

from pilotflow.core.inquiries import ANSWER_S
from pilotflow.explanation import Named, State
from pilotflow.messages.manager import Done, IsAt, WhereIs
from pilotflow.messages.records import Result, Status
from pilotflow.messages.views import ClientView, Stretch, Whereabouts
from tests.core.inquiry_bench import Bench, answer, told


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
