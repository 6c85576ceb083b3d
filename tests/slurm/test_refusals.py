"""What Slurm will not do: said within seconds, in its own words, with the key to change."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pilotflow
from pilotflow.errors import BlockStartError
from tests.slurm.accounts import SACCTMGR
from tests.slurm.conftest import a_cluster, a_state
from tests.slurm.harness import packages
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.harness.settings import Settings
from tests.slurm.tasks import config, double
from tests.slurm.test_losses import PATIENCE

HERE = "tests.slurm.test_refusals"
SOON_S = 15.0
"""Seconds that a refusal may take: sbatch refuses at once, and 4 s go by before a wait is found to be hopeless."""


def fail(cases: dict[str, dict[str, Any]]) -> None:
    """Submit a task to an executor of each of these providers; print what its error says."""
    for name, provider in cases.items():
        began = time.monotonic()
        with pilotflow.load(config(provider)) as run:
            error = double(1).exception(120)
            assert isinstance(error, BlockStartError), error
            submitted = len([info for info in run.blocks() if info.batch_id is not None])
        print(json.dumps([name, time.monotonic() - began, submitted, str(error)]), flush=True)


def outcomes(cluster: Cluster, folder: Path, cases: dict[str, dict[str, Any]]) -> dict[str, tuple[float, int, str]]:
    text = cluster.function(f"{HERE}:fail", cases, cwd=folder, timeout_s=110)
    return {name: (seconds, submitted, said) for name, seconds, submitted, said in map(json.loads, text.splitlines())}


def check(outcome: tuple[float, int, str], *words: str) -> None:
    seconds, submitted, said = outcome
    for word in words:
        assert word in said, said
    assert submitted <= 1, "a storm"
    assert seconds <= SOON_S * PATIENCE


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "partition": (
        {"partition": "nope"},
        ("invalid partition specified: nope", "debug, gpu", "Set provider.partition"),
    ),
    "walltime": (
        {"partition": "limited", "walltime": "00:10:00"},
        ("PartitionTimeLimit", "Lower provider.walltime"),
    ),
    "nodes": (
        {"partition": "limited", "walltime": 60, "nodes_per_block": 3},
        ("PartitionNodeLimit", "Lower provider.nodes_per_block"),
    ),
    "cores": ({"cores_per_node": 99}, ("PartitionConfig", "cores_per_node")),
}


@pytest.mark.parametrize("names", [("partition", "walltime"), pytest.param(("nodes", "cores"), marks=pytest.mark.soak)])
def test_what_cannot_be_is_said_in_slurms_words_with_the_key_to_change(
    cluster: Cluster, tmp_path: Path, names: tuple[str, ...]
) -> None:
    found = outcomes(cluster, tmp_path, {name: CASES[name][0] for name in names})
    for name in names:
        check(found[name], *CASES[name][1])
    assert not cluster.jobs(), "a job that never starts was left in the queue"


@pytest.fixture(scope="module")
def strict_cluster() -> Iterator[Cluster]:
    settings = Settings(state=a_state("a"), nodes=2, gpu_nodes=0, accounting=True, enforce=True, sacctmgr=SACCTMGR)
    yield from a_cluster(settings, {**packages.CLUSTER, **packages.ACCOUNTING})


@pytest.mark.soak
def test_accounts_and_their_limits(strict_cluster: Cluster, tmp_path: Path) -> None:
    found = outcomes(strict_cluster, tmp_path, {"account": {"account": "nobody"}, "limit": {"walltime": "02:00:00"}})
    check(found["account"], "Invalid account", "Set provider.account")
    check(found["limit"], "QOSMaxWallDurationPerJobLimit", "Lower provider.walltime")


def fill_the_queue() -> None:
    """More blocks are wanted than the site lets one have. (None starts: this database allows no jobs to run.)"""
    given = {"cores_per_node": 1, "max_blocks": 6, "init_blocks": 6, "walltime": 600}
    with pilotflow.load(config(given)) as run:
        wait_for(lambda: any(outlook.trouble for outlook in run._keeper.outlooks()), "the limit is said")
        time.sleep(5.0)  # a storm would begin now
        print(next(outlook.trouble for outlook in run._keeper.outlooks()))
        blocks = run.blocks()
    assert [info.batch_id is not None for info in blocks] == [True] * 3 + [False] * 3


@pytest.mark.soak
def test_a_limit_of_submitted_jobs_is_waited_for_and_said(strict_cluster: Cluster, tmp_path: Path) -> None:
    said = strict_cluster.function(f"{HERE}:fill_the_queue", cwd=tmp_path)
    assert "Slurm takes no more jobs of yours now: QOSMaxSubmitJobPerUserLimit" in said
