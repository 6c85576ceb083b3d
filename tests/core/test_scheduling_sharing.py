"""The rules of placement, one by one: balance, modes, bindings, several nodes, and what is sent ahead."""

from __future__ import annotations

from pilotflow.core.ahead import PREFILL_MAX
from pilotflow.core.scheduler import REBALANCE_MAX
from pilotflow.resources import Request
from tests.core.scheduling_desk import SHORT_US, Desk

GIB = 1 << 30


# ---- balance ------------------------------------------------------------------------------------


def test_many_tasks_that_want_memory_leave_room_for_those_that_want_cores() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000, memory_bytes=4 * GIB))
    desk.cls(2, Request(cpus_milli=3000, memory_bytes=GIB))
    manager = desk.manager(16, memory_bytes=20 * GIB)
    desk.submit(100, cls=1)
    desk.submit(100, cls=2)
    desk.step()
    assert manager.active == {1: 4, 2: 4}  # all cores and all memory, not 5 cores and all memory


def test_a_node_that_lost_its_balance_finds_it_again() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000, memory_bytes=4 * GIB))
    desk.cls(2, Request(cpus_milli=3000, memory_bytes=GIB))
    manager = desk.manager(16, memory_bytes=20 * GIB)
    desk.submit(100, cls=1)
    desk.step()
    assert manager.active == {1: 5}
    desk.submit(100, cls=2)
    desk.step()
    desk.end(1)
    desk.step()
    assert manager.active == {1: 4, 2: 4}
    desk.end(2)
    desk.step()
    assert manager.active == {1: 4, 2: 4}


def test_a_few_tasks_start_strictly_in_their_order() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000, memory_bytes=4 * GIB))
    desk.cls(2, Request(cpus_milli=3000, memory_bytes=GIB))
    desk.manager(8, memory_bytes=16 * GIB)
    desk.submit(4, cls=1)
    desk.submit(4, cls=2)
    assert desk.step() == {1: [1, 2, 3, 4]}


def test_balance_never_passes_a_higher_priority() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000, memory_bytes=4 * GIB, priority=1))
    desk.cls(2, Request(cpus_milli=3000, memory_bytes=GIB))
    desk.manager(8, memory_bytes=16 * GIB)
    desk.submit(100, cls=1)
    desk.submit(100, cls=2)
    assert desk.step() == {1: [1, 2, 3, 4]}


# ---- depth-limited managers ---------------------------------------------------------------------


def test_a_depth_limited_manager_runs_so_many_tasks_whatever_they_ask_for() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=64_000, memory_bytes=1 << 50, gpus_milli=8000, resources=(("licence", 9),)))
    desk.manager(3, cpus=1, depth_limited=True)
    desk.submit(5)
    assert desk.step() == {1: [1, 2, 3]}
    desk.end(2)
    assert desk.step() == {1: [4]}


def test_managers_of_both_modes_serve_one_queue_from_its_two_ends() -> None:
    desk = Desk()
    for id in range(1, 7):
        desk.cls(id, Request(memory_bytes=id * GIB))
        desk.submit(1, cls=id)
    desk.manager(2, memory_bytes=64 * GIB)
    desk.manager(2, depth_limited=True)
    assert desk.step() == {1: [6, 5], 2: [1, 2]}
    desk.end(1, 6)
    assert desk.step() == {1: [4], 2: [3]}


def test_binding_and_walltime_hold_for_a_depth_limited_manager_too() -> None:
    desk = Desk()
    desk.cls(1, executors=("b",))
    desk.cls(2, Request(runtime_s=600.0))
    desk.cls(3, Request(runtime_s=60.0))
    desk.cls(4, Request(num_nodes=2))
    desk.manager(8, executor="a", depth_limited=True, block="x", left_s=300.0)
    desk.manager(8, executor="a", depth_limited=True, block="x", left_s=300.0)
    for cls in (1, 2, 3, 4):
        desk.submit(1, cls=cls)
    assert desk.step() == {1: [3]}


# ---- bindings -----------------------------------------------------------------------------------


