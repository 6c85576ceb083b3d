"""What a scheduler could get wrong, and this one must not: shares that leak, nodes kept for nobody, work forgotten."""

from __future__ import annotations

from pilotflow.core.scheduler import PREFILL_MAX
from pilotflow.resources import Request
from tests.core.scheduling_desk import SHORT_US, Desk

MPI = Request(num_nodes=2)


# ---- multi-node tasks ---------------------------------------------------------------------------


def test_when_the_leader_of_a_multi_node_task_is_lost_the_other_nodes_are_free_again() -> None:
    desk = Desk()
    desk.cls(1, MPI)
    desk.cls(2)
    leader, _ = desk.manager(block="b"), desk.manager(block="b")
    desk.submit(1)
    assert desk.step() == {1: [1]}
    held = desk.scheduler.remove_manager(leader)
    assert [task.id for task in held] == [1]
    desk.submit(1, cls=2)
    assert desk.step() == {2: [2]}
    assert not desk.scheduler.gangs.by_task


def test_when_a_member_of_a_multi_node_task_is_lost_so_is_the_attempt() -> None:
    desk = Desk()
    desk.cls(1, MPI)
    desk.cls(2)
    leader, member = desk.manager(block="b"), desk.manager(block="b")
    desk.submit(1)
    assert desk.step() == {1: [1]}
    held = desk.scheduler.remove_manager(member)
    assert [task.id for task in held] == [1]
    assert not leader.leases
    assert not desk.scheduler.gangs.by_task
    desk.submit(1, cls=2)
    assert desk.step() == {1: [2]}


def test_a_multi_node_task_that_ran_before_a_restart_has_its_nodes_still() -> None:
    desk = Desk()
    desk.cls(1, MPI)
    desk.cls(2)
    leader, _ = desk.manager(4, block="b"), desk.manager(4, block="b")
    task = desk.submit(1)[0]
    desk.scheduler.take_waiting(desk.scheduler.classes[1])
    desk.scheduler.adopt(leader, task, 0.0)
    desk.manager(4, block="b")  # it may be one of its nodes
    desk.submit(9, cls=2)
    assert desk.step() == {}
    assert task.id in desk.scheduler.gangs.by_task
    desk.end(task.id)
    assert desk.step() == {1: [2, 3, 4, 5], 2: [6, 7, 8, 9], 3: [10]}


def test_a_node_given_back_by_a_small_multi_node_task_waits_for_a_larger_one() -> None:
    desk = Desk()
    desk.cls(1, MPI)
    desk.cls(2, Request(num_nodes=4))
    desk.cls(3)
    for _ in range(4):
        desk.manager(block="b")
    desk.submit(2, cls=1)
    desk.submit(1, cls=2)
    desk.step()
    desk.submit(10, cls=3)
    assert desk.step() == {}
    desk.now = 10.0
    desk.end(1)
    assert desk.step() == {}  # kept for the task on four nodes, though two are another's still
    desk.now = 20.0
    desk.end(2)
    assert desk.step() == {1: [3]}


def test_what_a_manager_held_before_it_was_part_of_a_multi_node_task_is_given_back() -> None:
    desk = Desk()
    desk.cls(1, MPI)
    desk.cls(2)
    leader, _ = desk.manager(2, block="b"), desk.manager(2, block="b")
    stray = desk.submit(1, cls=2)[0]
    desk.scheduler.take_waiting(desk.scheduler.classes[2])
    desk.submit(1, cls=1)
    desk.step()
    desk.scheduler.adopt(leader, stray, 0.0)  # it has come to light late
    desk.end(stray.id)
    assert leader.active == leader.prefilled == {}
    desk.end(2)
    desk.submit(4, cls=2)
    assert desk.step() == {1: [3, 4], 2: [5, 6]}


# ---- what a manager brings with it --------------------------------------------------------------


def test_a_task_that_runs_holds_its_share_even_if_it_could_not_begin_any_more() -> None:
    desk = Desk()
    desk.cls(1, Request(runtime_s=3600.0))
    desk.cls(2, Request(runtime_s=60.0))
    manager = desk.manager(left_s=1000.0)
    running = desk.submit(1)[0]
    desk.scheduler.take_waiting(desk.scheduler.classes[1])
    desk.scheduler.adopt(manager, running, 0.0)
    desk.submit(1, cls=2)
    assert desk.step() == {}


def test_tasks_that_a_manager_holds_beyond_what_it_has_come_before_new_ones() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=2000))
    desk.cls(2, Request(cpus_milli=1000, priority=1))
    manager = desk.manager(2)
    tasks = desk.submit(2)
    desk.scheduler.take_waiting(desk.scheduler.classes[1])
    for task in tasks:
        desk.scheduler.adopt(manager, task, 0.0)
    desk.submit(2, cls=2)
    assert desk.step() == {}
    desk.end(1)
    assert desk.step() == {}  # the manager starts the other one that it has
    desk.end(2)
    assert desk.step() == {1: [3, 4]}


