"""Whole workloads stay near their lower bound: the benchmark's goals, held by the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "makespan.py"
SOME = ["heterogeneous", "two_kinds", "gpu_mix", "tight_walltimes", "multi_node"]


@pytest.mark.parametrize("names", [SOME, pytest.param([], marks=pytest.mark.soak)], ids=["some", "all"])
def test_workloads_that_can_be_packed_take_at_most_a_tenth_longer_than_their_bound(names: list[str]) -> None:
    only = [word for name in names for word in ("--only", name)]
    done = subprocess.run([sys.executable, str(SCRIPT), *only], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
