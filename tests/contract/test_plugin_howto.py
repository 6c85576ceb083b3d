"""What the how-to about plugins shows is run as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOWTO = Path(__file__).resolve().parents[2] / "docs" / "howto-plugins.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", HOWTO.read_text(), re.MULTILINE | re.DOTALL)


def shown_tests(programs: list[str]) -> dict[str, Callable[[Path], None]]:
    """The test functions that the programs define, run one after another like a single file."""
    names: dict[str, Any] = {"__name__": "howto"}
    for program in programs:
        exec(compile(program, str(HOWTO), "exec", dont_inherit=True), names)
    return {name: value for name, value in names.items() if name.startswith("test_")}


TESTS = shown_tests(PROGRAMS)


def test_the_howto_shows_a_provider_and_a_launcher_with_their_tests() -> None:
    assert sorted(TESTS) == ["test_hosts_launcher_keeps_the_contract", "test_nice_provider_keeps_the_contract"]


@pytest.mark.parametrize("name", sorted(TESTS))
def test_what_the_howto_shows_keeps_the_contract(name: str, tmp_path: Path) -> None:
    TESTS[name](tmp_path)
