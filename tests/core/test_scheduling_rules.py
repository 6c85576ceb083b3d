"""The rules of placement, one by one: small clusters, a clock set by hand, and exactly who goes where."""

from __future__ import annotations

import pytest

from pilotflow.core.scheduler import PATIENCE_S
from pilotflow.resources import Request, SortMethod
from tests.core.scheduling_desk import Desk

GIB = 1 << 30


# ---- what fits ----------------------------------------------------------------------------------


def test_parts_of_cores_add_up_to_whole_ones() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=300))
    desk.manager(8, cpus=1)
    desk.submit(5)
    assert desk.step() == {1: [1, 2, 3]}
    desk.end(2)
    assert desk.step() == {1: [4]}


def test_a_task_runs_on_one_node_whatever_several_have_together() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=3000, memory_bytes=3 * GIB))
    for _ in range(4):
        desk.manager(2, memory_bytes=2 * GIB)
    desk.manager(4, memory_bytes=2 * GIB)
    desk.manager(2, memory_bytes=4 * GIB)
    desk.submit(1)
    assert desk.step() == {}
    desk.manager(4, memory_bytes=4 * GIB)
    assert desk.step() == {7: [1]}


def test_memory_that_nobody_knows_limits_nothing() -> None:
    desk = Desk()
    desk.cls(1, Request(memory_bytes=1 << 50))
    desk.manager(2)
    desk.submit(3)
    assert desk.step() == {1: [1, 2]}


def test_no_more_tasks_run_than_the_manager_has_slots() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=1))
    desk.manager(3, cpus=64)
    desk.submit(5)
    assert desk.step() == {1: [1, 2, 3]}


def test_consumables_are_counted_on_the_node_that_has_them() -> None:
    desk = Desk()
    desk.cls(1, Request(resources=(("licence", 2),)))
    desk.manager(8)
    desk.manager(8, resources=(("licence", 5), ("tape", 1)))
    desk.submit(3)
    assert desk.step() == {2: [1, 2]}
    desk.end(1)
    assert desk.step() == {2: [3]}


def test_parts_of_gpus_are_parts_of_one() -> None:
    desk = Desk()
    desk.cls(1, Request(gpus_milli=600))
    desk.cls(2, Request(gpus_milli=400))
    desk.cls(3, Request(gpus_milli=1000))
    manager = desk.manager(8, gpus=("a", "b"))
    desk.submit(3, cls=1)  # 0.8 GPUs are left over, and no two halves of them belong together
    assert desk.step() == {1: [1, 2]}
    desk.submit(3, cls=2)
    assert desk.step() == {1: [4, 5]}
    assert manager.free_gpus == [0, 0]
    desk.end(1, 5)
    desk.submit(1, cls=3)
    assert desk.step() == {1: [3, 6]}


def test_a_part_of_a_gpu_goes_to_one_that_is_shared_already() -> None:
    desk = Desk()
    desk.cls(1, Request(gpus_milli=250))
    desk.cls(2, Request(gpus_milli=2000))
    desk.manager(16, gpus=("a", "b", "c"))
    desk.submit(3, cls=1)
    desk.submit(1, cls=2)
    assert desk.step() == {1: [4, 1, 2, 3]}


def test_several_gpus_are_whole_ones() -> None:
    desk = Desk()
    desk.cls(1, Request(gpus_milli=500))
    desk.cls(2, Request(gpus_milli=2000, priority=1))
    desk.manager(8, gpus=("a", "b"))
    desk.submit(1, cls=1)
    desk.step()
    desk.submit(1, cls=2)
    assert desk.step() == {}
    desk.end(1)
    assert desk.step() == {1: [2]}


# ---- time ---------------------------------------------------------------------------------------


def test_a_task_starts_where_its_runtime_fits_into_what_is_left_of_the_block() -> None:
    desk = Desk()
    desk.cls(1, Request(runtime_s=600.0))
    desk.manager(4, left_s=599.0)
    desk.manager(1, left_s=600.0)
    desk.manager(1, left_s=3600.0)
    desk.submit(3)
    assert desk.step() == {2: [1], 3: [2]}
    desk.now = 3000.0
    desk.end(2)
    assert desk.step() == {3: [3]}
    desk.submit(1)
    desk.end(3)
    desk.now = 3000.1
    assert desk.step() == {}