def test_bound_tasks_run_where_they_are_bound_and_others_anywhere() -> None:
    desk = Desk()
    desk.cls(1, executors=("a",))
    desk.cls(2, executors=("a", "b"))
    desk.cls(3)
    for executor in ("a", "b", "c"):
        desk.manager(2, executor=executor)
    desk.submit(3, cls=1)
    desk.submit(2, cls=2)
    desk.submit(2, cls=3)
    assert desk.step() == {1: [1, 2], 2: [4, 5], 3: [6, 7]}
    desk.end(6, 7)
    assert desk.step() == {}
    desk.end(5)
    assert desk.step() == {}
    desk.end(2)
    assert desk.step() == {1: [3]}


def test_bound_and_unbound_work_of_one_rank_is_first_come_first_served() -> None:
    desk = Desk()
    desk.cls(1, executors=("a",))
    desk.cls(2)
    for cls in (2, 1, 1, 2, 2, 1):
        desk.submit(1, cls=cls)
    desk.manager(2, executor="a")
    desk.manager(1, executor="b")
    assert desk.step() == {1: [1, 2], 2: [4]}
    desk.end(1)
    assert desk.step() == {1: [3]}
    desk.end(4)
    assert desk.step() == {2: [5]}


# ---- several nodes ------------------------------------------------------------------------------


def test_a_multi_node_task_has_whole_nodes_of_one_block_and_nothing_runs_beside_it() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000, num_nodes=2))
    desk.cls(2)
    desk.manager(4, block="a")
    desk.manager(4, block="b")
    desk.manager(4, block="b")
    desk.manager(4, block="b")
    desk.submit(1, cls=1)
    desk.submit(20, cls=2)
    assert desk.step() == {1: [2, 3, 4, 5], 2: [1], 4: [6, 7, 8, 9]}
    assert [manager.id for manager in desk.scheduler.gangs.by_task[1].managers] == [2, 3]
    desk.end(1)
    assert desk.step() == {2: [10, 11, 12, 13], 3: [14, 15, 16, 17]}
    assert not desk.scheduler.gangs.by_task


def test_a_multi_node_task_takes_nodes_that_have_what_it_needs_on_each() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=2000, gpus_milli=1000, num_nodes=2))
    desk.manager(4, block="a", gpus=("0",))
    desk.manager(4, block="a")
    desk.manager(1, block="a", gpus=("0",))
    desk.submit(1)
    assert desk.step() == {}
    desk.manager(4, block="a", gpus=("0",))
    assert desk.step() == {1: [1]}
    assert [manager.id for manager in desk.scheduler.gangs.by_task[1].managers] == [1, 4]


def test_a_multi_node_task_waits_until_its_block_is_complete() -> None:
    desk = Desk()
    desk.cls(1, Request(num_nodes=3))
    desk.submit(1)
    for _ in range(2):
        desk.manager(block="a")
        desk.manager(block="b")
        assert desk.step() == {}
    desk.manager(block="b")
    assert desk.step() == {2: [1]}
    assert [manager.id for manager in desk.scheduler.gangs.by_task[1].managers] == [2, 4, 5]


def test_nodes_are_kept_free_for_a_multi_node_task_as_they_drain() -> None:
    desk = Desk()
    desk.cls(1, Request(num_nodes=2))
    desk.cls(2)
    for _ in range(3):
        desk.manager(2, block="a")
    desk.submit(6, cls=2)
    desk.step()
    desk.submit(1, cls=1)
    desk.submit(50, cls=2)
    desk.step()
    desk.now = 10.0
    desk.end(3)
    assert desk.step() == {}
    desk.end(1, 5)
    assert desk.step() == {3: [8]}  # the first and the second node are kept free
    desk.end(2)
    assert desk.step() == {}
    desk.end(6)
    assert desk.step() == {3: [9]}
    desk.end(4)
    assert desk.step() == {1: [7]}
    desk.end(7)
    assert desk.step() == {1: [10, 11], 2: [12, 13]}


def test_multi_node_tasks_need_time_on_all_their_nodes() -> None:
    desk = Desk()
    desk.cls(1, Request(num_nodes=2, runtime_s=600.0))
    desk.manager(block="a", left_s=3600.0)
    short = desk.manager(block="a", left_s=300.0)
    desk.submit(1)
    assert desk.step() == {}
    short.set_time_left(3600.0, 0.0)
    desk.scheduler.reopen(short)
    assert desk.step() == {1: [1]}


# ---- sent ahead ---------------------------------------------------------------------------------


def primed(desk: Desk, slots: int = 1) -> None:
    """A manager, and a class whose tasks are known to be short."""
    desk.cls(1)
    desk.manager(slots)
    desk.submit(1)
    desk.step()
    desk.end(1, duration_us=SHORT_US)


