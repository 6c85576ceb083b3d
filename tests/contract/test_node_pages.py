"""The pages about placements, connectivity and environments: their files load, and what they say of modes holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilotflow import load
from pilotflow.config.file import load_config
from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.environments import node_environment
from pilotflow.errors import ConfigError
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.supplies import places_steps

DOCS = Path(__file__).resolve().parents[2] / "docs"
FILES = [
    (page, text)
    for page in ("placements.md", "connectivity.md", "worker-environments.md")
    for text in re.findall(r"^```yaml\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]
INSIDE = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}


@pytest.mark.parametrize(("page", "text"), FILES)
def test_a_file_on_a_page_loads(page: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_config(path).executors


def test_tasks_are_steps_where_blocks_are_jobs_of_slurm_and_the_mode_says_so() -> None:
    on_slurm = SlurmProvider()
    assert not places_steps(ExecutorConfig(provider=on_slurm), {})
    assert places_steps(ExecutorConfig(provider=on_slurm, mode="auto"), {})
    assert places_steps(ExecutorConfig(provider=on_slurm, mode="slurm"), {})
    assert not places_steps(ExecutorConfig(mode="auto"), {})
    assert not places_steps(ExecutorConfig(), INSIDE)


def test_mode_slurm_on_this_machine_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Executor 'local': mode=slurm needs blocks that are jobs of Slurm"):
        load(Config(executors=[ExecutorConfig(mode="slurm")], run_dir=tmp_path))


@pytest.mark.parametrize("value", ["scratch", "", "~/env"])
def test_a_directory_of_the_nodes_is_an_absolute_path(value: str) -> None:
    with pytest.raises(ConfigError, match=r"ExecutorConfig\(stage_env=...\)"):
        ExecutorConfig(stage_env=value)


def test_an_environment_that_is_none_cannot_be_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", "/usr")
    monkeypatch.setattr("sys.base_prefix", "/usr")
    with pytest.raises(ConfigError, match=r"Executor 'local': stage_env brings a virtual environment .* runs in none"):
        node_environment(ExecutorConfig(stage_env=True), tmp_path)


def test_without_activation_the_python_is_the_one_that_worker_init_finds(tmp_path: Path) -> None:
    found = node_environment(ExecutorConfig(provider=SlurmProvider(), activate=False), tmp_path)
    assert (found.python.executable, found.prelude) == ("python3", "")
