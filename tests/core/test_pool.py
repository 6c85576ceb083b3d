"""A manager's pool: what goes to which worker, and what the interchange is told."""

from __future__ import annotations

from typing import Any

import pytest

from pilotflow.core.pool import Give, Kill, Pool, Recall, Spawn, Worker
from pilotflow.messages.manager import (
    Cancel,
    CancelOutcome,
    Done,
    Function,
    Leaving,
    Register,
    Returned,
    Run,
    WorkerSetupFailed,
)
from pilotflow.messages.records import ForgetFunctions, Result, Status, Task
from pilotflow.resources import Capacity, Request


class Node:
    """A pool whose workers start at once; it keeps the orders."""

    def __init__(self, slots: int = 2, cpus: int | None = None, *, depth_limited: bool = False) -> None:
        self.pool = Pool(Capacity(1000 * (cpus or slots), slots=slots, depth_limited=depth_limited))
        self.workers: list[Worker] = []
        self.orders: list[Any] = []
        self.turn()

    def turn(self) -> list[Any]:
        orders = self.pool.take_orders(0.0)
        self.orders += orders
        for order in orders:
            if isinstance(order, Spawn):
                self.workers.append(order.worker)
                self.pool.on_ready(order.worker)
        return orders + (self.turn() if any(isinstance(order, Spawn) for order in orders) else [])

    def run(self, *tasks: Task) -> list[Any]:
        self.pool.on_run(Run(list(tasks)), [b"frame"] * sum(sum(t.layout) for t in tasks), 0)
        return self.turn()

    def end(self, worker: Worker, duration_us: int = 10_000_000, status: Status = Status.OK) -> list[Any]:
        task = worker.tasks[0]
        self.pool.on_result(worker, Result(task.id, task.attempt, status, b"", (), duration_us), (), 0.0)
        return self.turn()

    def warm(self, count: int = 50) -> None:
        """Let the pool learn that function 1 is short."""
        for number in range(count):
            self.run(task(10_000 + number))
            self.end(next(worker for worker in self.workers if worker.tasks), duration_us=100)
        self.said()
        self.orders.clear()

    def said(self) -> list[Any]:
        return self.pool.take_letter().messages

    def pipes(self) -> list[list[int]]:
        return [[task.id for task in worker.tasks] for worker in self.workers]


def task(id: int, attempt: int = 1, cls: int = 1, layout: tuple[int, ...] = ()) -> Task:
    return Task(id, attempt, 1, cls, b"", layout)


def given(orders: list[Any]) -> list[int]:
    return [order.task.id for order in orders if isinstance(order, Give)]


def test_tasks_of_two_cores_run_one_at_a_time_on_two_cores() -> None:
    node = Node(slots=2)
    node.pool.on_class(2, Request(cpus_milli=2000))
    assert given(node.run(task(1, cls=2), task(2, cls=2), task(3))) == [1]
    assert given(node.end(next(w for w in node.workers if w.tasks))) == [2]


def test_a_depth_limited_pool_ignores_requests() -> None:
    node = Node(slots=2, cpus=1, depth_limited=True)
    node.pool.on_class(2, Request(cpus_milli=64_000))
    assert len(given(node.run(task(1, cls=2), task(2, cls=2), task(3, cls=2)))) == 2


def test_a_class_that_is_said_again_with_other_needs_does_not_change_what_is_given_back() -> None:
    node = Node(slots=2)
    node.pool.on_class(2, Request(cpus_milli=2000))
    node.run(task(1, cls=2))
    node.pool.on_class(2, Request(cpus_milli=1))
    node.end(next(w for w in node.workers if w.tasks))
    assert node.pool.room.fits(2)


def test_functions_are_forgotten_but_those_of_tasks_that_are_here() -> None:
    node = Node(slots=2)
    for fn in (1, 2):
        node.pool.on_function(Function(fn, b"digest", b"body"))
    node.run(task(1))
    assert node.pool.on_forget(ForgetFunctions([1, 2, 3])) == {2}
    assert list(node.pool.functions) == [1]
    node.end(next(w for w in node.workers if w.tasks))
    assert node.pool.on_forget(ForgetFunctions([1])) == {1}


