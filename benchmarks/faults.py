"""Faults with their stated limits: runs the tests of faults without patience, and prints the real figures.

    python benchmarks/faults.py [--soak] [pytest's own arguments]

The tests wait ten times a limit, so that they pass on a slow and busy machine. Here the limits hold.
`--soak` runs the full counts too: 1 GiB payloads, 10,000 mutated messages, hundreds of kills.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    arguments = sys.argv[1:]
    soak = "--soak" in arguments
    if soak:
        arguments.remove("--soak")
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times"
        tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/integration").glob("test_faults*.py"))
        chosen = ["--timeout=900"] if soak else ["-m", "not soak"]
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *chosen, *tests, *arguments],
            cwd=ROOT,
            env={**os.environ, "PILOTFLOW_PATIENCE": "1", "PILOTFLOW_FAULT_TIMES": str(times)},
            check=False,
        ).returncode
        rows = [json.loads(line) for line in times.read_text(encoding="utf-8").splitlines()] if times.exists() else []
    show(rows)
    broken = [what for what, _, _, held in rows if not held]
    if broken:
        print(f"\nlimits not held: {', '.join(broken)}")
    return code or bool(broken)


def show(rows: list[tuple[str, str, str, bool]]) -> None:
    worst: dict[str, tuple[str, str, bool]] = {}
    for what, real, limit, held in rows:
        if what not in worst or float(real.split()[0]) > float(worst[what][0].split()[0]):
            worst[what] = (real, limit, held)
    print(f"\n{date.today()}, {os.cpu_count()} cores, Python {platform.python_version()}; the worst of each\n")  # noqa: DTZ011
    print("| what | real | limit |\n|---|---|---|")
    for what, (real, limit, held) in worst.items():
        print(f"| {what} | {real}{'' if held else ' **not held**'} | {limit} |")


if __name__ == "__main__":
    raise SystemExit(main())
