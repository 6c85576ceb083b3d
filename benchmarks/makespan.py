"""How long whole workloads take with the real scheduler core, on a simulated clock.

    python benchmarks/makespan.py [--write] [--only NAME]... [--seed N]

Each workload runs three times: with pilotflow's `Scheduler`, first come first served without
backfill, and in slots. Prints how long each took in units of the lower bound; with --write the
table goes into docs/scheduling.md. Seeds are fixed, so a table can be compared with the one before
a change. Ends with 1 if a goal is missed: a workload that could be packed tightly takes more than
1.1 times the bound, or any takes longer than in slots.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from math import inf
from pathlib import Path
from typing import NamedTuple

from makespan_policies import FirstCome, Pilotflow, Slots
from makespan_workloads import WORKLOADS
from makespan_world import Policy, Simulation, Workload, amounts, has

PAGE = Path(__file__).resolve().parents[1] / "docs" / "scheduling.md"
BEGIN, END = "<!-- makespan: begin -->", "<!-- makespan: end -->"
POLICIES: list[Callable[[Workload], Policy]] = [Pilotflow, FirstCome, Slots]
NEAR = 1.1


# ---- the bound ------------------------------------------------------------------------------


def bound(work: Workload) -> float:
    """max(critical path, total work of each resource / its capacity, counted while its nodes are there)."""
    ends: list[float] = []
    for job in work.jobs:
        start = max([job.at, *(ends[i] for i in job.needs)])
        ends.append(start + job.seconds)
    best = max(ends)
    node = work.nodes[0].capacity
    for resource in has(node):
        total = sum(amounts(j.request, node)[resource] * j.seconds * j.request.num_nodes for j in work.jobs)
        best = max(best, time_for(total, [(n.since, n.until, has(n.capacity)[resource]) for n in work.nodes]))
    return best


def whole_bound(work: Workload) -> float:
    """The bound, knowing that tasks cannot be split: of those above 1/(k+1) of a node, k fit on one."""
    best = bound(work)
    node = work.nodes[0].capacity
    for resource, most in has(node).items():
        for k in (1, 2, 3):
            large = [
                j.seconds * j.request.num_nodes
                for j in work.jobs
                if most and amounts(j.request, node)[resource] > most / (k + 1) and j.request.num_nodes == 1
            ]
            wide = [k * j.seconds * j.request.num_nodes for j in work.jobs if j.request.num_nodes > 1]
            best = max(best, time_for(sum(large) + sum(wide), [(n.since, n.until, k) for n in work.nodes]))
    return best


def time_for(total: float, supply: Iterable[tuple[float, float, float]]) -> float:
    """When so much has been done by what is there from one time to another, with a rate each."""
    if total <= 0:
        return 0.0
    changes: dict[float, float] = defaultdict(float)
    for since, until, rate in supply:
        changes[since] += rate
        changes[until] -= rate
    done = rate = now = 0.0
    for at in sorted(changes):
        if rate and done + rate * (at - now) >= total:
            return now + (total - done) / rate
        done, now = done + (rate * (at - now) if rate else 0.0), at
        rate += changes[at]
    return now if done >= total - 1e-6 else inf


# ---- the table ------------------------------------------------------------------------------


class Row(NamedTuple):
    """One workload: its bound in seconds, and how long each policy took, in units of that."""

    work: Workload
    bound_s: float
    whole: float
    spans: list[float]
    waits: list[float]  # the longest of an urgent task, in seconds

    def missed(self) -> str:
        """Which goal it misses, or ""."""
        ours, _, slots = self.spans
        if ours > slots * 1.005:
            return "longer than in slots"
        return "far from the bound" if ours > NEAR and not self.work.gap else ""


def row_of(make: Callable[[random.Random], Workload], seed: int) -> Row:
    work = make(random.Random(seed))
    least = bound(work)
    spans, waits = [], []
    for policy in POLICIES:
        simulation = Simulation(work, policy(work))
        spans.append(simulation.run() / least)
        urgent = [simulation.started[i] - job.at for i, job in enumerate(work.jobs) if job.request.priority > 0]
        waits.append(max(urgent, default=0.0))
    return Row(work, least, whole_bound(work) / least, spans, waits)


def markdown(rows: list[Row]) -> str:
    """The table, and what it cannot show."""
    lines = [
        "| workload | tasks | bound (s) | pilotflow | first come | slots | why it cannot be 1.00 |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        spans = " | ".join(f"{span:.2f}" for span in row.spans)
        gap = row.work.gap.format(whole=row.whole)
        lines.append(f"| {row.work.name} | {len(row.work.jobs):,} | {row.bound_s:,.0f} | {spans} | {gap} |")
    for row in rows:
        if any(row.waits):
            ours, first, slots = (f"{wait:,.0f} s" for wait in row.waits)
            lines += ["", f"The longest that an urgent task waited ({row.work.name}):"]
            lines.append(f"pilotflow {ours}, first come {first}, slots {slots}.")
    return "\n".join(lines)


def write_page(section: str) -> None:
    """Put the section between its marks in docs/scheduling.md; the rest of that page is people's."""
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN, 1)
    PAGE.write_text(f"{head}{BEGIN}\n\n{section}\n\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def main() -> int:
    """Simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[make.__name__ for make in WORKLOADS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/scheduling.md")
    args = parser.parse_args()
    rows = [row_of(make, args.seed) for make in WORKLOADS if not args.only or make.__name__ in args.only]
    print(markdown(rows))
    missed = [f"{row.work.name}: {row.missed()}" for row in rows if row.missed()]
    print(*missed, sep="\n")
    if args.write and not args.only:
        write_page(markdown(rows))
        print(f"Written to docs/{PAGE.name}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
