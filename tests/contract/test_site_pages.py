"""The guide for admins of sites, and the site files that ship: they load, and say what their keys are."""

from __future__ import annotations

import dataclasses
import re
from datetime import date
from pathlib import Path

import pytest

from pilotflow.config.compose import compose
from pilotflow.config.places import shipped_folders
from pilotflow.config.policy import Use, check_uses
from pilotflow.config.settings import Setting, layer_of_call, layer_of_file, resolve
from pilotflow.config.site import Policy
from pilotflow.config.site_file import read_site
from pilotflow.config.sites import Catalog, needed
from pilotflow.errors import PolicyExceeded

MADE = date(2026, 11, 28)
"""No page can have been read after the files were written; move it when one is read again."""
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


def test_refusals_in_the_guide_are_those_of_its_site_file(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(block("site"))
    file = read_site(tmp_path / "site.yaml")
    policies = Catalog(files={"hill": file}).policies("hill")
    said = {"max_blocks": Setting(80, "call", "--set max_blocks")}
    for use, settings in (
        (Use("cpu", "cpu", "abc", None, 80, 0, 60.0), said),
        (Use("own", "cpu", "abc", None, 1, 1, 3 * 86400.0, {"": "own.yaml:9:5"}), {}),
    ):
        with pytest.raises(PolicyExceeded) as caught:
            check_uses(policies, [use], settings)
        assert str(caught.value).replace(f"{tmp_path}/", "/etc/pilotflow/") in PAGE


FACTS = ("nodes", "cpus_per_node", "memory_per_node", "gpus_per_node", "gpu_memory", "max_walltime", "max_nodes")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_fact_of_a_site_that_ships_follows_a_dated_page_or_is_marked(path: Path) -> None:
    site = read_site(path).site
    read = [source for source in site.sources if source.date is not None]
    assert all(date.fromisoformat(source.date or "") <= MADE for source in read)
    for partition in () if read else site.partitions:
        said = [key for key in FACTS if getattr(partition, key) not in (None, 0)]
        assert set(said) <= set(partition.unverified), f"partition {partition.name}: nothing was read that says so"
    marked = sum(len(partition.unverified) for partition in site.partitions) + len(site.unverified)
    assert len(site.unverified_values()) == marked


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
