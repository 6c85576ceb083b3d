"""What the scheduler's core costs per placement: many managers, many queued tasks, many kinds of tasks.

    python benchmarks/scheduler_cost.py [--quick]

The real `Scheduler`, no network: all managers full, at most 64 tasks end in each turn, in random
order over all managers, and their places are filled again. Prints a JSON line for each figure:

- microseconds per placement with 10 and with 10,000 managers of 64 workers, and the ratio. It is
  dominated by misses of the memory cache: 640 leases in one case, 640,000 in the other;
- what one `dict` costs of the running tasks alone, in both cases, with no scheduler: the same tasks end in
  the same order, each is taken out and a new one put in;
- the cost per placement with equally many running tasks: 10 managers of 64,000 workers;
- microseconds with 10,000 and with 1,000,000 tasks queued, and the ratio that must stay flat;
- placements a second with 1,000,000 tasks queued in 50 request classes over 1,000 managers;
- placements a second with 10,000 request classes of one task each waiting.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import count

from pilotflow.core.scheduler import Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.records import Task
from pilotflow.resources import Capacity, Request

WORKERS = 64
ENDED_A_TURN = 64
DURATION_US = 5_000_000  # long tasks: nothing is sent ahead, each placement is one of its own
GIB = 1 << 30


def one_kind() -> Iterator[Request]:
    """Tasks of one core, all of one class."""
    while True:
        yield Request()


def fifty_kinds() -> Iterator[Request]:
    """Fifty classes with different cores, memory, runtimes and priorities, in random order."""
    dice = random.Random(2)
    kinds = [
        Request(
            cpus_milli=dice.choice((500, 1000, 2000, 4000, 8000)),
            memory_bytes=dice.choice((1, 2, 4, 8, 16)) * GIB,
            runtime_s=dice.choice((600.0, 1800.0, 3600.0)) + number,
            priority=dice.choice((0, 0, 1, 2)),
        )
        for number in range(50)
    ]
    while True:
        yield dice.choice(kinds)


def own_kinds() -> Iterator[Request]:
    """Each task asks for something else."""
    dice = random.Random(3)
    for number in count():
        cores, memory = dice.randint(1, 8), dice.randint(GIB, 32 * GIB)
        yield Request(cpus_milli=1000 * cores, memory_bytes=memory, runtime_s=60.0 + number % 9973)


class Steady:
    """A scheduler with full managers that goes on turn by turn."""

    def __init__(
        self, managers: int, queued: int, workers: int = WORKERS, kinds: Iterator[Request] | None = None
    ) -> None:
        self.random = random.Random(1)
        self.scheduler = Scheduler()
        self.kinds = kinds or one_kind()
        self.classes: dict[Request, int] = {}
        capacity = Capacity(1000 * workers, 256 * GIB if kinds else 0, slots=workers)
        for number in range(1, managers + 1):
            self.scheduler.add_manager(Manager(number, "cpu", f"block-{number}", f"node-{number}", capacity))
        self.next_id = 0
        self.now = 0.0
        self.running: list[Task] = []
        while len(self.running) == self.next_id:  # what cannot start at once is the beginning of the queue
            self.queue(1000)
            self.running += [task for tasks in self.scheduler.step(0.0).values() for task in tasks]
        self.queue(queued - (self.next_id - len(self.running)))

    def queue(self, number: int) -> None:
        for _ in range(number):
            request = next(self.kinds)
            self.next_id += 1
            cls = self.classes.get(request)
            if cls is None:
                cls = self.classes[request] = len(self.classes) + 1
                self.scheduler.add_class(RequestClass(cls, request, (), 5))
            self.scheduler.submit(Task(self.next_id, 0, 1, cls, b""))

    def turns(self, number: int) -> float:
        """Do so many turns; seconds per placement."""
        scheduler, running = self.scheduler, self.running
        spent = 0.0
        placed = 0
        for _ in range(number):
            self.now += 0.001
            ended = take_some(running, self.random)
            holders = [scheduler.managers[task.manager] for task in ended]
            start = time.perf_counter()
            for task, manager in zip(ended, holders, strict=True):
                scheduler.learn(task.fn, DURATION_US)
                scheduler.release(manager, task)
            leases = scheduler.step(self.now)
            spent += time.perf_counter() - start
            new = [task for tasks in leases.values() for task in tasks]
            placed += len(new)
            running += new
            self.queue(len(new))
        return spent / placed


class Bare:
    """A dict of as many running tasks, and nothing that schedules: what memory costs by itself."""

    def __init__(self, running: int) -> None:
        self.random = random.Random(1)
        self.running = [Task(id, 0, 1, 1, b"") for id in range(1, running + 1)]
        self.tasks = {task.id: task for task in self.running}
        self.next_id = running

    def turns(self, number: int) -> float:
        """Do so many turns; seconds per task."""
        tasks, running = self.tasks, self.running
        spent = 0.0
        placed = 0
        for _ in range(number):
            ended = take_some(running, self.random)
            new = [Task(self.next_id + n, 0, 1, 1, b"") for n in range(1, len(ended) + 1)]
            self.next_id += len(new)
            start = time.perf_counter()
            for old, task in zip(ended, new, strict=True):
                del tasks[old.id]
                tasks[task.id] = task
            spent += time.perf_counter() - start
            placed += len(new)
            running += new
        return spent / placed


def take_some(running: list[Task], dice: random.Random) -> list[Task]:
    """Take up to 64 tasks out of those that run, in random order."""
    ended = []
    for _ in range(dice.randint(1, ENDED_A_TURN)):
        at = dice.randrange(len(running))
        running[at], running[-1] = running[-1], running[at]
        ended.append(running.pop())
    return ended


def measure(cases: Sequence[Steady | Bare], turns: int, rounds: int) -> list[float]:
    """Medians of microseconds per placement, measured in turn."""
    gc.collect()
    gc.freeze()
    for case in cases:
        case.turns(turns)
    figures: list[list[float]] = [[] for _ in cases]
    for _ in range(rounds):
        for case, values in zip(cases, figures, strict=True):
            values.append(case.turns(turns) * 1e6)
    gc.unfreeze()
    return [statistics.median(values) for values in figures]


def show(name: str, value: float) -> None:
    print(json.dumps({"measure": "scheduler", "figure": name, "value": round(value, 3)}), flush=True)


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer managers, tasks and turns")
    quick = parser.parse_args().quick
    many, queued, turns, rounds = (1_000, 100_000, 100, 3) if quick else (10_000, 1_000_000, 500, 7)
    few_us, many_us = measure([Steady(10, 10_000), Steady(many, 10_000)], turns, rounds)
    show("us_per_placement_10_managers", few_us)
    show(f"us_per_placement_{many}_managers", many_us)
    show("ratio_managers", many_us / few_us)
    few_us, many_us = measure([Bare(10 * WORKERS), Bare(many * WORKERS)], turns, rounds)
    show(f"us_per_task_dict_of_{10 * WORKERS}", few_us)
    show(f"us_per_task_dict_of_{many * WORKERS}", many_us)
    show("ratio_dict", many_us / few_us)
    wide = WORKERS * many // 10
    few_us, many_us = measure([Steady(10, 10_000, wide), Steady(many, 10_000)], turns, rounds)
    show(f"us_per_placement_10_managers_{WORKERS * many}_running", few_us)
    show(f"us_per_placement_{many}_managers_{WORKERS * many}_running", many_us)
    show("ratio_managers_equally_many_running", many_us / few_us)
    short_us, long_us = measure([Steady(100, 10_000), Steady(100, queued)], turns, rounds)
    show("us_per_placement_10000_queued", short_us)
    show(f"us_per_placement_{queued}_queued", long_us)
    show("ratio_queued", long_us / short_us)
    (mixed_us,) = measure([Steady(many // 10, queued, kinds=fifty_kinds())], turns // 5, rounds)
    show(f"placements_per_s_{queued}_queued_50_classes_{many // 10}_managers", 1e6 / mixed_us)
    (own_us,) = measure([Steady(many // 10, 10_000, kinds=own_kinds())], turns // 5, rounds)
    show("placements_per_s_10000_classes_of_one_task", 1e6 / own_us)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
