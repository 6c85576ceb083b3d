"""The commands about sites and settings, as people and programs see them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command_line import pilotflow

SITE = """\
name: hill
description: a small machine
sources: [{url: "https://example.org/hill", date: "2026-01-02"}, {url: "https://example.org/more"}]
detect: {environment: {CLUSTER_OF_TEST: hill}, hosts: ["hill[0-9]"]}
unverified: [detect]
partitions:
  - {name: cpu, nodes: 10, cpus_per_node: 64, memory_per_node: 240g, max_walltime: 2-00:00:00, default: true, unverified: [nodes]}
  - {name: gpu, cpus_per_node: 32, gpus_per_node: 4, max_walltime: 1h, explicit: true}
policy: {max_blocks: 5}
paths: {scratch: /fast, node_local: /tmp}
resources: {matlab: 20}
message: Down on Tuesday.
"""


def told(folder: Path, *words: str, code: int = 0, **variables: str) -> str:
    (folder / "hill.yaml").write_text(SITE)
    environment = {"PILOTFLOW_SITE_PATH": str(folder / "hill.yaml"), "XDG_CONFIG_HOME": str(folder), **variables}
    done = pilotflow(*words, cwd=folder, env=environment)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


def test_sites_are_listed_and_this_one_is_marked(tmp_path: Path) -> None:
    rows = json.loads(told(tmp_path, "site", "list", "--json", CLUSTER_OF_TEST="hill"))
    assert {row["name"]: row["kind"] for row in rows}["hill"] == "added"
    assert [row["name"] for row in rows if row["here"]] == ["hill"]
    assert "hill (here)" in told(tmp_path, "site", "list", CLUSTER_OF_TEST="hill")


def test_a_site_is_detected_with_what_tells_so(tmp_path: Path) -> None:
    assert told(tmp_path, "site", "detect", CLUSTER_OF_TEST="hill") == "hill: CLUSTER_OF_TEST=hill\n"
    assert "This is no site that is known here." in told(tmp_path, "site", "detect", code=2)


def test_a_site_is_shown_with_sources_limits_and_what_is_not_verified(tmp_path: Path) -> None:
    text = told(tmp_path, "site", "show", "hill")
    for words in (
        "https://example.org/hill (2026-01-02)",
        "https://example.org/more (not read)",
        f"max_blocks: 5 ({tmp_path}/hill.yaml:9)",
        "recognised by       CLUSTER_OF_TEST=hill or host hill[0-9]",
        "not verified        detect: CLUSTER_OF_TEST=hill or host hill[0-9]",
        "                    partition cpu, nodes: 10",
        "only if named",
        "consumables         20 matlab",
        "scratch             /fast",
        "message             Down on Tuesday.",
    ):
        assert words in text
    data = json.loads(told(tmp_path, "site", "show", "hill", "--json"))
    assert data["partitions"][0]["unverified"] == ["nodes"]
    assert "no site 'hil' (did you mean 'hill'?)" in told(tmp_path, "site", "show", "hil", code=2)


def test_matching_says_why_other_partitions_do_not_fit(tmp_path: Path) -> None:
    text = told(tmp_path, "site", "match", "hill", "--num-gpus", "2", "--runtime", "30m")
    assert "2 GPUs a node, it has none" in text
    assert "yes, if named" in text
    rows = json.loads(told(tmp_path, "site", "match", "hill", "--num-cpus", "32", "--runtime", "1h", "--json"))
    assert {row["partition"]: (row["fits"], row["at_once"]) for row in rows} == {"cpu": (True, 2), "gpu": (True, 1)}
    assert "it has 64" in told(tmp_path, "site", "match", "hill", "--num-cpus", "65", code=2)


def test_settings_are_shown_with_who_said_them(tmp_path: Path) -> None:
    (tmp_path / "pilotflow").mkdir()
    (tmp_path / "pilotflow" / "config.yaml").write_text("account: mine\nwalltime: 2h\n")
    (tmp_path / "pilotflow.yaml").write_text("account: project\n")
    words = ("config", "show", "--set", "retries=3", "--origin")
    text = told(tmp_path, *words, CLUSTER_OF_TEST="hill", PILOTFLOW_QOS="fast")
    shown = {line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines() if len(line.split()) > 2}
    assert shown["account"] == ["project", "pilotflow.yaml:1"]
    assert shown["walltime"] == ["2h", f"{tmp_path}/pilotflow/config.yaml:2"]
    assert shown["qos"] == ["fast", "PILOTFLOW_QOS"]
    assert shown["retries"] == ["3", "--set retries"]
    assert shown["partition"] == ["cpu", f"{tmp_path}/hill.yaml:6"]
    assert shown["launcher"] == ["srun", "built-in default"]
    wrong = told(tmp_path, "config", "show", "--set", "max_blocks=6", code=2, CLUSTER_OF_TEST="hill")
    assert f"6 blocks (--set max_blocks): site 'hill' allows max_blocks: 5 ({tmp_path}/hill.yaml:9)." in wrong


def test_settings_that_mean_nothing_without_a_site_are_refused_and_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text("name: w\njobs: [{name: a, command: 'true'}]\n")
    for words, named in (
        (("--account", "abc"), "--account abc"),
        (("--set", "walltime=1h", "--account", "abc"), "--set walltime=3600.0, --account abc"),
    ):
        text = told(tmp_path, "run", "w.yaml", *words, code=2)
        assert f"{named}: said of a site's batch system, and no site is known to be here" in text
    text = told(tmp_path, "run", "w.yaml", "--account", "abc", "--num-cpus", "1", code=2)
    assert "--account abc: said of a site's batch system, and other options say that jobs run on this machine" in text
    text = told(tmp_path, "plan", "w.yaml", "--account", "abc", code=2)
    assert "--account are about a site with a batch system; name it by --site." in text
    assert not (tmp_path / "runs").exists()
    told(tmp_path, "run", "w.yaml", "--site", "workstation")
