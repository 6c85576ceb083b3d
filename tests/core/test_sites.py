"""Site files: what they say, where what is wrong with them is, and which of them hold here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilotflow.config.places import Places
from pilotflow.config.site_file import check_trusted, read_site
from pilotflow.config.sites import detect, read_catalog, site_of
from pilotflow.errors import ConfigError
from pilotflow.launchers.mpirun import MpirunLauncher

SITE = """\
name: hill
description: a small machine
detect: {environment: {CLUSTER: hill}, hosts: ["hill-login[0-9]"]}
account: {required: true}
network: {address: "10.148.0.0/16", ports: 50000-50100}
worker_init:
  default: module load python
  gpu: module load cuda
partitions:
  - name: cpu
    nodes: 10
    cpus_per_node: 64
    memory_per_node: 240g
    max_walltime: 2-00:00:00
    default: true
    unverified: [nodes]
  - {name: gpu, gpus_per_node: 4, gpu_type: a100, max_walltime: 1h}
defaults: {max_blocks: 3, walltime: 2h}
policy:
  max_blocks: 8
  max_walltime: 12h
unverified: [launcher]
"""

LINE = SITE.splitlines().index("  max_blocks: 8") + 1


def write(folder: Path, text: str, name: str = "site.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def problems(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        read_site(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


def test_a_site_file_says_what_the_machine_is_like(tmp_path: Path) -> None:
    file = read_site(write(tmp_path, SITE))
    site = file.site
    assert (site.name, site.batch_system, site.account.required) == ("hill", "slurm", True)
    cpu, gpu = site.partitions
    assert (cpu.memory_bytes, cpu.max_walltime_s, cpu.default) == (240 << 30, 2 * 86400.0, True)
    assert (gpu.gpus_per_node, gpu.gpu_type) == (4, "a100")
    assert site.defaults == {"max_blocks": 3, "walltime": 7200.0}
    assert site.unverified_values() == ["launcher: not known", "partition cpu, nodes: 10"]
    assert file.place("policy.max_blocks") == f"{tmp_path}/site.yaml:{LINE}"


def test_everything_that_is_wrong_is_said_at_once_by_line_and_column(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "nmae: hill\npartitions:\n  - {name: a, cpus_per_nod: 4}\n  - {name: b, max_walltime: soon}\n"
        "policy: {max_blocks: 0}\ndefaults: {walltme: 1h}\nbatch_system: lsf\n",
    )
    assert found[0] == "1:1: name: missing, and there is no default."
    assert found[1].startswith("1:1: nmae: there is no such key (did you mean 'name'?)")
    assert "3:15: partitions[0].cpus_per_nod: there is no such key (did you mean 'cpus_per_node'?)" in found[2]
    assert found[3].startswith("4:29: partitions[1].max_walltime: 'soon' is not a duration")
    assert any("policy.max_blocks: 0 is not a whole number of 1 or more" in line for line in found)
    assert any("defaults.walltme: there is no such key (did you mean 'walltime'?)" in line for line in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: x\nbatch_system: lsf\n", "2:15: batch_system: 'lsf' is none of slurm, pbs, local"),
        ("name: x\npolicy: {fixed: [walltme]}\n", "2:18: policy.fixed[0]: there is no setting 'walltme' (did you mean"),
        ("name: x\nnetwork: {ports: 80-90}\n", "2:18: network.ports: '80-90' is no range of ports"),
        ("name: x\npartitions: [{name: a}, {name: a}]\n", "2:13: partitions: 'a' is described twice"),
        ("name: x\npartitions: [{name: a, default: true}, {name: b, default: true}]\n", "a and b are both `default`"),
        ("name: x\npartitions: {name: a}\n", "2:13: partitions: {'name': 'a'} is a mapping, expected a list"),
        ("name: x\nsources: [{url: a, date: today}]\n", "2:26: sources[0].date: 'today' is no date"),
        ("name: x\nunverified: [polcy]\n", "2:13: unverified: 'polcy' is none of"),
        (
            "name: x\nlauncher: {type: srun, mp: pmix}\n",
            "2:24: launcher.mp: there is no such key (did you mean 'mpi'?)",
        ),
        (
            "name: x\npartitions: [{name: a, launcher: slurm}]\n",
            "2:34: partitions[0].launcher: there is no launcher 'slurm'",
        ),
        ("", "1:1: the file is empty"),
        ("- name: x\n", "1:1: "),
        ("name: !!python/object:os.system {}\n", "the tag"),
    ],
)
def test_each_mistake_has_its_place_and_a_way_out(tmp_path: Path, text: str, words: str) -> None:
    assert words in "\n".join(problems(tmp_path, text))


def test_included_files_fill_in_what_is_not_said_and_keep_their_own_lines(tmp_path: Path) -> None:
    write(
        tmp_path,
        "worker_init: {gpu: module load rocm, mpi: module load mpi}\npolicy: {max_nodes: 4}\nlauncher: mpirun\n",
        "base.yaml",
    )
    file = read_site(write(tmp_path, f"include: base.yaml\n{SITE}"))
    assert file.site.worker_init == {
        "default": "module load python",
        "gpu": "module load cuda",
        "mpi": "module load mpi",
    }
    assert (file.site.policy.max_blocks, file.site.policy.max_nodes, file.site.launcher) == (8, 4, MpirunLauncher())
    assert file.place("policy.max_nodes") == f"{tmp_path}/base.yaml:2"
    assert file.place("policy.max_blocks") == f"{tmp_path}/site.yaml:{LINE + 1}"


def test_a_mistake_in_an_included_file_is_reported_there(tmp_path: Path) -> None:
    write(tmp_path, "policy:\n  max_node: 4\n", "base.yaml")
    with pytest.raises(ConfigError, match=rf"{tmp_path}/base.yaml:2:3: policy.max_node: there is no such key"):
        read_site(write(tmp_path, f"include: [base.yaml]\n{SITE}"))


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "include: site.yaml\n", "base.yaml")
    with pytest.raises(ConfigError, match=r"include: site\.yaml includes this file"):
        read_site(write(tmp_path, f"include: base.yaml\n{SITE}"))


def test_a_missing_included_file_is_named_where_it_is_included(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"site.yaml:1:10: include: .*/bas.yaml: there is no such file"):
        read_site(write(tmp_path, f"include: bas.yaml\n{SITE}"))


@pytest.mark.parametrize(("mode", "who"), [(0o664, "its group"), (0o646, "everybody")])
def test_an_admin_file_that_others_may_write_is_refused(tmp_path: Path, mode: int, who: str) -> None:
    path = write(tmp_path, SITE)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"{who} may write it.*chmod go-w {path}"):
        read_site(path, trusted=True)
    path.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=rf"everybody may write {tmp_path}"):
        check_trusted(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_an_admin_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, SITE)
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        read_site(path, trusted=True)


def test_the_path_adds_sites_and_tightens_the_machine_s_own_but_never_replaces_it(tmp_path: Path) -> None:
    admin = write(tmp_path, SITE)
    extra = tmp_path / "extra"
    extra.mkdir()
    write(extra, "name: dale\n", "a.yaml")
    write(extra, "name: hill\npolicy: {max_blocks: 2}\n", "b.yaml")
    catalog = read_catalog(Places(admin=admin, added=(extra,)))
    assert sorted(catalog.files) == ["dale", "hill"]
    assert [located.policy.max_blocks for located in catalog.policies("hill")] == [8, 2]
    assert [located.site for located in catalog.policies("dale")] == ["hill", "hill", "dale"]

    write(extra, "name: hill\npartitions: []\n", "b.yaml")
    with pytest.raises(ConfigError, match=r"b.yaml:2: partitions: site 'hill' is described by .*site.yaml"):
        read_catalog(Places(admin=admin, added=(extra,)))


def test_a_site_that_ships_is_replaced_by_one_that_is_kept_here(tmp_path: Path) -> None:
    shipped, added = tmp_path / "shipped", tmp_path / "added"
    for folder, text in ((shipped, "old"), (added, "new")):
        folder.mkdir()
        write(folder, f"name: hill\ndescription: {text}\n")
    catalog = read_catalog(Places(admin=tmp_path / "none", added=(added,), shipped=(shipped,)))
    assert catalog.site("hill").site.description == "new"
    with pytest.raises(ConfigError, match=r"no site 'hil' \(did you mean 'hill'\?\)"):
        catalog.site("hil")


def test_a_site_is_found_by_variables_host_names_and_files(tmp_path: Path) -> None:
    folder = tmp_path / "sites"
    folder.mkdir()
    write(folder, SITE)
    write(folder, f"name: dale\ndetect: {{files: [{tmp_path}/dale]}}\n", "dale.yaml")
    catalog = read_catalog(Places(admin=tmp_path / "none", added=(folder,)))
    assert detect(catalog, {}, ["vm"]) == []
    assert [hit.reason for hit in detect(catalog, {"CLUSTER": "hill"}, ["vm"])] == ["CLUSTER=hill"]
    assert [hit.file.site.name for hit in detect(catalog, {}, ["hill-login3"])] == ["hill"]
    (tmp_path / "dale").touch()
    assert [hit.file.site.name for hit in detect(catalog, {}, ["vm"])] == ["dale"]
    with pytest.raises(ConfigError, match="more than one site: dale"):
        site_of(catalog, None, {"CLUSTER": "hill"})
    assert site_of(catalog, "hill", {}) is catalog.site("hill").site
