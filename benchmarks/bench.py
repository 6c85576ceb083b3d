"""Compares pilotflow with its peers in one sitting and says where it stands.

    python benchmarks/bench.py [--quick] [--only MEASURE]... [--system SYSTEM]... [--with ray,dask,executorlib]

Makes an environment of its own in .bench/venv with pilotflow and the peers, runs every measure of
systems.py in fresh processes, systems in turn and in alternating order, and prints medians, ratios
and whether the required ones are reached. All figures go to .bench/results-*.json; a full run also
rewrites its section of docs/benchmarks.md. Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
# Installed packages are compiled; where this is set, as in many containers, each process would compile pilotflow anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
HOME = ROOT / ".bench"
VENV = HOME / "venv"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
CORE = ["pilotflow", "pilotflow-tcp", "parsl", "ppe", "mpool"]
OPTIONAL = {"ray": "ray", "dask": "distributed", "executorlib": "executorlib"}
TITLES = {
    "pilotflow": "pilotflow",
    "pilotflow-tcp": "pilotflow TCP",
    "parsl": "Parsl HTEX",
    "ppe": "ProcessPool",
    "mpool": "mp.Pool",
    "ray": "Ray",
    "dask": "Dask",
    "executorlib": "executorlib",
}
LIMIT_S = 900.0
ONCE = {"million", "idle"}
"""Measures that take long and are steady: taken in the first round only."""
OFTEN = {"throughput": 3, "roundtrip": 3, "chain": 3}
"""Figures that differ by a third from one run to the next, as two busy cores fall out: taken so often in a round."""

Figures = dict[str, dict[str, dict[str, float]]]
"""Medians: system, measure, name of the figure."""


class Row(NamedTuple):
    """A line of the table: one figure of one measure."""

    title: str
    measure: str
    figure: str
    digits: int


ROWS = [
    Row("no-op tasks/s", "throughput", "tasks_per_s", 0),
    Row("round trip p50 (ms)", "roundtrip", "p50_ms", 2),
    Row("round trip p99 (ms)", "roundtrip", "p99_ms", 2),
    Row("chain of dependent no-ops, links/s", "chain", "links_per_s", 0),
    Row("1 MiB argument and result, MiB/s each way", "payload", "mib_per_s", 0),
    Row("script start to first result (s)", "first", "seconds", 2),
    Row("bash app `true`, tasks/s", "bash", "tasks_per_s", 0),
    Row("many no-ops at once: how many", "million", "tasks", 0),
    Row("... tasks/s", "million", "tasks_per_s", 0),
    Row("... rate relative to 10,000 tasks", "million", "rate_ratio", 2),
    Row("... memory at its peak, KiB a task", "million", "peak_kib_per_task", 2),
    Row("... memory with all futures held, KiB a task", "million", "held_kib_per_task", 2),
    Row("idle run, % of a core", "idle", "percent", 2),
    Row("... wakes a second, all threads", "idle", "wakes_per_s", 2),
]


class Goal(NamedTuple):
    """What must be reached: a number computed from the medians, at least or at most a limit."""

    text: str
    value: Callable[[Figures], float]
    limit: float
    at_least: bool


def _over(measure: str, figure: str, peer: str, *, ours: str = "pilotflow") -> Callable[[Figures], float]:
    return lambda f: f[ours][measure][figure] / f[peer][measure][figure]


def _own(measure: str, figure: str, ours: str = "pilotflow") -> Callable[[Figures], float]:
    return lambda f: f[ours][measure][figure]


GOALS = [
    Goal("no-op tasks/s over Parsl", _over("throughput", "tasks_per_s", "parsl"), 20, True),
    Goal("no-op tasks/s over multiprocessing.Pool", _over("throughput", "tasks_per_s", "mpool"), 1.0, True),
    Goal("round trip p50 over Parsl's", _over("roundtrip", "p50_ms", "parsl"), 1 / 3, False),
    Goal("round trip p50 over ProcessPoolExecutor's", _over("roundtrip", "p50_ms", "ppe"), 2, False),
    Goal("chain links/s over Parsl", _over("chain", "links_per_s", "parsl"), 3.5, True),
    Goal(
        "chain links/s times own round trip p50",
        lambda f: f["pilotflow"]["chain"]["links_per_s"] * f["pilotflow"]["roundtrip"]["p50_ms"] / 1e3,
        0.9,
        True,
    ),
    Goal("1 MiB payloads over Parsl", _over("payload", "mib_per_s", "parsl"), 4, True),
    Goal("1 MiB payloads over ProcessPoolExecutor", _over("payload", "mib_per_s", "ppe"), 0.7, True),
    Goal(
        "1 MiB payloads over Parsl, TCP with CURVE",
        _over("payload", "mib_per_s", "parsl", ours="pilotflow-tcp"),
        1.5,
        True,
    ),
    Goal("script start to first result (s)", _own("first", "seconds"), 1.0, False),
    Goal("script start to first result over Parsl's", _over("first", "seconds", "parsl"), 1 / 6, False),
    Goal("bash app `true` over Parsl", _over("bash", "tasks_per_s", "parsl"), 2, True),
    Goal("1,000,000 at once: peak KiB a task", _own("million", "peak_kib_per_task"), 2, False),
    Goal("1,000,000 at once: rate over that of 10,000", _own("million", "rate_ratio"), 0.7, True),
    Goal("idle run, % of a core", _own("idle", "percent"), 1, False),
    Goal(
        "cost per placement, 10,000 managers over 10, 640,000 tasks running over 640",
        lambda f: f["scheduler"]["cost"]["ratio_managers"],
        1.5,
        False,
    ),
    Goal(
        "cost per placement, 10,000 managers over 10, equally many running",
        lambda f: f["scheduler"]["cost"]["ratio_managers_equally_many_running"],
        1.5,
        False,
    ),
    Goal(
        "cost per placement, 1,000,000 queued over 10,000", lambda f: f["scheduler"]["cost"]["ratio_queued"], 1.1, False
    ),
    Goal(
        "placements/s, 1,000,000 queued in 50 classes, 1,000 managers",
        lambda f: f["scheduler"]["cost"]["placements_per_s_1000000_queued_50_classes_1000_managers"],
        20_000,
        True,
    ),
]


def environment(extras: list[str]) -> Path:
    """The Python of an environment that has pilotflow and the peers."""
    python = VENV / "bin" / "python"
    stamp = VENV / ".installed"
    wanted = json.dumps([(ROOT / "pyproject.toml").read_text(encoding="utf-8"), sorted(extras)])
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"Setting up {VENV} with parsl{''.join(', ' + e for e in extras)} ...", flush=True)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    packages = ["parsl", "psutil", *(OPTIONAL[e] for e in extras)]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--editable", str(ROOT), *packages], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def run_one(python: Path, system: str, measure: str, *, quick: bool) -> dict[str, float] | str:
    """One measure of one system in a fresh process: its figures, or what went wrong, in a line."""
    command = [str(python), str(ROOT / "benchmarks" / "systems.py"), system, measure, *(["--quick"] if quick else [])]
    scratch = tempfile.mkdtemp(prefix="pfb-")  # short: Unix sockets may lie below it
    env = {
        **os.environ,
        "TMPDIR": scratch,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",  # Parsl starts its interchange by name
        "PILOTFLOW_BENCH_MARK": uuid.uuid4().hex,
        "PILOTFLOW_BENCH_START": str(time.time()),
    }
    env.pop("PYTHONPATH", None)
    HOME.mkdir(exist_ok=True)
    with (HOME / "stderr.log").open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, env=env, cwd=HOME, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            out = process.communicate(timeout=LIMIT_S)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"did not end within {LIMIT_S:.0f} s"
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        log.seek(0)
        errors = log.read().strip().splitlines()
    for line in reversed(out.splitlines()):
        if line.startswith('{"system"'):
            figures: dict[str, float] = json.loads(line)["figures"]
            return figures
    return errors[-1] if errors else f"exit code {process.returncode}, no output"


def sitting(python: Path, systems: list[str], measures: list[str], rounds: int, *, quick: bool) -> list[dict[str, Any]]:
    """Every measure of every system, `rounds` times, neighbours in time being rivals."""
    records: list[dict[str, Any]] = []
    nothing: set[tuple[str, str]] = set()
    for turn in range(rounds):
        for measure in [
            m for m in measures if turn == 0 or m not in ONCE for _ in range(1 if quick else OFTEN.get(m, 1))
        ]:
            for system in systems if turn % 2 == 0 else systems[::-1]:
                if (system, measure) in nothing:
                    continue
                got = run_one(python, system, measure, quick=quick)
                if got == {}:  # it has no such thing, or cannot do it in reasonable time
                    nothing.add((system, measure))
                    continue
                record = {"round": turn, "system": system, "measure": measure}
                record |= {"error": got} if isinstance(got, str) else {"figures": got}
                records.append(record)
                shown = got if isinstance(got, str) else " ".join(f"{k}={v:.4g}" for k, v in got.items())
                print(f"round {turn + 1}/{rounds}  {measure:<10} {system:<14} {shown}", flush=True)
    return records


def medians(records: list[dict[str, Any]]) -> Figures:
    """The median of each figure over the rounds that gave one."""
    gathered: dict[str, dict[str, dict[str, list[float]]]] = {}
    for record in records:
        for name, value in record.get("figures", {}).items():
            of = gathered.setdefault(record["system"], {}).setdefault(record["measure"], {})
            of.setdefault(name, []).append(value)
    return {
        s: {m: {n: statistics.median(v) for n, v in figures.items()} for m, figures in measures.items()}
        for s, measures in gathered.items()
    }


def scheduler(python: Path) -> list[dict[str, Any]]:
    """What scheduler_cost.py prints, one record a line, if there is such a script."""
    script = ROOT / "benchmarks" / "scheduler_cost.py"
    if not script.exists():
        return []
    done = subprocess.run([str(python), str(script)], cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"scheduler_cost.py failed: {done.stderr.strip()[-500:]}", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main_table(figures: Figures, systems: list[str]) -> list[list[str]]:
    """Header and lines: each figure of each system, then pilotflow over the peers."""
    peers = [s for s in systems if not s.startswith("pilotflow")]
    table = [["measure", *(TITLES[s] for s in systems), *(f"x {TITLES[s]}" for s in peers)]]
    for row in ROWS:
        values = [figures.get(s, {}).get(row.measure, {}).get(row.figure) for s in systems]
        if all(v is None for v in values):
            continue
        ours = figures.get("pilotflow", {}).get(row.measure, {}).get(row.figure)
        ratios = []
        for s in peers:
            theirs = figures.get(s, {}).get(row.measure, {}).get(row.figure)
            ratios.append(f"{ours / theirs:.2f}" if ours is not None and theirs else "-")
        table.append([row.title, *("-" if v is None else f"{v:,.{row.digits}f}" for v in values), *ratios])
    return table


def goal_table(figures: Figures) -> list[list[str]]:
    """Header and lines: what must be reached, what was, and whether that suffices."""
    table = [["required", "limit", "measured", ""]]
    for goal in GOALS:
        try:
            value = goal.value(figures)
        except (KeyError, ZeroDivisionError):
            continue
        reached = value >= goal.limit if goal.at_least else value <= goal.limit
        sign = "at least" if goal.at_least else "at most"
        table.append([goal.text, f"{sign} {goal.limit:.3g}", f"{value:.3g}", "pass" if reached else "MISS"])
    return table


def record_table(records: list[dict[str, Any]]) -> list[list[str]]:
    """Header and lines of records that share their keys."""
    keys = list(dict.fromkeys(key for record in records for key in record))
    cells = [[record.get(key, "") for key in keys] for record in records]
    return [keys, *([f"{c:,.4g}" if isinstance(c, float) else str(c) for c in row] for row in cells)]


def plain(table: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(lines)


def markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    lines.insert(1, "|---" + "|--:" * (len(table[0]) - 1) + "|")
    return "\n".join(lines)


def machine() -> str:
    """This machine, in a line."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    cores = len(os.sched_getaffinity(0))
    kernel = f"{platform.system()} {platform.release()}"
    return f"{model[1] if model else platform.machine()}, {cores} cores, {kernel}, Python {platform.python_version()}"


