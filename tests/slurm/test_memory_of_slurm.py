"""What Slurm still knows of jobs that have ended, with accounting and without."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import pilotflow
from pilotflow.providers.slurm import SlurmProvider
from tests.slurm.conftest import a_cluster, a_state
from tests.slurm.harness import packages
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.hosts import wait_for
from tests.slurm.harness.settings import Settings
from tests.slurm.programs import Program
from tests.slurm.tasks import config, noted
from tests.slurm.test_losses import starts

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


def outlive_memory() -> None:
    """A block that is cancelled, and forgotten before anybody has looked, is replaced, and its task runs again."""
    given = {"cores_per_node": 1, "max_blocks": 1, "min_poll_interval": 8}
    with pilotflow.load(config(given, heartbeat_limit=3.0, retries=0)) as run:
        assert noted(1, 2.0, "cancelled").result(100) == 1
        print(*(f"{info.block}:{info.phase.value}" for info in run.blocks()))


def test_a_block_that_slurm_forgets_in_mid_run_is_replaced(forgetful: Cluster, tmp_path: Path) -> None:
    with Program(forgetful, f"{HERE}:outlive_memory", cwd=tmp_path) as program:
        wait_for(lambda: len(starts(tmp_path)) == 1, "the task runs")
        forgetful.run("scancel", *forgetful.jobs())
        (tmp_path / "cancelled").touch()
        said = program.line(100)
        program.finish()
    assert said == "slurm-0:ended slurm-1:working"
    assert len(starts(tmp_path)[1]) == 2


def look_at_array(job: str) -> None:
    found = SlurmProvider().status([job])[job]
    print(found.state.value)


def test_elements_of_an_array_are_told_apart(forgetful: Cluster, tmp_path: Path) -> None:
    """Slurm gives each element an id of its own when it starts; the last one has the array's."""
    array = forgetful.run(
        *("sbatch", "--parsable", "--array=1-3%1", "-c1", "--mem=10", "-o", "/dev/null", "--wrap", "sleep 60")
    ).stdout.strip()
    wait_for(lambda: len(forgetful.jobs("--states=running")) == 1, "one runs")
    assert forgetful.function(f"{HERE}:look_at_array", array, cwd=tmp_path).strip() in {"pending", "running"}
    (element,) = forgetful.jobs("--states=running")
    assert forgetful.function(f"{HERE}:look_at_array", element, cwd=tmp_path).strip() == "running"
    forgetful.run("scancel", array)
