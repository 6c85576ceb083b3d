"""Every Python program in the README runs as it stands, and prints what the README says it prints.

A fenced `python` block is one program. A fenced `text` block right after it is its exact output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)


class Program(NamedTuple):
    line: int
    code: str
    output: str | None


PROGRAMS = [
    Program(README.count("\n", 0, match.start()) + 1, match["code"], match["output"])
    for match in BLOCK.finditer(README)
]


def test_the_readme_shows_programs() -> None:
    assert len(PROGRAMS) >= 3
    assert any(program.output for program in PROGRAMS)


def test_the_readme_gives_two_set_up_commands() -> None:
    first_screen = "\n".join(README.splitlines()[:50])
    assert re.findall(r"^ *(make [a-z-]+)", first_screen, re.MULTILINE) == ["make demo", "make test"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"README.md line {program.line}")
def test_a_program_in_the_readme_runs(program: Program, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(program.code, encoding="utf-8")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if program.output is not None:
        assert done.stdout == program.output
