"""Writing small workflows for tests, and what is said about them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.resources import NodeShape
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.spec import read_workflow

EXAMPLES: Final = Path(__file__).resolve().parents[1] / "workflows"
LOCATED: Final = re.compile(r"(?P<file>[^:]+):(?P<line>[0-9]+):(?P<column>[0-9]+): (?P<text>.+)")


def read(folder: Path, text: str, suffix: str = ".yaml", nodes: tuple[NodeShape, ...] = ()) -> Workflow:
    """The workflow of a text."""
    path = folder / f"w{suffix}"
    path.write_text(text, encoding="utf-8")
    return read_workflow(path, nodes=nodes)


def errors(folder: Path, text: str, suffix: str = ".yaml") -> list[str]:
    """What is said about a wrong text, a line each, as `line:column: text`."""
    try:
        read(folder, text, suffix)
    except ConfigError as error:
        lines = str(error).splitlines()
        assert all(LOCATED.fullmatch(line) for line in lines), lines
        return [line.partition(f"w{suffix}:")[2] for line in lines]
    raise AssertionError("this text is a workflow")


def warnings(folder: Path, text: str, nodes: tuple[NodeShape, ...] = ()) -> list[str]:
    """What a text is warned of, as `line:column: text`."""
    return [f"{each.at.line}:{each.at.column}: {each.text}" for each in read(folder, text, nodes=nodes).warnings]
