"""The page about choosing has every decision, and its workflows are ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.core.workflow_texts import read

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "choosing.md").read_text(encoding="utf-8")
HEADINGS = (
    "Resource-aware or depth-limited", "Sort order or binding", "One node or several for a job", "Many single-node jobs in one allocation",
    "One job over all nodes", "Whole nodes", "Slurm mode or direct mode", "One large allocation or many small ones",
    "A stage at a time", "Common mistakes", "How large", "Best practices", "Summary",
)  # fmt: skip


def test_every_decision_has_its_heading() -> None:
    assert re.findall(r"^##+ (.+)$", PAGE, re.MULTILINE) == list(HEADINGS)


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
def test_a_workflow_on_the_page_is_read_without_a_warning(text: str, tmp_path: Path) -> None:
    workflow = read(tmp_path, text)
    assert workflow.actions
    assert not workflow.warnings


@pytest.mark.parametrize(
    ("heading", "rows"),
    [("Sort order", 7), ("One node or several", 5), ("One large", 4), ("How large", 4), ("Summary", 3)],
)
def test_a_table_of_decisions_has_all_its_rows(heading: str, rows: int) -> None:
    section = PAGE.partition(f"## {heading}")[2].partition("\n## ")[0]
    table = re.search(r"^\|.*\n\|[-|]+\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert table is not None
    assert len(table[1].splitlines()) == rows


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (Path(__file__).resolve().parents[2] / "docs" / target).exists(), target
