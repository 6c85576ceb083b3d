"""What must hold in the simulator after each step. Everything here raises `AssertionError`."""

from __future__ import annotations

from collections import Counter

from pilotflow.core.exchange import Exchange
from pilotflow.core.scheduler import Scheduler
from pilotflow.core.supply import UNKNOWN, Manager
from pilotflow.testing.simulator_manager import SimManager


def check_exchange(exchange: Exchange) -> None:
    """Every task is in one place, and what managers hold and have free adds up."""
    scheduler = exchange.scheduler
    queued = [task for cls in scheduler.classes.values() for task in cls.queue if task.attempt >= 0]
    assert len(queued) == sum(cls.queued for cls in scheduler.classes.values()), "cancelled tasks are miscounted"
    places = Counter(task.id for task in queued)
    places.update(id for manager in scheduler.managers.values() for id in manager.leases)
    places.update(id for id in scheduler.tasks if id in exchange.recovery)
    assert all(count == 1 for count in places.values()), f"tasks in several places: {places}"
    waiting = {id for id, task in scheduler.tasks.items() if not task.manager}
    assert {task.id for task in queued} == waiting, "the table of queued tasks is not the queues"
    leased = {id: manager.id for manager in scheduler.managers.values() for id in manager.leases}
    named = {id: task.manager for id, task in scheduler.tasks.items() if task.manager}
    assert leased == named, "holders are not those with the lease"
    assert scheduler.managers.keys() == exchange.by_id.keys()
    for manager in scheduler.managers.values():
        _check_manager(manager, scheduler)
    known = places.keys()
    for table in exchange.tables():
        strays = [id for id in table if id not in known and id not in exchange.recovery]
        assert not strays, f"something is kept for tasks that are no more: {strays}"


def _check_manager(manager: Manager, scheduler: Scheduler) -> None:
    capacity, classes = manager.capacity, scheduler.classes
    if not (manager.leases or manager.active or manager.prefilled):
        assert manager.free_slots == capacity.slots
        assert manager.free_cpus == capacity.cpus_milli
        return
    held = Counter(scheduler.tasks[id].cls for id in manager.leases if id not in scheduler.gangs.by_task)
    ended = Counter(cls for holder, cls in scheduler.vacated if holder is manager)
    booked = Counter(manager.active) + Counter(manager.prefilled) - ended
    assert held == booked, f"manager {manager.id} holds {held}, booked are {booked}"
    used = [classes[cls].request for cls, count in manager.active.items() for _ in range(count)]
    assert manager.free_slots + len(used) == capacity.slots
    assert manager.free_cpus + sum(r.cpus_milli for r in used) == capacity.cpus_milli
    assert manager.free_memory + sum(r.memory_bytes for r in used) == (capacity.memory_bytes or UNKNOWN)
    assert manager.free_slots >= 0, f"manager {manager.id} is over its slots"
    if not capacity.depth_limited:
        assert manager.free_cpus >= 0, f"manager {manager.id} is over its cores"
        assert sum(manager.free_gpus) + sum(r.gpus_milli for r in used) == 1000 * len(capacity.gpus)
        assert min(manager.free_gpus, default=0) >= 0, f"manager {manager.id} is over its GPUs"
        assert manager.free_memory >= 0 or not capacity.memory_bytes, f"manager {manager.id} is over its memory"


def check_pool(manager: SimManager) -> None:
    """A manager's tasks are each in one place, and what runs fits into it."""
    pool, capacity = manager.pool, manager.pool.capacity
    busy = [worker for worker in pool.workers.values() if worker.tasks]
    assert len(busy) <= capacity.slots, f"{manager.name} runs {len(busy)} tasks in {capacity.slots} slots"
    if not capacity.depth_limited:
        seats = [worker.seat for worker in busy if worker.seat is not None]
        assert len(seats) == len(busy), f"{manager.name} runs tasks without a seat"
        assert sum(seat.cpus_milli for seat in seats) <= capacity.cpus_milli, f"{manager.name} is over its cores"
        whole = [core for seat in seats for core in seat.whole_cores]
        assert len(whole) == len(set(whole)), f"{manager.name} shares cores"
        assert pool.room.memory_bytes >= 0 or not capacity.memory_bytes, f"{manager.name} is over its memory"
    places = Counter((task.id, task.attempt) for worker in busy for task in worker.tasks)
    places.update((task.id, task.attempt) for task in pool.queued())
    assert all(count == 1 for count in places.values()), f"{manager.name} has tasks twice: {places}"
    held = {(task.id, task.attempt) for task in pool.held()}
    assert held <= places.keys(), f"{manager.name} has lost {held - places.keys()}"
    for worker in busy:
        assert len({task.cls for task in worker.tasks}) == 1, "tasks sent ahead are of another class"


def check_agreement(exchange: Exchange, manager: SimManager) -> None:
    """With nothing on its way between them, both sides name the same leases."""
    peer = exchange.peers.get(manager.name)
    if peer is None:
        return
    theirs = {(task.id, task.attempt) for task in manager.pool.held()}
    ours = {(task.id, task.attempt) for task in exchange.scheduler.leased(peer.manager)}
    assert ours <= theirs, f"{manager.name} does not know that it has {ours - theirs}"
    over = {pair for pair in theirs - ours if (worker := _runner(manager, pair)) is None or not worker}
    assert not over or exchange.recovery.active, f"{manager.name} keeps what is not its own: {over}"


def _runner(manager: SimManager, pair: tuple[int, int]) -> bool | None:
    """Whether the worker that runs this is being ended."""
    for worker in manager.pool.workers.values():
        if any((task.id, task.attempt) == pair for task in worker.tasks):
            return worker.ending
    return None
