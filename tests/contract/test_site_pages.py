"""The guide for admins of sites, and the site files that ship: they load, and say what their keys are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from pilotflow.config.compose import compose
from pilotflow.config.places import shipped_folders
from pilotflow.config.settings import layer_of_call, layer_of_file, resolve
from pilotflow.config.site import Policy
from pilotflow.config.site_file import read_site
from pilotflow.config.sites import needed

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "site-admin.md").read_text(encoding="utf-8")
SHIPPED = sorted((ROOT / "configs" / "sites").glob("*.yaml"))
WANTED = {
    "workstation", "generic-slurm", "perlmutter", "frontier", "polaris", "kestrel", "dane", "stampede3", "expanse", "anvil",
    "delta", "lumi",
}  # fmt: skip


def block(kind: str) -> str:
    match = re.search(rf"^```yaml {kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def test_the_site_file_and_the_settings_of_the_guide_load(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(block("site"))
    (tmp_path / "settings.yaml").write_text(block("settings"))
    site = read_site(tmp_path / "site.yaml").site
    layer = layer_of_file("user", tmp_path / "settings.yaml")
    cpu, gpu = compose(site, resolve([layer]), (), {"SCRATCH": "/scratch"}).block_executors
    assert (cpu.label, gpu.label, cpu.provider.worker_init) == ("cpu", "gpu", "module load python cuda")


def test_the_guide_explains_every_limit() -> None:
    for field in dataclasses.fields(Policy):
        assert f"`{field.name}`" in PAGE


def test_the_sites_that_were_promised_ship() -> None:
    assert {path.stem for path in SHIPPED} >= WANTED
    assert shipped_folders() == (ROOT / "configs" / "sites",)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_site_that_ships_loads_and_has_sources_and_makes_a_configuration(path: Path) -> None:
    site = read_site(path).site
    assert site.name == path.stem
    assert site.description
    if site.batch_system == "local":
        assert not site.partitions
        return
    assert site.partitions
    if path.stem != "generic-slurm":
        assert site.sources, "facts come from public pages"
        assert all(source.url.startswith("https://") for source in site.sources)
        assert site.detect.environment or site.detect.hosts or site.detect.files
    if site.batch_system == "slurm":
        environment = {
            name: f"/{name.lower()}" for name in ("HOME", "SCRATCH", "WORK", "USER", "MEMBERWORK", "PSCRATCH")
        }
        for partition in site.partitions:
            call = layer_of_call({"account": "abc", "partition": partition.name})
            (executor,) = compose(site, resolve([call]), (), environment).executors
            assert executor.label == partition.name


def test_only_files_that_matter_are_read_when_a_run_starts() -> None:
    assert [path.stem for path in SHIPPED if needed("kestrel", {})(path)] == ["kestrel"]
    assert [path.stem for path in SHIPPED if needed("kestral", {})(path)] == ["kestrel"], "for did you mean"
    assert [path.stem for path in SHIPPED if needed(None, {"NERSC_HOST": "perlmutter"})(path)] == ["perlmutter"]
    assert not [path for path in SHIPPED if needed(None, {})(path)]
