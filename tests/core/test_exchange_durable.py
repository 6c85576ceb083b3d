"""An interchange whose program dies and is followed by another, and one that is told things by other terminals."""

from __future__ import annotations

from pilotflow.messages import Crashed, Hello, ManagerUp, Refused, Reregister, Reunited, Run, Submit, Task, Welcome
from pilotflow.questions import Instruct, Instructed, Instruction, Obeyed
from tests.core.test_exchange import NOW, Bench, done


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