@pytest.mark.parametrize(
    ("walltime_s", "min_time_s", "last_start_s"),
    [(86_400.0, None, 86_100.0), (1000.0, None, 900.0), (86_400.0, 3600.0, 82_800.0), (1000.0, 0.0, 1000.0)],
)
def test_without_a_runtime_a_task_starts_while_five_minutes_a_tenth_of_a_short_block_or_what_is_said_are_left(
    walltime_s: float, min_time_s: float | None, last_start_s: float
) -> None:
    desk = Desk()
    desk.cls()
    desk.manager(1, left_s=walltime_s, min_time_s=min_time_s)
    desk.now = last_start_s
    desk.submit(2)
    assert desk.step() == {1: [1]}
    desk.now += 0.01
    desk.end(1)
    assert desk.step() == {}


def test_a_block_that_gets_more_time_takes_what_it_could_not() -> None:
    desk = Desk()
    desk.cls(1, Request(runtime_s=500.0))
    manager = desk.manager(1, left_s=400.0)
    desk.submit(1)
    assert desk.step() == {}
    assert manager.set_time_left(600.0, 0.0)
    desk.scheduler.reopen(manager)
    assert desk.step() == {1: [1]}


# ---- order --------------------------------------------------------------------------------------

A, B, C, D = Request(gpus_milli=1000), Request(runtime_s=600.0), Request(memory_bytes=2 * GIB), Request(priority=1)
E = Request(runtime_s=300.0, memory_bytes=GIB)


@pytest.mark.parametrize(
    ("method", "order"),
    [
        (SortMethod.GPUS_RUNTIME_MEMORY, [4, 1, 2, 5, 3]),
        (SortMethod.GPUS_MEMORY_RUNTIME, [4, 1, 3, 5, 2]),
        (SortMethod.NONE, [4, 1, 2, 3, 5]),
    ],
)
def test_tasks_start_by_priority_then_by_the_sort_method_then_first_come(method: SortMethod, order: list[int]) -> None:
    desk = Desk(method)
    for id, request in enumerate((A, B, C, D, E), 1):
        desk.cls(id, request)
        desk.submit(1, cls=id)
    desk.manager(1, gpus=("a",), memory_bytes=8 * GIB)
    started = []
    while got := desk.step():
        started += got[1]
        desk.end(*got[1])
    assert started == order


def test_all_sort_keys_descend() -> None:
    desk = Desk()
    requests = [
        Request(gpus_milli=g, runtime_s=t, memory_bytes=m) for g in (0, 1000) for t in (60.0, 120.0) for m in (1, 2)
    ]
    for id, request in enumerate(requests, 1):
        desk.cls(id, request)
        desk.submit(1, cls=id)
    desk.manager(1, gpus=("a",))
    started = []
    while got := desk.step():
        started += got[1]
        desk.end(*got[1])
    assert started == [8, 7, 6, 5, 4, 3, 2, 1]


def test_a_task_that_comes_back_is_first_of_its_kind_and_no_more_than_that() -> None:
    desk = Desk()
    desk.cls(1)
    desk.cls(2, Request(priority=1))
    manager = desk.manager(1)
    tasks = desk.submit(3)
    desk.step()
    desk.submit(1, cls=2)
    desk.scheduler.release(manager, tasks[0])
    desk.scheduler.requeue(tasks[0])
    started = []
    while got := desk.step():
        started += got[1]
        desk.end(*got[1])
    assert started == [4, 1, 2, 3]


def test_old_managers_are_filled_first_so_that_young_ones_can_go() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=2000))
    desk.cls(2)
    for _ in range(3):
        desk.manager(3)
    desk.submit(2, cls=1)
    desk.submit(3, cls=2)
    assert desk.step() == {1: [1, 3], 2: [2, 4], 3: [5]}


# ---- small work behind large work ---------------------------------------------------------------


