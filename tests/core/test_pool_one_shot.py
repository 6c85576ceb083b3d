"""A pool whose tasks are steps of the batch system: whole cores, nothing sent ahead, and time that runs from the start."""

from __future__ import annotations

from typing import Any

from pilotflow.core.pool import Give, Pool, Spawn, Warn, Worker
from pilotflow.messages.manager import Cancel, CancelOutcome, Done, Returned, Run, WorkerSetupFailed
from pilotflow.messages.records import Excess, Result, Status, Task, decode_excess
from pilotflow.resources import Capacity, Request


def pool_of(cpus: int, *requests: Request) -> Pool:
    pool = Pool(Capacity(1000 * cpus, slots=4 * cpus, gpus=("0", "1")), one_shot=True)
    for cls, request in enumerate(requests, 1):
        pool.on_class(cls, request)
    return pool


def turn(pool: Pool, now: float = 0.0) -> list[Worker]:
    """Carry out orders until there are none; the workers that were given a task."""
    given: list[Worker] = []
    while orders := pool.take_orders(now):
        for order in orders:
            if isinstance(order, Spawn):
                pool.on_ready(order.worker)
            elif isinstance(order, Give):
                pool.on_placed(order.worker)
                given.append(order.worker)
    return given


def send(pool: Pool, count: int, cls: int = 1) -> None:
    pool.on_run(Run([Task(number, 1, 1, cls, b"") for number in range(count)]), (), 0)


def results(pool: Pool) -> list[Result]:
    return [result for said in pool.take_letter().messages if isinstance(said, Done) for result in said.results]


def test_parts_of_cores_and_gpus_are_given_as_whole_ones() -> None:
    pool = pool_of(4, Request(cpus_milli=500), Request(cpus_milli=1500, gpus_milli=250))
    send(pool, 8)
    assert len(turn(pool)) == 4
    pool = pool_of(8, Request(cpus_milli=500), Request(cpus_milli=1500, gpus_milli=250))
    send(pool, 8, cls=2)
    assert len(turn(pool)) == 2, "there are two GPUs"
    assert pool.room.request(2) == Request(cpus_milli=2000, gpus_milli=1000)


def test_nothing_is_sent_ahead_however_short_the_tasks_are() -> None:
    pool = pool_of(1, Request())
    send(pool, 30)
    for _ in range(30):
        (worker,) = turn(pool)
        assert len(worker.tasks) == 1
        task = worker.tasks[0]
        pool.on_result(worker, Result(task.id, 1, Status.OK, b"", (), 10), (), 0.0)
    assert len(results(pool)) == 30


def test_the_runtime_of_a_task_begins_with_its_process() -> None:
    pool = pool_of(1, Request(runtime_s=5.0))
    send(pool, 1)
    (worker,) = turn(pool)
    pool.enforce_runtimes(100.0)
    assert not pool.take_orders(100.0), "the batch system has not started it yet"
    pool.on_begun(worker, 100.0)
    pool.enforce_runtimes(104.0)
    assert not pool.take_orders(104.0)
    pool.enforce_runtimes(105.0)
    assert pool.take_orders(105.0) == [Warn(worker)]


def test_what_the_batch_system_has_ended_for_its_time_or_memory_is_said_so() -> None:
    pool = pool_of(2, Request(runtime_s=5.0, memory_bytes=1000))
    send(pool, 2)
    first, second = turn(pool)
    pool.on_peak(first, 900)
    pool.on_death(first, "was killed", "on node1", out_of_memory=True)
    late = Excess("runtime", 5.0, 70.0, "a step on node1", by_system=True)
    pool.on_death(second, "was ended", "on node1", excess=late)
    said: list[Any] = [decode_excess(result.payload) for result in results(pool)]
    assert [(excess.kind, excess.taken, excess.by_system) for excess in said] == [
        ("memory", 900, True),
        ("runtime", 70.0, True),
    ]


def test_a_step_that_dies_while_it_is_set_up_costs_its_task_nothing_and_ten_of_them_break_the_executor() -> None:
    pool = pool_of(1, Request())
    send(pool, 1)
    for number in range(10):
        assert not pool.broken
        (worker,) = turn(pool)
        assert [task.attempt for task in worker.tasks] == [1], "the same attempt, which has not begun"
        worker.setting_up = True
        pool.on_death(worker, f"exited with code {number}", "on n1", last_words="ends with:\nno licence")
    (said,) = pool.take_letter().messages
    assert said == WorkerSetupFailed(
        b"", "10 workers in a row on n1 died in it; the last exited with code 9\nends with:\nno licence"
    )
    assert pool.broken.endswith("the last exited with code 9")


def test_a_step_that_is_cancelled_while_it_is_set_up_is_cancelled_and_counts_as_no_failure() -> None:
    pool = pool_of(1, Request())
    send(pool, 1)
    for _ in range(12):
        (worker,) = turn(pool)
        worker.setting_up = True
        (task,) = worker.tasks
        pool.on_cancel(Cancel(7, [(task.id, task.attempt)], running=True))
        pool.on_death(worker, "killed by signal 9", "on n1")
        assert pool.take_letter().messages == [CancelOutcome(7, [(task.id, task.attempt)], [])]
        send(pool, 1)
    assert not pool.broken


def test_what_a_dead_worker_had_not_begun_is_handed_back_by_a_pool_that_takes_no_more_work() -> None:
    pool = pool_of(1, Request())
    send(pool, 1)
    (worker,) = turn(pool)
    worker.setting_up = True
    pool.drain()
    pool.on_death(worker, "exited with code 7", "on n1")
    assert pool.take_letter().messages == [Returned([(0, 1)])]
    assert pool.drained
