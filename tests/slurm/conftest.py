"""Fixtures with a real Slurm cluster. Where there can be none, its tests are passed over with one line.

With CI=true nothing is passed over: what is missing is installed, and what cannot be is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.harness import packages
from tests.slurm.harness.cluster import Cluster
from tests.slurm.harness.settings import Settings

HERE = Path(__file__).parent
NEEDED = ("msgspec", "zmq", "pyzmq.libs", "cloudpickle", "dill", "tblib", "psutil", "typeguard")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before the first test, and outside its time limit, as this may take a minute."""
    ours = any(item.path.is_relative_to(HERE) for item in session.items)
    if ours and packages.in_ci() and packages.can_install() and not session.config.option.collectonly:
        packages.install()


@pytest.fixture(scope="session")
def _shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    yield from a_cluster(Settings(state=a_state()))


@pytest.fixture
def cluster(_shared_cluster: Cluster) -> Cluster:
    """Four nodes of four CPUs and 4000 MB, two of them with two GPUs each; empty, whatever ran before."""
    _shared_cluster.run("scancel", "--user=root", "--quiet", check=False)
    if _shared_cluster.mended():
        return _shared_cluster
    _shared_cluster.up()
    return _shared_cluster


def a_state(name: str = "") -> Path:
    """A short path for a cluster of this process."""
    return Path(f"/tmp/pfs-{os.getpid()}{name}")


def a_cluster(settings: Settings, programs: dict[str, str] = packages.CLUSTER) -> Iterator[Cluster]:
    """A cluster for fixtures that need one of their own."""
    if reason := packages.why_not(programs):
        if packages.in_ci():
            pytest.fail(f"the tests on a real Slurm cluster cannot run: {reason}")
        pytest.skip(reason)
    cluster = Cluster(settings)
    cluster.up()
    try:
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def small_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with what pilotflow needs and nothing else."""
    prefix = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    target = Path(next(prefix.glob("lib/python*/site-packages")))
    source = Path(sysconfig.get_paths()["platlib"])
    for name in NEEDED:
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("tests"))
    shutil.copy(source / "typing_extensions.py", target)
    return prefix
