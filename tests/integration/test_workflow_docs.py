"""The page about workflows: its files are written, its commands are run, and print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.scripts import ROOT

pytestmark = pytest.mark.timeout(600)  # many processes, one after another, on a machine that may be busy

PAGE = ROOT / "docs" / "workflows.md"
BLOCK = re.compile(r"^```(?P<kind>yaml|console)\n(?P<text>.*?)^```\n", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#:]+)\)")
SKIP = "..."


def matches(expected: list[str], lines: list[str]) -> bool:
    """Whether lines are as the page says; `...` alone is any number of lines, at an end of a line any text."""
    if not expected:
        return not lines
    if expected[0] == SKIP:
        return any(matches(expected[1:], lines[at:]) for at in range(len(lines) + 1))
    return bool(lines) and _same(expected[0], lines[0]) and matches(expected[1:], lines[1:])


def _same(expected: str, line: str) -> bool:
    if expected.endswith(SKIP):
        return line.startswith(expected.removesuffix(SKIP).rstrip())
    return expected.rstrip() == line.rstrip()


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Commands of a console block, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def test_the_page_about_workflows_is_true(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    tool = tmp_path / "bin" / "pilotflow"
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m pilotflow "$@"\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    count, began = 0, time.monotonic()
    for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        if block["kind"] == "yaml":
            name = block["text"].splitlines()[0].removeprefix("# ")
            (tmp_path / name).write_text(block["text"])
            continue
        for command, expected in commands(block["text"]):
            done = subprocess.run(
                command,
                shell=True,
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            lines = done.stdout.splitlines()
            assert matches(expected, lines), f"$ {command}\n{done.stdout}{done.stderr}"
            count += 1
            print(f"{time.monotonic() - began:.1f} s after {command}")
    assert count >= 10


def test_links_of_the_page_lead_somewhere() -> None:
    for match in LINK.finditer(PAGE.read_text(encoding="utf-8")):
        assert (ROOT / "docs" / match["target"]).exists(), match["target"]
