"""How fast calls of apps with `cache=True` are known: hits a second, by kind of argument and of result.

    python benchmarks/caching.py [--calls 5000]

Results are read from the cache directory each time; the run that has put them there is over.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pilotflow as pf


@pf.python_app(cache=True)
def same(value: Any, **_: Any) -> Any:
    """The value."""
    return value


def cases() -> list[tuple[str, Callable[[int], Any]]]:
    """What is called with what, by number."""
    return [
        ("a number", lambda number: number % 100),
        ("a dictionary of 20 numbers", lambda number: {f"key{i}": i + number % 100 for i in range(20)}),
        ("an array of 8 KiB", lambda number: np.full(1024, number % 100, dtype="f8")),
        ("an array of 8 MiB", lambda number: np.full(1 << 20, number % 2, dtype="f8")),
    ]


def measure(calls: int) -> None:
    """Print a line for each case."""
    with tempfile.TemporaryDirectory() as directory:
        config = pf.Config.for_this_machine(max_workers=2, run_dir=Path(directory) / "runs")
        with pf.load(config, cache=Path(directory) / "cache", progress=False):
            for future in [same(make(number)) for _, make in cases() for number in range(100)]:
                future.result()
        with pf.load(config, cache=Path(directory) / "cache", progress=False):
            for name, make in cases():
                count = calls // 100 if "MiB" in name else calls
                values = [make(number) for number in range(min(count, 100))]
                begun, used = time.perf_counter(), time.process_time()
                futures = [same(values[number % len(values)]) for number in range(count)]
                assert all(future.done() for future in futures)
                for future in futures:
                    future.result()
                seconds, cpu = time.perf_counter() - begun, time.process_time() - used
                print(f"{name:28} {count / seconds:10,.0f} hits/s {1e6 * cpu / count:10,.0f} us of processor time each")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5000)
    measure(parser.parse_args().calls)
