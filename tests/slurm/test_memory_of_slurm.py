"""What Slurm still knows of jobs that have ended, with accounting and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow.providers.slurm import SlurmProvider
from tests.slurm.conftest import a_cluster, a_state
from tests.slurm.harness import packages
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.harness.settings import Settings

pytestmark = pytest.mark.soak
HERE = "tests.slurm.test_memory_of_slurm"


@pytest.fixture(params=[False, True], ids=["without accounting", "with accounting"])
def forgetful(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that forgets jobs two seconds after their end."""
    settings = Settings(state=a_state("f"), nodes=1, gpu_nodes=0, min_job_age_s=2, accounting=request.param)
    programs = {**packages.CLUSTER, **packages.ACCOUNTING} if request.param else packages.CLUSTER
    yield from a_cluster(settings, programs)


def look(ids: list[str]) -> None:
    """What a provider that has just been made says of them."""
    found = SlurmProvider().status(ids)
    print(json.dumps([[found[id].state.value, found[id].exit_code] for id in ids]))


def test_a_job_that_slurmctld_has_forgotten(forgetful: Cluster, tmp_path: Path) -> None:
    ids = [
        forgetful.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap", text).stdout.strip()
        for text in ("true", "exit 7")
    ]
    forgotten = ("squeue", "-h", "-t", "all", "-o", "%i")
    wait_for(lambda: not forgetful.run(*forgotten).stdout, "slurmctld has forgotten them", 100, 0.5)
    said = json.loads(forgetful.function(f"{HERE}:look", ids, cwd=tmp_path))
    if forgetful.settings.accounting:
        assert said == [["completed", 0], ["failed", 7]]
    else:
        assert said == [["missing", None], ["missing", None]]
