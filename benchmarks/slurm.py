"""What pilotflow does on a real Slurm cluster, brought up on this machine: 16 nodes, and the first result.

    make bench-slurm          (as root, where Slurm is installed; or python benchmarks/slurm.py [--rounds N])

Prints figures and whether the required ones are reached, and rewrites its section of docs/benchmarks.md.
The cluster is that of the tests (`tests/slurm/harness`): every node is a host of its own, on the cores of this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import bench  # noqa: E402  beside this file

import pilotflow  # noqa: E402
from tests.slurm.conftest import a_state  # noqa: E402
from tests.slurm.harness import packages  # noqa: E402
from tests.slurm.harness.cluster import Cluster  # noqa: E402
from tests.slurm.harness.hosts import wait_for  # noqa: E402
from tests.slurm.harness.settings import Settings  # noqa: E402
from tests.slurm.tasks import config, double, pause  # noqa: E402

BEGIN, END = "<!-- make bench-slurm: begin -->", "<!-- make bench-slurm: end -->"
NODES, WORKERS = 16, 64
HERE = "benchmarks.slurm"
TASKS = 10_000

Figures = dict[str, list[float]]


# ---- programs on the login host -----------------------------------------------------------------


def many(nodes: int) -> None:
    """Prints sleeps of a second and no-ops, each a second, with all workers of a block of so many nodes."""
    given = {"nodes_per_block": nodes, "init_blocks": 1, "max_blocks": 1}
    with pilotflow.load(config(given), progress=False) as run:
        wait_for(lambda: sum(info.managers for info in run.blocks()) == nodes, "all managers", 100)
        [task.result(60) for task in [pause(1.0) for _ in range(4 * nodes)]]  # all workers have been started
        began = time.monotonic()
        [task.result(60) for task in [pause(1.0) for _ in range(10 * 4 * nodes)]]
        sleeps = 10 * 4 * nodes / (time.monotonic() - began)
        noops(TASKS // 10)
        print(json.dumps([sleeps, statistics.median(noops(TASKS) for _ in range(3))]))


def noops(tasks: int) -> float:
    began = time.monotonic()
    for future in [double(x) for x in range(tasks)]:
        future.result(100)
    return tasks / (time.monotonic() - began)


def first_result() -> None:
    """Prints the seconds from `load` to the first result."""
    began = time.monotonic()
    with pilotflow.load(config({"init_blocks": 1}), progress=False):
        assert double(1).result(100) == 2
        print(time.monotonic() - began)


# ---- here ---------------------------------------------------------------------------------------


def script_s(cluster: Cluster, folder: Path) -> float:
    """Seconds from `sbatch` to the start of its script."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "began"
    began = time.monotonic()
    cluster.run("sbatch", "--exclusive", "-o", "/dev/null", "--wrap", f"touch {out}")
    wait_for(out.exists, "the script starts", every_s=0.005)
    took = time.monotonic() - began
    wait_for(lambda: not cluster.jobs(), "it has ended")
    return took


def measure(cluster: Cluster, folder: Path, rounds: int) -> Figures:
    """All figures, in turn, so that the machine's moods meet all of them."""
    found: Figures = {"local": [], "sleeps": [], "noops": [], "sbatch": [], "first": []}
    for turn in range(rounds):
        local = bench.run_one(Path(sys.executable), "pilotflow-tcp", "throughput", quick=False)
        if isinstance(local, str):
            raise SystemExit(f"pilotflow-tcp: {local}")
        found["local"].append(local["tasks_per_s"])
        sleeps, rate = json.loads(cluster.function(f"{HERE}:many", NODES, cwd=folder, timeout_s=300))
        found["sleeps"].append(sleeps)
        found["noops"].append(rate)
        for _ in range(5):  # Slurm looks once a second: one figure says little
            found["sbatch"].append(script_s(cluster, folder))
            found["first"].append(float(cluster.function(f"{HERE}:first_result", cwd=folder)))
            wait_for(lambda: not cluster.jobs(), "its block has ended")
        print(
            f"round {turn + 1}/{rounds} ", *(f"{name}={values[-1]:.3g}" for name, values in found.items()), flush=True
        )
    return found


def tables(found: Figures) -> tuple[list[list[str]], list[list[str]]]:
    """What was measured, and what is required."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    shown = [
        ["16 nodes, 64 workers", "median", "least", "most"],
        *(
            [title, *(f"{of(found[name]):,.{digits}f}" for of in (statistics.median, min, max))]
            for title, name, digits in (
                ("sleeps of 1 s, a second", "sleeps", 1),
                ("no-ops, a second", "noops", 0),
                ("no-ops, a second, this machine alone by TCP and CURVE, 2 workers", "local", 0),
                ("`sbatch` to the start of its script (s)", "sbatch", 2),
                ("`load` to the first result, init_blocks=1 (s)", "first", 2),
            )
        ),
    ]
    goals = (
        ("64 workers x 1 s sleeps, of 64 a second", middle["sleeps"] / WORKERS, 0.95, True),
        ("no-ops over those of this machine alone", middle["noops"] / middle["local"], 0.4, True),
        ("first result after `load`, beyond `sbatch`'s own time (s)", middle["first"] - middle["sbatch"], 2.0, False),
    )
    required = [["required", "limit", "measured", ""]]
    for text, value, limit, at_least in goals:
        reached = value >= limit if at_least else value <= limit
        sign = "at least" if at_least else "at most"
        required.append([text, f"{sign} {limit:g}", f"{value:.3g}", "pass" if reached else "MISS"])
    return shown, required


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take medians of (default 3)")
    parser.add_argument("--no-page", action="store_true", help="write nothing into docs/benchmarks.md")
    args = parser.parse_args()
    if reason := packages.why_not(packages.CLUSTER):
        raise SystemExit(f"no cluster can be brought up here: {reason}")
    bench.HOME.mkdir(exist_ok=True)
    load = os.getloadavg()[0]
    cluster = Cluster(Settings(state=a_state("b"), nodes=NODES, gpu_nodes=0))
    cluster.up()
    try:
        with tempfile.TemporaryDirectory(prefix="pfb-") as folder:
            found = measure(cluster, Path(folder), args.rounds)
        version = cluster.run("sbatch", "--version").stdout.strip()
    finally:
        cluster.down()
    shown = tables(found)
    print(*("\n" + bench.plain(table) for table in shown), sep="\n")
    if not args.no_page:
        about = (
            f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {bench.machine()}, {version}: {NODES} nodes of 4 CPUs on "
            f"this machine. {args.rounds} rounds; load average at the start {load:.2f}."
        )
        bench.write_page("\n\n".join([about, *map(bench.markdown, shown)]), BEGIN, END)
        print(f"\nWritten to {bench.PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
