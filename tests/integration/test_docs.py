"""Every Python program in the pages about apps and executors runs, and prints what the page says.

A fenced `python` block is one program. A fenced `text` block right after it is its exact output.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.scripts import ROOT, run_script

PAGES = ("apps.md", "executor.md", "files.md", "memoization.md", "progress.md", "sharing.md")
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#:]+)\)")


class Program(NamedTuple):
    where: str
    code: str
    output: str | None


def programs(page: str) -> list[Program]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        Program(f"{page} line {text.count(chr(10), 0, match.start()) + 1}", match["code"], match["output"])
        for match in BLOCK.finditer(text)
    ]


PROGRAMS = [program for page in PAGES for program in programs(page)]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_programs_with_their_output(page: str) -> None:
    assert len(programs(page)) >= 3
    assert all(program.output for program in programs(page))


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    for match in LINK.finditer((ROOT / "docs" / page).read_text(encoding="utf-8")):
        assert (ROOT / "docs" / match["target"]).exists(), match["target"]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.where)
def test_a_program_in_the_docs_runs(program: Program, tmp_path: Path) -> None:
    assert run_script(tmp_path, program.code).stdout == program.output