def test_workers_are_sent_short_tasks_ahead_evenly() -> None:
    node = Node(slots=2)
    node.warm()
    node.run(*(task(n) for n in range(20)))
    assert sorted(map(len, node.pipes())) in ([9, 11], [10, 10])


@pytest.mark.parametrize("first", [0, 1])
def test_workers_stay_where_they_were_whoever_of_them_ends_first(first: int) -> None:
    node = Node(slots=2)
    node.run(task(1), task(2))
    seats = [worker.seat for worker in node.workers]
    assert all(order.seat is not None for order in node.orders if isinstance(order, Give))
    for number in (first, 1 - first):
        node.end(node.workers[number])
    orders = node.run(task(3), task(4))
    assert [worker.seat for worker in node.workers] == seats
    assert [order.seat for order in orders if isinstance(order, Give)] == [None, None], "nobody is told again"


def test_a_dead_workers_seat_is_taken_by_another_one() -> None:
    node = Node(slots=1)
    node.run(task(1))
    node.pool.on_death(node.workers[0], "was killed", "here")
    node.turn()
    assert [order.seat is not None for order in node.run(task(2)) if isinstance(order, Give)] == [True]
    assert node.workers[1].tasks


def test_what_waits_behind_a_long_task_is_recalled_for_an_idle_worker() -> None:
    node = Node(slots=2)
    node.warm()
    node.run(*(task(n) for n in range(10)))
    slow, fast = node.workers[0], node.workers[1]
    orders: list[Any] = []
    behind = len(slow.tasks) - 1
    while fast.tasks:
        orders += node.end(fast, duration_us=100)
    assert [order.worker for order in orders if isinstance(order, Recall)] == [slow]
    node.pool.on_recalled(slow, [(t.id, t.attempt) for t in list(slow.tasks)[1:]])
    node.turn()
    assert len(slow.tasks) == 1
    assert len(fast.tasks) == behind > 0


def test_nothing_is_recalled_that_would_not_fit_on_the_idle_worker() -> None:
    node = Node(slots=4, cpus=4)
    node.pool.on_class(2, Request(cpus_milli=2000))
    node.warm()
    orders = node.run(*(task(n, cls=2) for n in range(10)))  # two run, two workers idle for ever
    assert not [order for order in orders if isinstance(order, Recall)]


def test_a_worker_whose_head_was_recalled_is_idle_again() -> None:
    node = Node(slots=1)
    node.run(task(1))
    (worker,) = node.workers
    node.pool.on_recalled(worker, [(1, 1)])
    assert given(node.turn()) == [1]
    assert not node.pool.room.fits(1)


@pytest.mark.parametrize("running", [True, False])
def test_a_cancel_ends_what_waits_and_asks_about_the_rest(running: bool) -> None:
    node = Node(slots=1)
    node.warm()
    node.pool.on_class(2, Request(cpus_milli=9000))
    node.run(task(1), task(2), task(3, cls=2))
    (worker,) = node.workers
    assert node.pipes() == [[1, 2]]
    node.pool.on_cancel(Cancel(7, [(3, 1), (2, 1), (1, 1), (4, 1), (1, 9)], running))
    outcomes = [m for m in node.said() if isinstance(m, CancelOutcome)]
    assert outcomes[0] == CancelOutcome(7, [(3, 1)], [4, 1])
    assert outcomes[1:] == ([] if running else [CancelOutcome(7, [], [1])])
    orders = node.turn()
    assert any(isinstance(order, Recall) for order in orders)
    assert any(isinstance(order, Kill) for order in orders) == running
    node.pool.on_recalled(worker, [(2, 1)])
    assert node.said() == [CancelOutcome(7, [(2, 1)], [])]
    if running:
        node.pool.on_death(worker, "was killed by signal 9 (SIGKILL)", "here")
        assert node.said() == [CancelOutcome(7, [(1, 1)], [])]
        assert not node.pool.held()


def test_a_task_sent_ahead_that_the_worker_has_begun_is_refused_or_killed() -> None:
    for running in (False, True):
        node = Node(slots=1)
        node.warm()
        node.run(task(1), task(2))
        (worker,) = node.workers
        node.pool.on_cancel(Cancel(7, [(2, 1)], running))
        node.turn()
        node.pool.on_recalled(worker, [])  # it has been read: task 1 must have ended
        assert node.said() == ([] if running else [CancelOutcome(7, [], [2])])
        orders = node.end(worker, duration_us=100)
        assert [type(order) for order in orders] == ([Kill] if running else [])


