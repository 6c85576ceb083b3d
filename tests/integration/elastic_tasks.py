"""Tasks for tests of elastic blocks; workers import them by name."""

from __future__ import annotations

import os
import time
from pathlib import Path


def wait_for(path: str) -> str:
    """Wait until the file is there; returns the GPUs that the task sees."""
    while not Path(path).exists():
        time.sleep(0.01)
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def nothing() -> None:
    pass