def versions(python: Path, extras: list[str]) -> str:
    """Versions of what was compared, in a line."""
    names = ["pilotflow", "parsl", *(OPTIONAL[e] for e in extras)]
    code = "import sys; from importlib.metadata import version as v; print(', '.join(n + ' ' + v(n) for n in sys.argv[1:]))"
    return subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True).stdout.strip()


def write_page(section: str, begin: str = BEGIN, end: str = END) -> None:
    """Put the section between its marks in docs/benchmarks.md; the rest of that page is left as it is."""
    PAGE.parent.mkdir(exist_ok=True)
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Benchmarks\n"
    block = f"{begin}\n\n{section}\n\n{end}"
    if begin in old and end in old:
        head, rest = old.split(begin, 1)
        new = head + block + rest.split(end, 1)[1]
    else:
        new = f"{old.rstrip()}\n\n{block}\n"
    PAGE.write_text(new, encoding="utf-8")


def arguments(argv: list[str]) -> argparse.Namespace:
    measures = list(dict.fromkeys(row.measure for row in ROWS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of small counts, to see that it works")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take medians of (default 3)")
    parser.add_argument("--only", action="append", choices=[*measures, "scheduler"], help="only this measure")
    parser.add_argument("--system", action="append", choices=[*CORE, *OPTIONAL], help="only this system")
    parser.add_argument("--with", dest="extras", default="", help=f"more peers, of {','.join(OPTIONAL)}")
    parser.add_argument("--fresh", action="store_true", help="make the environment anew")
    args = parser.parse_args(argv)
    args.extras = [e for e in args.extras.split(",") if e]
    if wrong := [e for e in args.extras if e not in OPTIONAL]:
        parser.error(f"--with knows {', '.join(OPTIONAL)}, not {', '.join(wrong)}")
    args.full = not (args.quick or args.only or args.system or args.rounds < 3)
    args.measures = [m for m in measures if not args.only or m in args.only]
    args.extras += [s for s in args.system or [] if s in OPTIONAL and s not in args.extras]
    args.systems = [s for s in [*CORE, *args.extras] if not args.system or s in args.system]
    args.rounds = 1 if args.quick else args.rounds
    return args


def main(argv: list[str]) -> int:
    args = arguments(argv)
    if args.fresh:
        shutil.rmtree(VENV, ignore_errors=True)
    python = environment(args.extras)
    now = datetime.now(timezone.utc)
    about = f"{now:%Y-%m-%d %H:%M} UTC, {machine()}. 2 workers. {versions(python, args.extras)}."
    once = " (many at once: one; idle: three windows of 20 s in one)" if args.rounds > 1 else ""
    often = "" if args.quick else ", no-ops, round trips and chains three times in each"
    load = f"Medians of {args.rounds} alternating rounds{often}{once}; "
    load += f"load average at the start {os.getloadavg()[0]:.2f}."
    print(about, load, sep="\n")
    records = sitting(python, args.systems, args.measures, args.rounds, quick=args.quick)
    cost = scheduler(python) if not args.only or "scheduler" in args.only else []
    figures = medians(records) | {"scheduler": {"cost": {record["figure"]: record["value"] for record in cost}}}
    tables = [main_table(figures, args.systems), goal_table(figures), *([record_table(cost)] if cost else [])]
    tables = [table for table in tables if len(table) > 1]
    print(*("\n" + plain(table) for table in tables), sep="\n")

    results = HOME / f"results-{now:%Y%m%d-%H%M%S}.json"
    document = {"about": about, "load": load, "records": records, "medians": figures, "scheduler": cost}
    results.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"\nAll figures: {results.relative_to(ROOT)}")
    if args.full:
        write_page("\n\n".join([about, load, *(markdown(table) for table in tables)]))
        print(f"Written to {PAGE.relative_to(ROOT)}")
    return 1 if any("error" in record for record in records) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
