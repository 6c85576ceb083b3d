"""How fast workflows run: jobs a second that are recorded, links of a chain, status and memory of a big run.

    make bench-workflows      (or python benchmarks/workflows.py [--jobs N] [--links N] [--many N] [--no-page])

Prints figures and whether the required ones are reached, and rewrites its section of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import bench  # noqa: E402  beside this file

BEGIN, END = "<!-- make bench-workflows: begin -->", "<!-- make bench-workflows: end -->"
PILOTFLOW = [sys.executable, "-m", "pilotflow"]


class Big(NamedTuple):
    """What was seen of a big run."""

    first_s: float
    status_s: float
    memory_mb: float


def call(home: Path, *words: str) -> tuple[str, float]:
    """What a command prints, and how long it takes."""
    began = time.monotonic()
    done = subprocess.run([*PILOTFLOW, *words], cwd=home, capture_output=True, text=True, check=True)
    return done.stdout, time.monotonic() - began


def file_of(home: Path, name: str, jobs: str) -> str:
    (home / name).write_text(f"name: {name.partition('.')[0]}\njobs:\n{jobs}")
    return name


def rate(home: Path, file: str) -> tuple[float, float]:
    """Jobs a second, from start to end of the run, and of the whole command."""
    out, whole_s = call(home, "run", file, "--json")
    said = json.loads(out)
    count = said["jobs"]["completed"]
    return count / (said["ended"] - said["began"]), count / whole_s


def big(home: Path, file: str) -> Big:
    """A big run in the background: when its first job starts, how long `status` takes as a rule, its program's memory."""
    began = time.time()
    started = json.loads(call(home, "submit", file, "--json")[0])
    first = 0.0
    while not first:
        rows = json.loads(call(home, "results", "last", "-j", "first", "--json")[0])
        first = rows[0]["started_us"] / 1e6 if rows else 0.0
    times = []
    for _ in range(20):
        times.append(call(home, "status", "last", "--json")[1])
        time.sleep(0.2)
    said = json.loads(call(home, "status", "last", "--json")[0])
    if said["state"] != "running":
        raise SystemExit("the big run has ended before it could be asked: give it more jobs")
    lines = Path(f"/proc/{started['pid']}/status").read_text().splitlines()
    memory_kb = next(int(line.split()[1]) for line in lines if "VmHWM" in line)
    call(home, "cancel", "last")
    subprocess.run([*PILOTFLOW, "attach", "last"], cwd=home, check=False, capture_output=True)
    return Big(first - began, statistics.median(times), memory_kb * 1024 / 1e6)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000, help="independent jobs (default 5,000)")
    parser.add_argument("--links", type=int, default=500, help="jobs of the chain (default 500)")
    parser.add_argument("--many", type=int, default=100_004, help="jobs of the big run (default 100,004)")
    parser.add_argument("--no-page", action="store_true", help="write nothing into docs/benchmarks.md")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="pfb-") as folder:
        home = Path(folder)
        sweep = f"  - {{name: 'j{{i}}', command: 'true', parameters: {{i: '1:{args.jobs}'}}}}\n"
        inside, whole = rate(home, file_of(home, "many.yaml", sweep))
        chain = "".join(
            f"  - {{name: j{n}, command: 'true'{f', depends_on: [j{n - 1}]' if n else ''}}}\n"
            for n in range(args.links)
        )
        links, links_whole = rate(home, file_of(home, "chain.yaml", chain))
        wide = "  - {name: first, command: 'true'}\n"
        wide += f"  - {{name: 'w{{i}}', command: 'true', depends_on: [first], parameters: {{i: '2:{args.many}'}}}}\n"
        seen = big(home, file_of(home, "big.yaml", wide))
    goals = (
        (f"{args.jobs:,} jobs `true`, jobs/s from start to end of the run", inside, 300.0, True),
        (f"{args.jobs:,} jobs `true`, jobs/s of the whole command", whole, 300.0, True),
        (f"a chain of {args.links:,} jobs, links/s of the run", links, 100.0, True),
        (f"a chain of {args.links:,} jobs, links/s of the whole command", links_whole, 100.0, True),
        (f"{args.many:,} jobs: the first starts after the command (s)", seen.first_s, 15.0, False),
        (f"{args.many:,} jobs: memory of the run's program (MB)", seen.memory_mb, 500.0, False),
        (f"{args.many:,} jobs: `status` while they run (s)", seen.status_s, 0.5, False),
    )
    table = [["required", "limit", "measured", ""]]
    for text, value, limit, at_least in goals:
        reached = value >= limit if at_least else value <= limit
        sign = "at least" if at_least else "at most"
        table.append([text, f"{sign} {limit:g}", f"{value:,.3g}", "pass" if reached else "MISS"])
    print(bench.plain(table))
    if not args.no_page:
        about = (
            f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {bench.machine()}; load average at the start {load:.2f}. "
            "Every job is a process of its own, and recorded in the run's store."
        )
        bench.write_page("\n\n".join([about, bench.markdown(table)]), BEGIN, END)
        print(f"\nWritten to {bench.PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
