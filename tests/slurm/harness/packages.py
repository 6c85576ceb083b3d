"""What the test clusters need of the machine, and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

CLUSTER: Final = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
"""Programs of a cluster, and the packages of Debian and Ubuntu that have them."""
ACCOUNTING: Final = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}
_PLUGINS: Final = ("slurm-wlm-mysql-plugin", "slurm-wlm-basic-plugins")
MPI: Final = {"mpirun.openmpi": "openmpi-bin", "ompi_info": "openmpi-bin", "mpicc.openmpi": "libopenmpi-dev"}
TRACING: Final = {"strace": "strace"}
_EVERYTHING: Final = {**CLUSTER, **ACCOUNTING, **MPI, **TRACING}


def in_ci() -> bool:
    """Whether this is continuous integration, where nothing may be passed over."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def missing(programs: dict[str, str] = _EVERYTHING) -> list[str]:
    """Packages whose programs are not here."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return sorted({package for program, package in programs.items() if shutil.which(program, path=path) is None})


def apt_line() -> str:
    """The command that installs everything."""
    packages = sorted({*_EVERYTHING.values(), *_PLUGINS})
    return f"apt-get install -y --no-install-recommends {' '.join(packages)}"


def can_install() -> bool:
    """Whether this is root on a Debian or Ubuntu."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install() -> None:
    """Install what is missing, with the system's package manager.

    Raises:
        subprocess.CalledProcessError: that failed; its words are in the output.
    """
    if not missing():
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ("apt-get update -q", f"{apt_line()} -q"):
        subprocess.run(command.split(), env=environment, check=True, timeout=600, stdin=subprocess.DEVNULL)


def why_not(programs: dict[str, str] = CLUSTER) -> str:
    """Why no cluster can be had here, in one line; empty if one can."""
    if os.geteuid() != 0:
        return f"a Slurm cluster of namespaces needs root; its packages: {apt_line()}"
    if lacking := missing(programs):
        return f"no {', '.join(lacking)}: {apt_line()}"
    probe = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return f"this machine allows no namespaces: {probe.stderr.strip()}" if probe.returncode else ""
