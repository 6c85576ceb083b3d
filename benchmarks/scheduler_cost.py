"""What the scheduler's core costs per placement, with many managers and with many queued tasks.

    python benchmarks/scheduler_cost.py [--quick]

The real `Scheduler`, no network: all slots full, at most 64 tasks end in each turn, in random
order over all managers, and their places are filled again. Prints a JSON line for each figure:
microseconds per placement with 10 and with 10,000 managers of 64 workers, with 10,000 and with
1,000,000 tasks queued, and the two ratios that must stay flat.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import time

from pilotflow.core.scheduler import Scheduler
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages import Task
from pilotflow.resources import Capacity, Request

WORKERS = 64
ENDED_A_TURN = 64
DURATION_US = 5_000_000  # long tasks: nothing is sent ahead, each placement is one of its own


class Steady:
    """A scheduler with all slots full, that goes on turn by turn."""

    def __init__(self, managers: int, queued: int) -> None:
        self.random = random.Random(1)
        self.scheduler = Scheduler()
        self.scheduler.add_class(RequestClass(1, Request(), (), 5))
        capacity = Capacity(cpus_milli=1000 * WORKERS, slots=WORKERS)
        for number in range(1, managers + 1):
            self.scheduler.add_manager(Manager(number, "cpu", f"block-{number}", f"node-{number}", capacity))
        self.next_id = 0
        self.queue(managers * WORKERS)
        self.running = [task for tasks in self.scheduler.step(0.0).values() for task in tasks]
        assert len(self.running) == managers * WORKERS
        self.queue(queued)

    def queue(self, count: int) -> None:
        for _ in range(count):
            self.next_id += 1
            self.scheduler.submit(Task(self.next_id, 0, 1, 1, b""))

    def turns(self, count: int) -> float:
        """Do so many turns; seconds per placement."""
        scheduler, running = self.scheduler, self.running
        spent = 0.0
        placed = 0
        for _ in range(count):
            ended = []
            for _ in range(self.random.randint(1, ENDED_A_TURN)):
                at = self.random.randrange(len(running))
                running[at], running[-1] = running[-1], running[at]
                ended.append(running.pop())
            holders = [scheduler.managers[task.manager] for task in ended]
            start = time.perf_counter()
            for task, manager in zip(ended, holders, strict=True):
                scheduler.learn(task.fn, DURATION_US)
                scheduler.release(manager, task)
            leases = scheduler.step(0.0)
            spent += time.perf_counter() - start
            new = [task for tasks in leases.values() for task in tasks]
            assert len(new) == len(ended)
            placed += len(new)
            running += new
            self.queue(len(new))
        return spent / placed


def compare(small: tuple[int, int], large: tuple[int, int], turns: int, rounds: int) -> tuple[float, float]:
    """Medians in microseconds of two settings (managers, queued tasks), measured in turn."""
    cases = [Steady(*small), Steady(*large)]
    gc.collect()
    gc.freeze()
    for case in cases:
        case.turns(turns)
    figures: list[list[float]] = [[], []]
    for _ in range(rounds):
        for case, values in zip(cases, figures, strict=True):
            values.append(case.turns(turns) * 1e6)
    return statistics.median(figures[0]), statistics.median(figures[1])


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer managers, tasks and turns")
    quick = parser.parse_args().quick
    many, queued, turns, rounds = (1_000, 100_000, 100, 3) if quick else (10_000, 1_000_000, 500, 7)
    few_us, many_us = compare((10, 10_000), (many, 10_000), turns, rounds)
    short_us, long_us = compare((100, 10_000), (100, queued), turns, rounds)
    for name, value in (
        ("us_per_placement_10_managers", few_us),
        (f"us_per_placement_{many}_managers", many_us),
        ("ratio_managers", many_us / few_us),
        ("us_per_placement_10000_queued", short_us),
        (f"us_per_placement_{queued}_queued", long_us),
        ("ratio_queued", long_us / short_us),
    ):
        print(json.dumps({"measure": "scheduler", "figure": name, "value": round(value, 3)}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
