"""States of a workflow's jobs: readiness, cascades, other tries, triggers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from pilotflow.core.job_states import COMPLETE, ENDED, TRANSITIONS, JobState
from pilotflow.core.triggers import Moment, Trigger
from pilotflow.core.workflow import JobGraph, WrongTransition

S = JobState


@dataclass(frozen=True)
class AJob:
    depends_on: tuple[int, ...] = ()
    cancel_on_blocking_job_failure: bool = True
    failure_handler: int | None = None
    retries: int = 0


@dataclass(frozen=True)
class ARule:
    codes: tuple[int, ...]
    recovery_script: str | None = None
    max_attempts: int = 3


@dataclass(frozen=True)
class AHandler:
    rules: tuple[ARule, ...] = field(default_factory=tuple)

    def rule_for(self, exit_code: int) -> ARule | None:
        return next((rule for rule in self.rules if exit_code in rule.codes), None)


DIAMOND = [AJob(), AJob((0,)), AJob((0,)), AJob((1, 2))]


def begun(jobs: list[AJob], **words: object) -> JobGraph:
    graph = JobGraph(jobs, **words)  # type: ignore[arg-type]
    graph.initialize()
    return graph


def run(graph: JobGraph, job: int, code: int = 0) -> None:
    graph.given_out(job)
    graph.begun(job)
    graph.ended(job, code)


def test_a_diamond_becomes_ready_from_the_top_down() -> None:
    graph = begun(DIAMOND)
    assert graph.take_ready() == [0]
    run(graph, 0)
    assert graph.take_ready() == [1, 2]
    run(graph, 2)
    assert graph.take_ready() == []
    run(graph, 1)
    assert graph.take_ready() == [3]
    run(graph, 3)
    assert graph.is_over
    assert graph.has_succeeded


def test_a_failure_cancels_what_depends_on_it_at_once_and_nothing_else() -> None:
    graph = begun([*DIAMOND, AJob()])
    run(graph, 0)
    run(graph, 1, 7)
    assert graph.states == [S.COMPLETED, S.FAILED, S.READY, S.CANCELLED, S.READY]
    run(graph, 2)
    run(graph, 4)
    assert graph.is_over
    assert not graph.has_succeeded


def test_a_job_that_does_not_mind_runs_when_all_it_depends_on_has_ended() -> None:
    graph = begun([AJob(), AJob(), AJob((0, 1), cancel_on_blocking_job_failure=False)])
    run(graph, 0, 1)
    assert graph.states[2:] == [S.BLOCKED]
    run(graph, 1)
    assert graph.states[2:] == [S.READY]


def test_jobs_behind_one_gate_that_mind_and_do_not_mind_are_told_apart() -> None:
    needs = (0, 1)
    graph = begun([AJob(), AJob(), AJob(needs), AJob(needs, cancel_on_blocking_job_failure=False)])
    run(graph, 0, 1)
    assert graph.states[2:] == [S.CANCELLED, S.BLOCKED]
    run(graph, 1)
    assert graph.states[2:] == [S.CANCELLED, S.READY]


def test_a_rule_lets_a_job_run_so_many_times_in_all_and_names_its_script() -> None:
    handler = AHandler((ARule((3,), "fix it", max_attempts=3),))
    graph = begun([AJob(failure_handler=0)], handlers=[handler])
    for _ in range(2):
        graph.given_out(0)
        verdict = graph.ended(0, 3)
        assert verdict is not None
        assert verdict.again
        assert verdict.script == "fix it"
    graph.given_out(0)
    verdict = graph.ended(0, 3)
    assert verdict is not None
    assert not verdict.again
    assert "3 times" in verdict.why
    assert graph.states == [S.FAILED]


def test_an_exit_code_that_no_rule_names_is_tried_again_as_often_as_retries_says() -> None:
    graph = begun([AJob(failure_handler=0, retries=1)], handlers=[AHandler((ARule((3,)),))])
    run(graph, 0, 1)
    assert graph.states == [S.READY]
    run(graph, 0, 1)
    assert graph.states == [S.FAILED]


def test_an_unmatched_failure_may_stay_pending_with_its_dependents() -> None:
    graph = begun([AJob(), AJob((0,))], use_pending_failed=True)
    run(graph, 0, 1)
    assert graph.states == [S.PENDING_FAILED, S.BLOCKED]
    assert graph.is_over
    assert graph.reset([0]) == [0, 1]
    graph.initialize()
    assert graph.states == [S.READY, S.BLOCKED]


def test_a_late_word_about_an_ended_job_changes_nothing() -> None:
    graph = begun([AJob()])
    run(graph, 0)
    assert graph.ended(0, 1) is None
    assert not graph.begun(0)
    assert not graph.lost(0)
    assert not graph.cancel(0)
    assert graph.states == [S.COMPLETED]


def test_to_cancel_a_job_cancels_what_depends_on_it() -> None:
    graph = begun(DIAMOND)
    graph.given_out(0)
    assert graph.cancel(0)
    assert set(graph.states) == {S.CANCELLED}


def test_a_lost_attempt_waits_again_and_costs_no_try() -> None:
    graph = begun([AJob()])
    graph.given_out(0)
    graph.begun(0)
    assert graph.lost(0)
    assert graph.states == [S.PENDING]
    graph.begun(0)
    graph.ended(0, 0)
    assert graph.failures == [0]


def test_what_failed_runs_again_with_what_it_had_cancelled_and_nothing_else() -> None:
    graph = begun([*DIAMOND, AJob()])
    run(graph, 0)
    run(graph, 1, 1)
    run(graph, 2)
    run(graph, 4)
    assert graph.reset([1]) == [1, 3]
    graph.initialize()
    graph.take_changed()
    assert graph.states == [S.COMPLETED, S.READY, S.COMPLETED, S.BLOCKED, S.COMPLETED]
    run(graph, 1)
    run(graph, 3)
    assert graph.has_succeeded


def test_a_graph_made_from_written_states_goes_on_where_it_was() -> None:
    graph = begun(DIAMOND)
    run(graph, 0)
    run(graph, 1)
    graph.given_out(2)
    again = JobGraph(DIAMOND, states=graph.states, failures=graph.failures)
    again.taken_back(2)
    assert again.take_ready() == [2]
    run(again, 2)
    assert again.take_ready() == [3]


def test_ten_thousand_behind_ten_thousand_cost_what_they_are() -> None:
    needs = tuple(range(10_000))
    graph = begun([AJob()] * 10_000 + [AJob(needs)] * 10_000)
    for job in needs:
        graph.given_out(job)
        graph.ended(job, 0)
    assert len(graph.take_ready()) == 10_000


def test_a_trigger_fires_once_when_all_of_its_jobs_are_ready() -> None:
    graph = begun(DIAMOND, triggers=[Trigger(7, Moment.READY, (1, 2)), Trigger(8, Moment.COMPLETE, (0, 3))])
    assert graph.take_fired() == []
    run(graph, 0)
    assert graph.take_fired() == [7]
    for job in (1, 2, 3):
        run(graph, job)
    assert graph.take_fired() == [8]


def test_a_trigger_does_not_wait_for_cancelled_jobs_to_become_ready() -> None:
    graph = begun([AJob(), AJob(), AJob((0,)), AJob((1,))], triggers=[Trigger(1, Moment.READY, (2, 3))])
    run(graph, 0, 1)
    assert graph.take_fired() == []
    run(graph, 1)
    assert graph.take_fired() == [1]


def test_what_has_fired_does_not_fire_again_in_a_graph_made_anew() -> None:
    fired = Trigger(1, Moment.COMPLETE, (0,), fired=True)
    graph = JobGraph([AJob()], triggers=[fired], states=[S.COMPLETED])
    assert graph.take_fired() == []
    other = JobGraph([AJob()], triggers=[Trigger(1, Moment.COMPLETE, (0,))], states=[S.COMPLETED])
    assert other.take_fired() == [1]


def test_no_state_follows_another_that_the_table_does_not_name() -> None:
    graph = begun([AJob(), AJob((0,))])
    with pytest.raises(WrongTransition, match="blocked to pending"):
        graph.given_out(1)
    for state in ENDED - {S.PENDING_FAILED}:
        assert TRANSITIONS[state] == {S.UNINITIALIZED}


@pytest.mark.parametrize("seeds", [60, pytest.param(3000, marks=pytest.mark.soak)])
def test_random_workflows_end_as_the_definition_says(seeds: int, record_property: pytest.FixtureRequest) -> None:
    record_property("count", seeds)  # type: ignore[operator]
    for seed in range(seeds):
        dice = random.Random(seed)
        jobs: list[AJob] = []
        for index in range(dice.randint(1, 25)):
            needs = tuple(sorted(dice.sample(range(index), dice.randint(0, min(index, 4)))))
            jobs.append(AJob(needs, dice.random() < 0.7))
        codes = [0 if dice.random() < 0.8 else 1 for _ in jobs]
        graph = begun(jobs)
        out: list[int] = []
        order: list[int] = []
        while not graph.is_over:
            ready = graph.take_ready()
            for job in ready:
                graph.given_out(job)
            out += ready
            if dice.random() < 0.1:  # the program dies, and begins again from what was written
                graph = JobGraph(jobs, states=graph.states, failures=graph.failures)
            job = out.pop(dice.randrange(len(out)))
            graph.ended(job, codes[job])
            order.append(job)
        _check_end(jobs, codes, graph.states, order)


def _check_end(jobs: list[AJob], codes: list[int], states: list[JobState], order: list[int]) -> None:
    for index, job in enumerate(jobs):
        bad = any(states[need] is not S.COMPLETED for need in job.depends_on)
        if bad and job.cancel_on_blocking_job_failure:
            assert states[index] is S.CANCELLED
            assert index not in order
        else:
            assert states[index] is (S.FAILED if codes[index] else S.COMPLETED)
            assert order.count(index) == 1
            assert all(need not in order or order.index(need) < order.index(index) for need in job.depends_on), (
                "it ran before what it depends on"
            )
        assert states[index] in COMPLETE
