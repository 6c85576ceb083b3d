"""A site file as an admin makes it, on a real cluster: generated, tightened, installed, checked, then held against users.

The admin's folder is put over /etc/pilotflow on the login host alone, whose mounts are its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import pilotflow as pf
from pilotflow.config.places import ADMIN_FILE
from pilotflow.errors import PolicyExceeded
from pilotflow.providers.slurm import SlurmProvider
from tests.slurm.harness.cluster import Cluster
from tests.slurm.tasks import where

POLICY = """\
policy:
  max_blocks: 2
  max_nodes: 3
  max_walltime: 10m
  max_submissions_per_minute: 60
  min_poll_interval: 2s
  partitions: [debug, "gp*"]
  fixed: [encrypted, ports, worker_init]
worker_init: {default: export OF_SITE=1}
message: Down on Tuesday.
"""
JOBS = """\
resource_requirements: [{name: one, num_cpus: 1, memory: 50m, runtime: PT1M}]
jobs: [{name: "a_{i}", command: "sleep 0.2; hostname > a_{i}.txt", resource_requirements: one, parameters: {i: "1:24"}}]
"""


def said(cluster: Cluster, cwd: Path, *words: str, code: int = 0, **variables: str) -> CompletedProcess[str]:
    return cluster.pilotflow(*words, cwd=cwd, code=code, **variables)


@pytest.fixture
def line(cluster: Cluster, tmp_path: Path) -> Iterator[int]:
    """The line of /etc/pilotflow/site.yaml on which its policy begins; the rest is what `site generate` has written."""
    (tmp_path / "admin").mkdir(mode=0o755)
    said(cluster, tmp_path, "site", "generate", "-o", "site.yaml")
    generated = (tmp_path / "site.yaml").read_text().partition("policy:")[0]
    (tmp_path / "site.yaml").write_text(generated + POLICY)
    cluster.run("install", "-D", "-m", "0644", str(tmp_path / "site.yaml"), str(tmp_path / "admin" / "site.yaml"))
    folder = ADMIN_FILE.parent
    folder.mkdir(exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    fcntl.flock(here, fcntl.LOCK_SH)  # removing it would unmount what the tests of another clone have mounted there
    cluster.run("mount", "--bind", str(tmp_path / "admin"), str(folder))
    try:
        yield generated.count("\n") + 1
    finally:
        cluster.run("umount", str(folder))
        with contextlib.suppress(OSError):  # it was there before and has something in it, or another clone uses it
            fcntl.flock(here, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rmdir()
        os.close(here)
    assert not cluster.jobs()


def blocks_of(directory: Path) -> list[tuple[int, float, str]]:
    """Nodes, walltime in minutes and partition of each batch job that a run has asked for, from its scripts."""
    out = []
    for script in (directory / "scripts").glob("*.sh"):
        text = script.read_text()
        options = dict(re.findall(r"^#SBATCH --(nodes|time|partition)=(\S+)$", text, re.MULTILINE))
        hours, minutes, seconds = options["time"].rpartition("-")[2].split(":")
        out.append(
            (int(options["nodes"]), 60 * int(hours) + int(minutes) + int(seconds) / 60, options["partition"].strip("'"))
        )
    return out


def within(directory: Path) -> bool:
    blocks = blocks_of(directory)
    return (
        0 < len(blocks) <= 2
        and sum(nodes for nodes, _, _ in blocks) <= 3
        and all(minutes <= 10 and partition in ("debug", "gpu") for _, minutes, partition in blocks)
    )


def test_a_workflow_that_names_no_partition_is_planned_within_the_policy(
    cluster: Cluster, line: int, tmp_path: Path
) -> None:
    (tmp_path / "w.yaml").write_text(f"name: w\nexecution_config: {{mode: direct}}\n{JOBS}")
    done = said(cluster, tmp_path, "run", "w.yaml", "--json")
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert re.search(r"^planned: [12] x \d nodes? of partition '(debug|gpu)' for ", done.stderr, re.MULTILINE), (
        done.stderr
    )
    assert "pfs: Down on Tuesday.\n" in done.stderr
    assert within(tmp_path / "runs" / "0001")
    assert (tmp_path / "a_24.txt").read_text().startswith("node")
    assert f"{ADMIN_FILE}:{line + 1}" in said(cluster, tmp_path, "config", "show", "--origin").stdout


def test_what_is_generated_for_a_workflow_runs_within_the_policy(cluster: Cluster, line: int, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(f"name: w\nexecution_config: {{mode: direct}}\n{JOBS}")
    assert line
    said(cluster, tmp_path, "slurm", "generate", "w.yaml", "-o", "ready.yaml")
    said(cluster, tmp_path, "run", "ready.yaml")
    assert within(tmp_path / "runs" / "0001")


def script_with_a_site() -> None:
    """A program as users write it; asks for much more than it gets."""
    with pf.load(progress=False) as run:
        futures = [where() for _ in range(8)]
        print(run.directory, {future.result(90)[:4] for future in futures})
        providers = [executor.provider for executor in run.config.block_executors]
        assert all(
            isinstance(one, SlurmProvider) and one.submit_rate == 1.0 and one.min_poll_s == 2.0 for one in providers
        )
        for count in (1, 9):
            try:
                run.request_blocks(run.config.block_executors[0].label, count)
                print("asked for", count)
            except PolicyExceeded as error:
                print(error)


def test_a_script_that_names_no_partition_stays_within_the_policy(cluster: Cluster, line: int, tmp_path: Path) -> None:
    out = cluster.function("tests.slurm.test_site_policy:script_with_a_site", cwd=tmp_path, timeout_s=110)
    first, *rest = out.splitlines()
    assert first.endswith("{'node'}")
    assert within(Path(first.split()[0]))
    assert rest[-1].endswith(f"site 'pfs' allows max_blocks: 2 ({ADMIN_FILE}:{line + 1}).") or f"{ADMIN_FILE}" in out


def refused(cluster: Cluster, cwd: Path, *words: str, **variables: str) -> list[str]:
    done = said(cluster, cwd, *words, code=2, **variables)
    assert "Traceback" not in done.stderr
    assert not list((cwd / "runs").glob("0*")), "refused before anything is started"
    return done.stderr.splitlines()


def test_refusals_name_policy_limit_value_and_both_places(cluster: Cluster, line: int, tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text(f"name: w\n{JOBS}")
    (tmp_path / "own.yaml").write_text(
        f"name: own\n{JOBS}"
        "slurm_schedulers:\n"
        '  - {name: big, account: root, partition: debug, nodes: 4, walltime: "00:20:00"}\n'
        '  - {name: low, account: root, partition: low, nodes: 1, walltime: "00:05:00"}\n'
        "actions: [{trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: big, scheduler_type: slurm, num_allocations: 3}]\n"
    )
    (tmp_path / "pilotflow.yaml").write_text("walltime: 1h\n")
    at = f"{ADMIN_FILE}:{line}"[: -len(str(line))]
    [long] = refused(cluster, tmp_path, "run", "w.yaml")
    assert f"a walltime of 1h (pilotflow.yaml:1): site 'pfs' allows max_walltime: 10m ({at}{line + 3})." in long
    (tmp_path / "pilotflow.yaml").write_text("")
    for words in (["--set", "max_blocks=9"], ["--set", "max_blocks=9", "--set", "partition=debug"]):
        assert f"(--set max_blocks): site 'pfs' allows max_blocks: 2 ({at}{line + 1})." in "".join(
            refused(cluster, tmp_path, "run", "w.yaml", *words)
        )
    [fixed] = refused(cluster, tmp_path, "run", "w.yaml", PILOTFLOW_ENCRYPTED="false")
    assert "encrypted=False (PILOTFLOW_ENCRYPTED) cannot be set" in fixed
    assert f"policy 'fixed' of site 'pfs' ({at}{line + 7})" in fixed
    lines = refused(cluster, tmp_path, "run", "own.yaml")
    schedulers = [
        number for number, text in enumerate((tmp_path / "own.yaml").read_text().splitlines(), 1) if "account" in text
    ]
    big, low = (f"own.yaml:{number}:5" for number in schedulers)
    for expected in (
        f"4 blocks (3 of 'big' + 1 of 'low') ({big}, {low}): site 'pfs' allows max_blocks: 2 ({at}{line + 1}).",
        f"a walltime of 20m ({big}): site 'pfs' allows max_walltime: 10m ({at}{line + 3}).",
        f"partition 'low' ({low}): site 'pfs' allows partitions: debug, gp* ({at}{line + 6}).",
    ):
        assert any(expected in text for text in lines), (expected, lines)
    assert not cluster.jobs()


def test_what_would_be_submitted_is_shown_as_the_policy_has_it(cluster: Cluster, line: int, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    provider = "{type: slurm, partition: debug, walltime: 5m}"
    file.write_text(f"executors:\n  - label: x\n    provider: {provider}\n")
    assert "\nexport OF_SITE=1\n" in said(cluster, tmp_path, "slurm", "script", str(file)).stdout
    said(cluster, tmp_path, "check", str(file))
    file.write_text(file.read_text().replace("5m}", '5m, scheduler_options: "#SBATCH --time=9-0"}'))
    for words in (["slurm", "script"], ["check"]):
        [problem] = refused(cluster, tmp_path, *words, str(file))
        at = f"{ADMIN_FILE}:{line + 3}"
        assert f"the option --time=9-0 ({file}:3): site 'pfs' allows max_walltime: 10m ({at})." in problem
    assert not cluster.jobs()


def test_blocks_by_hand_and_a_looser_file_of_users_do_not_get_around_it(
    cluster: Cluster, line: int, tmp_path: Path
) -> None:
    (tmp_path / "w.yaml").write_text(
        'name: w\nexecution_config: {mode: direct}\njobs: [{name: a, command: "sleep 600"}]\nslurm_schedulers:\n'
        '  - {name: s, account: root, partition: debug, nodes: 1, walltime: "00:05:00"}\n'
        "actions: [{trigger_type: on_workflow_start, action_type: schedule_nodes, scheduler: s, scheduler_type: slurm}]\n"
    )
    said(cluster, tmp_path, "run", "w.yaml", "--detach")
    done = said(cluster, tmp_path, "slurm", "schedule-nodes", "last", "-n", "2", code=3)
    assert "3 blocks" in done.stderr
    assert f"site 'pfs' allows max_blocks: 2 ({ADMIN_FILE}:{line + 1})" in done.stderr
    said(cluster, tmp_path, "slurm", "schedule-nodes", "last", "-n", "1")
    said(cluster, tmp_path, "cancel", "last")
    said(cluster, tmp_path, "attach", "last", code=1)
    (tmp_path / "loose.yaml").write_text("name: pfs\npolicy: {max_blocks: 50}\n")
    loose = {"PILOTFLOW_SITE_PATH": str(tmp_path / "loose.yaml")}
    asked = said(cluster, tmp_path, "config", "show", "--set", "max_blocks=9", code=2, **loose)
    assert f"({ADMIN_FILE}:{line + 1})" in asked.stderr
    (tmp_path / "loose.yaml").write_text("name: mine\npartitions: [{name: low}]\n")
    asked = said(cluster, tmp_path, "config", "show", "--set", "site=mine", code=2, **loose)
    assert f"partition 'low': site 'pfs' allows partitions: debug, gp* ({ADMIN_FILE}:{line + 6})." in asked.stderr
    cluster.run("chmod", "g+w", str(ADMIN_FILE))
    asked = said(cluster, tmp_path, "config", "show", code=2)
    assert "its group may write it" in asked.stderr
    assert f"chmod go-w {ADMIN_FILE}" in asked.stderr