def test_a_cancelled_task_that_ends_before_the_kill_is_refused_and_its_result_delivered() -> None:
    node = Node(slots=1)
    node.run(task(1))
    (worker,) = node.workers
    node.pool.on_cancel(Cancel(7, [(1, 1)], running=True))
    node.turn()
    node.end(worker)
    refusal, done = node.said()
    assert refusal == CancelOutcome(7, [], [1])
    assert isinstance(done, Done)


def test_cancelling_ten_thousand_waiting_tasks_reads_the_queue_once() -> None:
    node = Node(slots=1)
    node.run(*(task(n) for n in range(10_000)))
    node.pool.on_cancel(Cancel(7, [(n, 1) for n in range(10_000)], running=False))
    ended = [m for m in node.said() if isinstance(m, CancelOutcome) and m.ended]
    assert len(ended[0].ended) == 9_999


def test_retracted_tasks_come_back_from_the_queue_and_from_workers_but_not_what_runs() -> None:
    node = Node(slots=1)
    node.warm()
    node.pool.on_class(2, Request(cpus_milli=9000))
    node.run(task(1), task(2), task(3, cls=2))
    (worker,) = node.workers
    node.pool.on_retract([(1, 1), (2, 1), (3, 1), (9, 9)])
    assert node.said() == [Returned([(3, 1)])]
    node.turn()
    node.pool.on_recalled(worker, [(2, 1)])
    assert node.said() == [Returned([(2, 1)])]
    assert node.pipes() == [[1]]


def test_a_dead_worker_costs_only_the_task_that_it_ran() -> None:
    node = Node(slots=1)
    node.warm()
    node.run(*(task(n) for n in range(1, 6)))
    (worker,) = node.workers
    node.pool.on_recalled(worker, [(n, 1) for n in range(2, 6)])
    node.pool.on_death(worker, "was killed by signal 11 (SIGSEGV)", "on n1 (block b1)", last_words="ends with:\nbad")
    (done,) = node.said()
    assert [(r.id, r.status, r.payload) for r in done.results] == [
        (1, Status.CRASHED, b"worker on n1 (block b1) was killed by signal 11 (SIGSEGV)\nends with:\nbad")
    ]
    assert given(node.turn())[:4] == [2, 3, 4, 5]


def test_a_new_attempt_at_a_task_survives_the_end_of_its_old_one() -> None:
    node = Node(slots=1)
    node.run(task(1, attempt=1, layout=(1, 0)))
    (worker,) = node.workers
    node.pool.on_cancel(Cancel(0, [(1, 1)], running=True))
    node.run(task(1, attempt=2, layout=(1, 0)))
    node.pool.on_death(worker, "was killed", "here")
    orders = [order for order in node.turn() if isinstance(order, Give)]
    assert [(order.task.attempt, list(order.frames)) for order in orders] == [(2, [b"frame"])]
    assert [t.attempt for t in node.pool.held()] == [2]


def register() -> Register:
    return Register("1", "3", "cpu", "b", "n", "s", 1, Capacity(1), None, [], [])


def test_a_registration_comes_first_and_lists_what_is_held_and_what_is_not_recorded() -> None:
    node = Node(slots=2)
    node.run(task(1), task(2), task(3), task(4))
    worker = next(w for w in node.workers if w.tasks)
    ended = worker.tasks[0].id
    node.end(worker)
    (done,) = node.said()
    node.pool.on_setup_failed(b"why")
    node.pool.on_cancel(Cancel(7, [(99, 1)], running=False))  # its answer is out of date when all is said anew
    node.pool.register(register())
    first, *rest = node.said()
    assert isinstance(first, Register)
    assert len(first.running) == 2
    assert len(first.leased) == 1
    assert ended not in {id for id, _ in (*first.running, *first.leased)}
    assert rest == [WorkerSetupFailed(b"why"), done]
    node.pool.on_recorded([done.seq, 99])
    node.pool.register(register())
    assert [type(m) for m in node.said()] == [Register]