# ---- shares of GPUs -----------------------------------------------------------------------------


def test_the_gpu_that_is_free_is_the_one_whose_tasks_have_ended() -> None:
    desk = Desk()
    desk.cls(1, Request(gpus_milli=500))
    desk.cls(2, Request(gpus_milli=1000, priority=1))
    desk.manager(8, gpus=("0", "1"))
    desk.submit(4)
    assert desk.step() == {1: [1, 2, 3, 4]}  # 1 and 2 share the first
    desk.submit(1, cls=2)
    desk.end(1, 3)
    assert desk.step() == {}  # half of each is free
    desk.end(2)
    assert desk.step() == {1: [5]}


def test_one_and_a_half_gpus_are_two() -> None:
    desk = Desk()
    desk.cls(1, Request(gpus_milli=1500))
    desk.manager(8, gpus=("0", "1", "2"))
    desk.submit(2)
    assert desk.step() == {1: [1]}


# ---- nodes that are kept free -------------------------------------------------------------------


def test_what_a_reservation_kept_free_is_offered_at_once_when_it_ends() -> None:
    desk = Desk()
    wide = desk.cls(1, Request(cpus_milli=3000, priority=1))
    desk.cls(2)
    desk.manager(4)
    desk.manager(4)
    desk.submit(8, cls=2)
    desk.step()
    desk.submit(1, cls=1)
    desk.submit(8, cls=2)
    desk.step()
    desk.now = 10.0
    desk.end(1, 2)
    assert desk.step() == {}
    assert [manager.id for manager in wide.reserved] == [1]
    desk.end(3, 4, 5)
    assert desk.step() == {1: [9, 10], 2: [11]}
    assert not desk.scheduler.has_changed


def test_small_tasks_that_trickle_in_do_not_starve_a_wide_one() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=4000))
    desk.cls(2)
    desk.manager(4)
    desk.submit(4, cls=2)
    desk.step()
    desk.submit(1, cls=1)
    running = [1, 2, 3, 4]
    for _ in range(20):  # each ends before the next one comes
        desk.now += 1.0
        if running:
            desk.end(running.pop(0))
        if 5 in desk.step().get(1, []):
            return
        small = desk.submit(1, cls=2)[0].id
        if small in desk.step().get(1, []):
            running.append(small)
    raise AssertionError("the wide task never ran")


def test_there_is_one_reservation_at_a_time_for_work_that_may_run_in_the_same_places() -> None:
    desk = Desk()
    for id in range(1, 6):
        desk.cls(id, Request(cpus_milli=4000, priority=id))
    desk.cls(9)
    for _ in range(5):
        desk.manager(4)
    desk.submit(20, cls=9)
    desk.step()
    desk.submit(100, cls=9)
    for id in range(1, 6):  # each is more urgent than those before
        desk.submit(1, cls=id)
        desk.step()
        desk.now += 10.0
        desk.end(4 * id - 3)
        desk.step()
    kept = [manager for manager in desk.scheduler.managers.values() if manager.reserved is not None]
    assert [manager.reserved.cls.id for manager in kept if manager.reserved] == [5]


# ---- work that nobody can do now ----------------------------------------------------------------


def test_urgent_work_without_a_place_to_run_does_not_stop_others_from_being_sent_ahead() -> None:
    desk = Desk()
    desk.cls(1)
    desk.cls(2, Request(priority=9), executors=("none",))
    manager = desk.manager(2)
    desk.submit(1)
    desk.step()
    desk.submit(1, cls=2)
    desk.end(1, duration_us=100)
    desk.submit(1000)
    desk.step()
    assert len(manager.leases) == 2 + 2 * PREFILL_MAX
    assert desk.scheduler.rebalance(0.0) == {}


def test_urgent_work_of_one_executor_does_not_stop_work_on_another_from_being_sent_ahead() -> None:
    desk = Desk()
    desk.cls(1, executors=("a",))
    desk.cls(2, Request(priority=9), executors=("b",))
    first, _ = desk.manager(2, executor="a"), desk.manager(1, executor="b")
    desk.submit(1)
    desk.submit(2, cls=2)
    desk.step()
    desk.end(1, duration_us=100)
    desk.submit(1000)
    desk.step()
    assert len(first.leases) == 2 + 2 * PREFILL_MAX
    assert desk.scheduler.rebalance(0.0) == {}


def test_cancelled_urgent_work_does_not_ask_back_what_was_sent_ahead() -> None:
    desk = Desk()
    desk.cls(1)
    desk.cls(2, Request(priority=9))
    manager = desk.manager(2)
    desk.submit(1)
    desk.step()
    desk.end(1, duration_us=SHORT_US)
    desk.submit(1000)
    desk.step()
    urgent = desk.submit(1, cls=2)[0]
    desk.step()
    assert desk.scheduler.rebalance(0.0)[manager.id]
    desk.scheduler.forget(urgent)
    assert desk.scheduler.rebalance(0.0) == {}


