"""A site file written from a real cluster, checked there, and used by a program that names no partition."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pilotflow
from pilotflow.config.site_file import read_site
from tests.slurm.harness.cluster import Cluster
from tests.slurm.tasks import where


def pilotflow_says(cluster: Cluster, cwd: Path, *words: str, check: bool = True) -> str:
    return cluster.pilotflow(*words, cwd=cwd, code=0 if check else None).stdout


def use_the_site(name: str, folder: str) -> None:
    os.environ["PILOTFLOW_SITE_PATH"] = folder
    with pilotflow.load(site=name, max_blocks=1, progress=False) as run:
        labels = [executor.label for executor in run.config.executors]
        print(sorted(labels), where().result(60)[:4], where.options(num_gpus=1)().result(60))


def test_a_site_file_is_generated_checked_and_used(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "sites" / "here.yaml"
    file.parent.mkdir()
    said = pilotflow_says(cluster, tmp_path, "site", "generate", "-o", str(file))
    assert f"{file} written" in said
    site = read_site(file).site
    partitions = {partition.name: partition for partition in site.partitions}
    assert (site.name, partitions["debug"].default, partitions["debug"].cpus_per_node) == ("pfs", True, 4)
    assert (partitions["gpu"].gpus_per_node, partitions["debug"].gpus_per_node) == (2, 0)
    assert (partitions["limited"].max_walltime_s, partitions["limited"].max_nodes) == (300.0, 2)
    assert partitions["off"].explicit, "it is down"

    checked = pilotflow_says(cluster, tmp_path, "site", "check", str(file), "--json", "--run", "--partition=gpu")
    findings = {finding["what"]: finding for finding in json.loads(checked)}
    assert all(finding["passed"] for finding in findings.values()), findings
    assert "ran on node" in findings["partition gpu, task"]["detail"]

    used = cluster.function("tests.slurm.test_sites:use_the_site", "pfs", str(file.parent), cwd=tmp_path)
    assert "['debug', 'gpu', 'limited', 'low'] node node" in used
    assert not cluster.jobs()


def test_a_check_says_what_fails_in_slurm_s_own_words(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "name: wrong\nnetwork: {address: ib7}\npaths: {runs: /proc/no}\npartitions: [{name: debug}, {name: debugg}]\n"
    )
    done = pilotflow_says(cluster, tmp_path, "site", "check", str(file), "--json", check=False)
    findings = {finding["what"]: finding for finding in json.loads(done)}
    failed = sorted(what for what, finding in findings.items() if not finding["passed"])
    assert failed == ["address", "partition debugg, batch job", "paths.runs"]
    assert "invalid partition" in findings["partition debugg, batch job"]["detail"]
    assert "no interface, network, address or name of this machine" in findings["address"]["detail"]
