"""Every file in configs/ is a configuration, and says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.config.file import load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_there_are_files_to_start_from() -> None:
    assert (CONFIGS / "local.yaml").is_file()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_file_in_configs_loads_and_begins_with_a_comment(path: Path) -> None:
    assert load_config(path).executors
    assert path.read_text().startswith("# ")