def test_leaving_hands_everything_back_and_says_what_had_begun() -> None:
    node = Node(slots=1)
    node.run(task(1), task(2))
    node.pool.leave("its block's walltime is over")
    (leaving,) = node.said()
    assert leaving == Leaving("its block's walltime is over", [(1, 1)])
    assert not node.pool.busy


def test_a_draining_pool_returns_what_comes_late() -> None:
    node = Node(slots=1)
    node.run(task(1))
    node.pool.drain()
    node.run(task(2))
    assert node.said() == [Returned([(2, 1)])]
    assert not node.pool.drained
    node.end(node.workers[0])
    (done,) = node.said()
    assert not node.pool.drained
    node.pool.on_recorded([done.seq])
    assert node.pool.drained


@pytest.mark.parametrize("duration", [-1, -(2**63)])
def test_impossible_durations_are_taken_as_none(duration: int) -> None:
    node = Node(slots=1)
    node.run(task(1), task(2))
    node.end(node.workers[0], duration_us=duration)
    node.run(*(task(n) for n in range(3, 60)))
    assert node.workers[0].tasks


def test_a_worker_that_could_not_be_forked_is_tried_again_later_while_others_work() -> None:
    pool = Pool(Capacity(2000, slots=4))
    for order in pool.take_orders(0.0):
        assert isinstance(order, Spawn)
        pool.on_ready(order.worker)
    pool.on_class(1, Request(cpus_milli=500))
    pool.on_run(Run([task(id) for id in range(1, 5)]), (), 0)
    *gives, third = pool.take_orders(0.0)
    assert given(gives) == [1, 2]
    assert isinstance(third, Spawn)
    pool.on_unborn(third.worker, "could not be forked: Cannot allocate memory", 10.0)
    assert not pool.broken
    assert pool.take_orders(10.5) == []
    [again] = pool.take_orders(11.5)
    assert isinstance(again, Spawn)
    pool.on_ready(again.worker)
    assert given(pool.take_orders(11.6)) == [3]


def test_a_node_on_which_no_worker_can_be_forked_at_all_says_why() -> None:
    pool = Pool(Capacity(1000, slots=1))
    tries = 0
    while not pool.broken:
        spawned = [order.worker for order in pool.take_orders(0.0) if isinstance(order, Spawn)]
        assert len(spawned) == 1
        tries += 1
        pool.on_unborn(spawned[0], "could not be forked: Resource temporarily unavailable", 0.0)
    assert tries == 10
    assert pool.broken == (
        "10 workers in a row could not be had; the last could not be forked: Resource temporarily unavailable"
    )


def test_workers_that_die_in_a_row_while_they_are_set_up_break_the_executor_with_words() -> None:
    pool = Pool(Capacity(1000, slots=1))
    pool.on_run(Run([task(1)]), (), 0)
    for number in range(10):
        assert not pool.broken
        [spawned] = [order.worker for order in pool.take_orders(0.0) if isinstance(order, Spawn)]
        spawned.setting_up = True
        pool.on_ready(spawned)
        assert given(pool.take_orders(0.0)) == [1]  # waits in its link
        pool.on_recalled(spawned, [(1, 1)])
        pool.on_death(spawned, f"exited with code {number}", "on n1", last_words="its stderr ends with:\nno licence")
    [failed] = pool.take_letter().messages
    assert failed == WorkerSetupFailed(
        b"", "10 workers in a row on n1 died in it; the last exited with code 9\nits stderr ends with:\nno licence"
    )
    assert pool.broken.endswith("10 workers in a row on n1 died in it; the last exited with code 9")


def test_a_setup_that_goes_well_now_and_then_does_not_break_the_executor() -> None:
    pool = Pool(Capacity(1000, slots=1))
    for number in range(30):
        [spawned] = [order.worker for order in pool.take_orders(0.0) if isinstance(order, Spawn)]
        spawned.setting_up = True
        pool.on_ready(spawned)
        if number % 5 == 4:
            pool.on_set_up(spawned)
            pool.on_run(Run([task(number)]), (), 0)
            pool.take_orders(0.0)
        pool.on_death(spawned, "exited with code 1", "on n1")
        for result in [result for done in pool.take_letter().messages for result in done.results]:
            assert result.status is Status.CRASHED
    assert not pool.broken
