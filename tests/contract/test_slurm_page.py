"""The page about Slurm: its configuration loads, its links lead somewhere, its keys are all keys."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from pilotflow.config.file import load_config
from pilotflow.providers.base import Provider
from pilotflow.providers.slurm import SlurmProvider
from tests.slurm.page import PAGE, parts


def test_the_configuration_on_the_page_is_one(tmp_path: Path) -> None:
    (text,) = parts("yaml")
    (tmp_path / "slurm.yaml").write_text(text)
    (executor,) = load_config(tmp_path / "slurm.yaml").block_executors
    assert isinstance(executor.provider, SlurmProvider)


def test_every_key_of_the_provider_is_on_the_page() -> None:
    own = {field.name for field in dataclasses.fields(SlurmProvider) if field.init}
    own -= {field.name for field in dataclasses.fields(Provider)} - {"walltime", "worker_init"}
    table = PAGE.read_text().partition("## Keys")[2].partition("## ")[0]
    assert own <= set(re.findall(r"`(\w+)`", table)), own - set(re.findall(r"`(\w+)`", table))


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
