"""What all tests start from."""

from __future__ import annotations

import os
import signal
import sys

import pytest

# `make test &` and nohup start us with Ctrl-C ignored, which the programs under test would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Containers often set this. Thousands of processes would each compile the package again, a quarter second each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print a broken proof at once: the proofs take an hour, and pytest keeps failures for its last page."""
    if report.failed and "soak" in report.keywords:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}", flush=True)