def test_small_work_passes_what_does_not_fit_until_patience_ends() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=4000))
    desk.cls(2)
    desk.manager(4)
    desk.submit(4, cls=2)
    assert desk.step() == {1: [1, 2, 3, 4]}
    desk.submit(1, cls=1)
    desk.submit(9, cls=2)
    desk.now = 1.0
    assert desk.step() == {}
    desk.now = 1.0 + PATIENCE_S - 0.1
    desk.end(1)
    assert desk.step() == {1: [6]}
    desk.now = 1.0 + PATIENCE_S
    desk.end(2)
    assert desk.step() == {}
    desk.end(3, 4)
    assert desk.step() == {}
    desk.end(6)
    assert desk.step() == {1: [5]}
    desk.end(5)
    assert desk.step() == {1: [7, 8, 9, 10]}


def test_one_node_is_kept_free_and_the_others_go_on() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=4000))
    desk.cls(2)
    for _ in range(3):
        desk.manager(4)
    desk.submit(12, cls=2)
    desk.step()
    desk.submit(1, cls=1)
    desk.submit(100, cls=2)
    desk.step()
    desk.now = 10.0
    desk.end(5, 6, 9)  # two on the second, one on the third
    assert desk.step() == {3: [14]}
    desk.end(10, 1, 7)
    assert desk.step() == {1: [15], 3: [16]}
    desk.end(8)
    assert desk.step() == {2: [13]}


def test_small_work_goes_beside_what_must_end_first_anyway() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=3000))
    desk.cls(2)
    desk.manager(4)
    desk.submit(2, cls=1)
    desk.submit(3, cls=2)
    assert desk.step() == {1: [1, 3]}
    desk.now = 10.0
    desk.end(3)
    assert desk.step() == {1: [4]}  # the other large one must wait for the first, whatever runs beside that
    assert desk.scheduler.classes[1].reserved
    desk.end(1)
    assert desk.step() == {1: [2]}


def test_more_urgent_work_takes_what_was_kept_free() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=4000))
    desk.cls(2)
    desk.cls(3, Request(priority=5))
    desk.manager(4)
    desk.submit(4, cls=2)
    desk.step()
    desk.submit(1, cls=1)
    desk.step()
    desk.now = 10.0
    desk.submit(1, cls=2)
    desk.end(1)
    assert desk.step() == {}
    desk.submit(1, cls=3)
    assert desk.step() == {1: [7]}


def test_what_is_kept_free_is_freed_when_nobody_waits_for_it_any_more() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=4000))
    desk.cls(2)
    desk.manager(4)
    desk.submit(4, cls=2)
    desk.step()
    (wide,) = desk.submit(1, cls=1)
    desk.submit(4, cls=2)
    desk.step()
    desk.now = 10.0
    desk.end(1, 2)
    assert desk.step() == {}
    desk.scheduler.forget(wide)
    assert desk.step() == {1: [6, 7]}


@pytest.mark.parametrize("lost", [True, False])
def test_another_node_is_kept_free_when_the_first_one_goes(lost: bool) -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=4000))
    desk.cls(2)
    first, second = desk.manager(4), desk.manager(4)
    desk.submit(8, cls=2)
    desk.step()
    desk.submit(1, cls=1)
    desk.submit(8, cls=2)
    desk.step()
    desk.now = 10.0
    desk.end(1, 2)
    assert desk.step() == {}
    assert first.reserved is not None
    if lost:
        desk.scheduler.remove_manager(first)
    else:
        first.closed = True
    desk.now = 20.0
    desk.end(5)
    assert desk.step() == {}
    assert second.reserved is not None
    desk.end(6, 7, 8)
    assert desk.step() == {2: [9]}


def test_the_node_kept_free_is_the_one_whose_tasks_say_that_they_end_first() -> None:
    desk = Desk()
    desk.cls(1, Request(cpus_milli=2000, priority=1))
    desk.cls(2, Request(runtime_s=3600.0))
    desk.cls(3, Request(runtime_s=60.0))
    slow, fast = desk.manager(2), desk.manager(2)
    desk.submit(2, cls=2)
    desk.submit(2, cls=3)
    assert desk.step() == {1: [1, 2], 2: [3, 4]}
    desk.submit(1, cls=1)
    desk.step()
    desk.now = 10.0
    desk.submit(4, cls=3)
    desk.step()
    assert slow.reserved is None
    assert fast.reserved is not None
