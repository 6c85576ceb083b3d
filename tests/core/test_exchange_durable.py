"""An interchange whose program dies and is followed by another, and one that is told things by other terminals."""

from __future__ import annotations

from pilotflow.messages.client import (
    Crashed,
    DefineFunction,
    Hello,
    Instruction,
    ManagerUp,
    Obeyed,
    Results,
    Reunited,
    Submit,
    Welcome,
)
from pilotflow.messages.control import Instruct, Instructed
from pilotflow.messages.manager import Reregister, Run
from pilotflow.messages.records import Refused, Task
from tests.core.exchange_bench import NOW, Bench, done, register


def test_what_was_not_handed_out_before_a_restart_runs_at_once_when_all_managers_are_back() -> None:
    bench = Bench(epoch=2)
    bench.client(Submit([Task(7, 0, 1, 1, b"")], again=True))
    assert not any(isinstance(message, Run) for message in bench.said.get("m1", []))
    bench.client(Reunited())
    (task,) = [task for message in bench.said["m1"] if isinstance(message, Run) for task in message.tasks]
    assert (task.id, task.attempt > 1 << 20) == (7, True)
    assert not any(isinstance(message, Crashed) for message in bench.said["client"]), "no attempt was lost"
    bench.manager(done(task))
    assert [result.id for result in bench.results()] == [7]


def test_what_a_manager_brings_back_is_not_handed_out_again_when_all_are_back() -> None:
    bench = Bench(epoch=2)
    old = Task(7, (1 << 20) + 5, 1, 1, b"")
    bench.client(Submit([Task(7, 0, 1, 1, b"")], again=True))
    bench.manager(done(old))
    bench.client(Reunited())
    assert not any(isinstance(message, Run) for message in bench.said["m1"])
    assert [(result.id, result.attempt) for result in bench.results()] == [(7, old.attempt)]


def test_the_next_program_hears_of_the_managers_and_has_the_results_that_nobody_recorded() -> None:
    bench = Bench()
    (task,) = bench.submit(7)
    bench.exchange.on_hang_up("client", NOW)
    assert bench.exchange.program == 0
    bench.manager(done(task))
    assert not bench.results(), "there is nobody to tell"
    bench.exchange.on_client("next", [Hello("1", "3.11.0", 2, "r", 1)], (), NOW)
    bench.turn("next")
    assert [type(message) for message in bench.said["next"][:2]] == [Welcome, ManagerUp]
    assert isinstance(bench.said["m1"][-1], Reregister)
    assert bench.exchange.program == 2


def next_program(bench: Bench, *ids: int) -> list[int]:
    """Another program takes the run over and submits these again; returns which of them are handed out then."""
    bench.exchange.on_hang_up("client", NOW)
    hello, again = Hello("1", "3.11.0", 2, "r", 1), Submit([Task(id, 0, 1, 1, b"") for id in ids], again=True)
    bench.exchange.on_client("next", [hello, DefineFunction(1, b"d", b"b"), again], (), NOW)
    before = len(handed_out(bench))
    bench.turn("next")
    return handed_out(bench)[before:]


def handed_out(bench: Bench) -> list[int]:
    return [task.id for said in bench.said.get("m1", []) if isinstance(said, Run) for task in said.tasks]


def test_what_never_arrived_runs_at_once_when_the_next_program_submits_it_again() -> None:
    bench = Bench()
    bench.submit(7)
    assert next_program(bench, 7, 8) == [8], "a manager has the other"
    assert not any(isinstance(message, Crashed) for message in bench.said["next"])


def test_what_a_manager_may_have_the_result_of_waits_until_that_has_told_its_results_again() -> None:
    bench = Bench()
    (task,) = bench.submit(7)
    bench.manager(done(task))
    assert bench.results(), "the first program is told, and dies before it has recorded it"
    assert next_program(bench, 7, 8) == []
    bench.manager(register(), done(task))
    assert handed_out(bench) == [7, 8]
    told = [message for message in bench.said["next"] if isinstance(message, Results)]
    assert [result.id for message in told for batch in message.batches for result in batch.results] == [7]


def test_results_that_are_lost_with_their_manager_are_made_again_at_once() -> None:
    bench = Bench()
    (task,) = bench.submit(7)
    bench.manager(done(task))
    bench.manager(register(node="n2"), key="m2")
    assert next_program(bench, 7) == []
    bench.exchange.on_hang_up("m1", NOW)
    bench.turn("next")
    assert [one.id for said in bench.said["m2"] if isinstance(said, Run) for one in said.tasks] == [7]


def test_an_instruction_reaches_the_program_and_its_answer_comes_back() -> None:
    bench = Bench()
    bench.exchange.on_control("terminal", [Instruct(5, "cancel", ["1-3"])], NOW)
    bench.turn("client")
    (instruction,) = [message for message in bench.said["client"] if isinstance(message, Instruction)]
    assert (instruction.verb, instruction.words) == ("cancel", ["1-3"])
    bench.client(Obeyed(instruction.token, True, "3"))
    assert bench.said["terminal"] == [Instructed(5, True, "3")]
    assert bench.lost == ["terminal"], "nothing is kept of who has its answer"
    bench.client(Obeyed(instruction.token, True, "again"))
    assert len(bench.said["terminal"]) == 1


def test_an_instruction_without_a_program_is_refused_at_once_or_when_the_program_goes() -> None:
    bench = Bench()
    bench.exchange.on_control("early", [Instruct(5, "cancel", [])], NOW)
    bench.turn("client")
    bench.exchange.on_hang_up("client", NOW)
    bench.exchange.on_control("late", [Instruct(6, "cancel", [])], NOW)
    bench.turn("client")
    for terminal in ("early", "late"):
        (refused,) = bench.said[terminal]
        assert isinstance(refused, Refused)