# ---- order --------------------------------------------------------------------------------------


def test_a_depth_limited_manager_takes_the_most_urgent_of_the_small() -> None:
    desk = Desk()
    desk.cls(1, Request(memory_bytes=100))
    desk.cls(2, Request(memory_bytes=200))
    desk.cls(3, Request(memory_bytes=300, priority=1))
    for cls in (2, 1, 3, 1):
        desk.submit(1, cls=cls)
    manager = desk.manager(1, depth_limited=True)
    order = []
    for _ in range(4):
        (ids,) = desk.step().values()
        order += ids
        desk.end(*ids)
    assert order == [3, 2, 4, 1]
    assert not manager.leases


def test_classes_that_are_equal_in_rank_are_served_first_come_first_served() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000))
    desk.cls(2, Request(cpus_milli=999))
    for cls in (1, 2, 2, 1, 2, 1, 1):
        desk.submit(1, cls=cls)
    desk.manager(3)
    assert desk.step() == {1: [1, 2, 3]}
    desk.manager(2)
    assert desk.step() == {2: [4, 5]}
    desk.end(2, 3)
    assert desk.step() == {1: [6, 7]}


def test_a_share_goes_to_an_older_task_of_a_class_of_equal_rank() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000))
    desk.cls(2, Request(cpus_milli=999))
    desk.manager(4)
    desk.submit(4)
    desk.step()
    for cls in (1, 2, 1, 2):
        desk.submit(1, cls=cls)
    desk.end(1, 2)
    assert desk.step() == {1: [5, 6]}


def test_a_class_whose_last_waiting_tasks_were_cancelled_is_served_when_it_has_new_ones() -> None:
    desk = Desk()
    desk.cls()
    desk.cls(2)
    manager = desk.manager()
    tasks = desk.submit(3)
    desk.submit(1, cls=2)
    for task in tasks[1:]:
        desk.scheduler.forget(task)
    assert desk.step() == {1: [1]}
    desk.submit(1)
    desk.end(1)
    assert desk.step() == {1: [4]}
    desk.end(4)
    assert desk.step() == {1: [5]}
    assert manager.leases == {5}


def test_a_class_that_let_an_older_task_of_another_pass_has_its_turn_on_the_same_manager() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1000))
    desk.cls(2, Request(cpus_milli=999))
    manager = desk.manager(8, left_s=10.0)
    for cls in (1, 2, 1, 2, 1, 1):
        desk.submit(1, cls=cls)
    assert desk.step() == {1: [1, 2, 3, 4, 5, 6]}
    manager.closed = True
    for cls in (1, 2, 1, 2, 1):
        desk.submit(1, cls=cls)
    assert desk.step() == {}
    desk.manager(4)
    assert desk.step() == {2: [7, 8, 9, 10]}


def test_a_node_kept_free_for_a_task_is_given_to_it_when_older_tasks_of_its_rank_wait_too() -> None:
    desk = Desk()
    desk.cls(1, executors=("cpu",))
    desk.cls(2)
    desk.manager(1)
    desk.submit(3, cls=1)
    desk.submit(1, cls=2)
    got = [desk.step()]
    for id in (1, 2, 3):
        desk.now += 10.0
        desk.end(id)
        got.append(desk.step())
    assert got == [{1: [1]}, {1: [2]}, {1: [3]}, {1: [4]}]


def test_many_new_tasks_of_a_kind_take_all_the_room_that_there_is() -> None:
    desk = Desk()
    desk.cls(1)
    desk.cls(2, executors=("none",))
    desk.manager(2, memory_bytes=1 << 30)
    desk.step()
    desk.submit(20)
    desk.submit(1, cls=2)
    assert desk.step() == {1: [1, 2]}


def test_a_multi_node_task_that_comes_while_one_of_its_nodes_is_kept_free_has_its_turn() -> None:
    desk = Desk()
    desk.cls(1)
    desk.cls(2, MPI)
    desk.manager(block="b")
    desk.manager(block="b")
    desk.submit(3)
    desk.step()
    desk.now = 5.0
    desk.submit(1, cls=2)
    assert desk.step() == {}
    assert desk.scheduler.classes[1].reserved
    desk.end(1)
    assert desk.step() == {1: [3]}
    desk.end(2, 3)
    assert desk.step() == {1: [4]}


def test_nothing_is_kept_free_for_tasks_that_run_one_after_the_other_from_those_sent_ahead() -> None:
    desk = Desk()
    desk.cls()
    manager = desk.manager()
    desk.submit(1)
    desk.step()
    desk.end(1, duration_us=50_000)
    desk.submit(43)
    desk.step()
    for id in range(2, 45):
        desk.now += 0.05
        desk.end(id, duration_us=50_000)
        desk.step()
        assert manager.reserved is None
        assert not desk.scheduler.has_changed
