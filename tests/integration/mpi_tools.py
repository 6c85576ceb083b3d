"""Where tests find MPI: a program or module that is missing is installed in CI, else the test says so."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
from functools import cache

import pytest

OPENMPI_PACKAGES = ("openmpi-bin", "libopenmpi-dev")
MPICH_PACKAGES = ("mpich", "libmpich-dev")


def openmpi() -> str:
    """Open MPI's mpirun, under the name that is its alone on Debian if it is there."""
    return _program("mpirun.openmpi", OPENMPI_PACKAGES)


def plain_openmpi() -> None:
    """Skip the test if the `mpirun` that is found first is not Open MPI's."""
    openmpi()
    found = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, timeout=30, check=False)
    if "Open MPI" not in found.stdout:
        pytest.skip("mpirun is not Open MPI's here: update-alternatives --config mpirun")


@cache
def openmpi_version() -> int:
    """The first number of its version."""
    said = subprocess.run([openmpi(), "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return int(said.split(") ", 1)[1].split(".", 1)[0])  # mpirun (Open MPI) 5.0.7, mpirun.openmpi (OpenRTE) 4.1.4


def openmpi_compiler() -> str:
    return _program("mpicc.openmpi", OPENMPI_PACKAGES)


def mpich() -> str:
    """Hydra's mpiexec."""
    return _program("mpiexec.mpich", MPICH_PACKAGES)


def mpich_compiler() -> str:
    return _program("mpicc.mpich", MPICH_PACKAGES)


def need_mpi4py() -> None:
    """Skip the test if mpi4py, or the MPI that it is to use, is not here."""
    openmpi()
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not here: pip install 'pilotflow[mpi]'")
    os.environ.setdefault("MPI4PY_MPIABI", "openmpi")  # it prefers MPICH where both are


def _program(name: str, packages: tuple[str, ...]) -> str:
    if shutil.which(name) is None:
        apt = ("apt-get", "-qq", "-y", "--no-install-recommends", "install", *packages)
        if os.geteuid() == 0 and shutil.which("apt-get"):
            _install(("apt-get", "-qq", "update"), apt)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: apt-get install {' '.join(packages)}")
    return found


@cache
def _install(*commands: tuple[str, ...]) -> None:
    """In CI only: what cannot be installed there either is skipped with the same words."""
    if os.environ.get("CI", "").lower() in {"", "0", "false"}:
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in commands:
        with contextlib.suppress(subprocess.TimeoutExpired):  # no network: what was to be installed is then missing
            subprocess.run(command, env=environment, check=False, timeout=50, stdin=subprocess.DEVNULL)