def test_more_of_what_a_manager_runs_is_sent_ahead_and_nothing_else() -> None:
    desk = Desk()
    primed(desk, slots=2)
    desk.cls(2)
    desk.submit(3, cls=1)
    desk.submit(3, cls=2, fn=2)
    desk.step()
    manager = desk.scheduler.managers[1]
    assert manager.active == {1: 2}
    assert manager.prefilled == {1: 1}


def test_at_most_fifty_milliseconds_of_work_are_sent_ahead_for_each_slot() -> None:
    desk = Desk()
    primed(desk, slots=2)
    desk.submit(10_000)
    desk.step()
    manager = desk.scheduler.managers[1]
    assert 2 * 45 <= manager.prefilled[1] <= 2 * 50
    assert manager.prefilled[1] <= 2 * PREFILL_MAX


def test_tasks_with_gpus_are_not_sent_ahead() -> None:
    desk = Desk()
    desk.cls(1, Request(gpus_milli=500))
    manager = desk.manager(8, gpus=("a",))
    desk.submit(1)
    desk.step()
    desk.end(1, duration_us=SHORT_US)
    desk.submit(100)
    assert desk.step() == {1: [2, 3]}
    assert not manager.prefilled


def test_tasks_sent_ahead_are_asked_back_when_work_of_a_higher_priority_comes() -> None:
    desk = Desk()
    primed(desk)
    desk.submit(20)
    desk.step()
    assert desk.scheduler.rebalance(1.0) == {}
    desk.cls(2, Request(priority=1))
    desk.submit(1, cls=2)
    assert desk.step() == {}
    back = desk.scheduler.rebalance(2.0)[1]
    assert [task.id for task in back] == list(range(21, 2, -1))
    for task in back:
        desk.scheduler.release(desk.scheduler.managers[1], task)
        desk.scheduler.requeue(task)
    desk.end(2, duration_us=SHORT_US)
    assert desk.step() == {1: [22]}


def test_nothing_is_sent_ahead_while_work_of_a_higher_priority_waits() -> None:
    desk = Desk()
    primed(desk)
    desk.cls(2, Request(cpus_milli=1000, priority=1))
    desk.submit(2, cls=2, fn=2)
    desk.submit(20, cls=1)
    assert desk.step() == {1: [2]}
    desk.end(2)
    assert desk.step() == {1: [3]}
    desk.end(3)
    assert desk.step()[1][:2] == [4, 5]


def test_no_more_is_asked_back_at_once_than_can_be_found_room_for() -> None:
    desk = Desk()
    primed(desk, slots=64)
    desk.submit(64 * 60)
    desk.step()
    desk.cls(2, Request(priority=1))
    desk.submit(1, cls=2)
    desk.step()
    assert len(desk.scheduler.rebalance(1.0)[1]) == REBALANCE_MAX


# ---- who takes nothing, and what nobody takes ---------------------------------------------------


def test_a_manager_that_drains_takes_nothing_and_its_shares_go_to_nobody() -> None:
    desk = Desk()
    desk.cls()
    manager = desk.manager(2)
    desk.submit(4)
    desk.step()
    manager.closed = True
    desk.end(1)
    desk.submit(1)
    assert desk.step() == {}


def test_what_nobody_can_run_starts_as_soon_as_somebody_comes_who_can() -> None:
    desk = Desk()
    for id in range(1, 300):
        desk.cls(id, Request(memory_bytes=id * GIB, priority=id))
        desk.submit(1, cls=id)
    desk.manager(400, memory_bytes=10 * GIB)
    assert desk.step() == {1: [10]}
    desk.manager(400, memory_bytes=100 * GIB)
    assert desk.step() == {2: [100]}
    desk.manager(400, executor="other", memory_bytes=1000 * GIB)
    assert desk.step() == {3: [299, 298, 297, 106]}


def test_a_lost_managers_tasks_run_elsewhere_before_those_that_never_ran() -> None:
    desk = Desk()
    desk.cls()
    first, _ = desk.manager(2), desk.manager(2)
    desk.submit(6)
    desk.step()
    for task in reversed(desk.scheduler.remove_manager(first)):
        desk.scheduler.requeue(task)
    desk.end(3, 4)
    assert desk.step() == {2: [1, 2]}
    desk.end(1, 2)
    assert desk.step() == {2: [5, 6]}
