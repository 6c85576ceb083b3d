"""How fast workflows run: jobs a second that are recorded, links of a chain a second, status of a big run.

python benchmarks/workflows.py [JOBS] [LINKS] [MANY]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PILOTFLOW = [sys.executable, "-m", "pilotflow"]


def call(home: Path, *words: str) -> tuple[str, float]:
    began = time.monotonic()
    done = subprocess.run([*PILOTFLOW, *words], cwd=home, capture_output=True, text=True, check=True)
    return done.stdout, time.monotonic() - began


def file_of(home: Path, name: str, jobs: str) -> str:
    (home / name).write_text(f"name: {name.partition('.')[0]}\njobs:\n{jobs}")
    return name


def rate(home: Path, file: str, what: str) -> None:
    out, whole_s = call(home, "run", file, "--json")
    said = json.loads(out)
    inside_s = said["ended"] - said["began"]
    count = said["jobs"]["completed"]
    print(
        f"{count:,} {what}: {count / inside_s:,.0f}/s from start to end of the run, {count / whole_s:,.0f}/s of the command"
    )


def big(home: Path, file: str, count: int) -> None:
    began = time.time()
    started = json.loads(call(home, "submit", file, "--json")[0])
    run = Path(started["directory"])
    first = 0.0
    while not first:
        rows = json.loads(call(home, "results", "last", "-j", "first", "--json")[0])
        first = rows[0]["started_us"] / 1e6 if rows else 0.0
    print(f"{count:,} jobs: the first one started {first - began:.1f} s after the command")
    times = [call(home, "status", "last", "--json")[1] for _ in range(5)]
    memory = next(
        int(line.split()[1])
        for line in Path(f"/proc/{started['pid']}/status").read_text().splitlines()
        if "VmHWM" in line
    )
    print(
        f"status while it runs: {min(times):.2f} to {max(times):.2f} s; memory of its program: {memory / 1024:,.0f} MiB"
    )
    call(home, "cancel", "last")
    subprocess.run([*PILOTFLOW, "attach", str(run)], cwd=home, check=False, capture_output=True)


def main() -> None:
    jobs, links, many = (*map(int, sys.argv[1:]), *(5000, 500, 100_000)[len(sys.argv) - 1 :])
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rate(
            home,
            file_of(home, "many.yaml", f"  - {{name: 'j{{i}}', command: 'true', parameters: {{i: '1:{jobs}'}}}}\n"),
            "jobs",
        )
        chain = "".join(
            f"  - {{name: j{n}, command: 'true'{f', depends_on: [j{n - 1}]' if n else ''}}}\n" for n in range(links)
        )
        rate(home, file_of(home, "chain.yaml", chain), "links of a chain")
        text = f"  - {{name: first, command: 'true'}}\n  - {{name: 'w{{i}}', command: 'true', depends_on: [first], parameters: {{i: '1:{many}'}}}}\n"
        big(home, file_of(home, "big.yaml", text), many + 1)


if __name__ == "__main__":
    main()
