"""Programs as users write them, run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60


def run_script(
    directory: Path, code: str, *arguments: str, check: bool = True, stdin: str = "", path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in a directory, and with one more to import from; its output as text."""
    script = directory / "program.py"
    script.write_text(textwrap.dedent(code), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", *(arguments or [str(script)])],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{path}:{ROOT}" if path else str(ROOT)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done
