"""Programs that look at the Python of the nodes; they need nothing but pilotflow."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pilotflow as pf
from pilotflow.launchers.srun import SrunLauncher
from tests.slurm.tasks import config

SMALL = {"cores_per_node": 1, "mem_per_node": 0.25}


@pf.bash_app
def tools(stdout: str) -> str:
    return 'command -v python; echo "$VIRTUAL_ENV"'


@pf.python_app
def executable() -> str:
    return sys.executable


@pf.python_app
def use(module: str) -> str:
    return str(importlib.import_module(module).__file__)


def run_activated(folder: str) -> None:
    """What is active on a node, and two modules that are not there; one is only here."""
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"  # as if nobody had activated anything
    Path("/dev/shm/only_on_login.py").write_text("")  # each host has its own
    sys.path.append("/dev/shm")
    with pf.load(config(SMALL)):
        tools(stdout=f"{folder}/tools").result(60)
        print(Path(folder, "tools").read_text(), end="")
        for module in ("only_on_login", "nowhere_at_all"):
            print(use(module).exception(60))


def run_chosen(prefix: str) -> None:
    """worker_init has a Python of its own on the PATH."""
    provider = {**SMALL, "worker_init": f"export PATH={prefix}/bin:$PATH"}
    with pf.load(config(provider, {"activate": False})):
        print(executable().result(60))


@dataclass(frozen=True)
class Traced(SrunLauncher):
    """Starts managers under strace."""

    file: str = ""

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        return super().wrap(["strace", "-f", "-qq", "-e", "trace=%file", "-o", self.file, *command], nodes)


def run_traced(folder: str, shared: list[str], staged: str) -> None:
    """One task on a node whose manager is traced; prints how often it looked at shared files."""
    executor: dict[str, Any] = {"launcher": Traced(file=f"{folder}/trace"), "max_workers_per_node": 1}
    if staged:
        executor["stage_env"] = staged
    with pf.load(config(SMALL, executor)):
        prefix = pf.python_app(os.getenv)("VIRTUAL_ENV").result(100)  # its module is everywhere: nothing is imported
    lines = re.findall(r"^[0-9]+ +[a-z0-9]+\((?:[A-Z0-9_]+, )?.*", Path(folder, "trace").read_text(), re.MULTILINE)
    seen = [line.split('"')[1] for line in lines if '"' in line]
    ours = tuple(shared)
    local = f"{staged or '?'}/"
    print(prefix, sum(path.startswith(ours) and not path.startswith(local) for path in seen))


@pf.python_app
def placed(seconds: float) -> tuple[str | None, str | None]:
    time.sleep(seconds)
    return os.environ.get("SLURMD_NODENAME"), os.environ.get("VIRTUAL_ENV")


def run_steps(folder: str) -> None:
    """In slurm mode, workers of steps on both nodes have the environment that was brought there."""
    provider = {"nodes_per_block": 2, "cores_per_node": 4, "mem_per_node": 1}
    with pf.load(config(provider, {"mode": "slurm", "stage_env": folder})):
        found = [future.result(100) for future in [placed(0.5) for _ in range(8)]]
    assert {node for node, _ in found} == {"node1", "node2"}, found
    assert all(str(prefix).startswith(f"{folder}/pilotflow-env-") for _, prefix in found), found
    print("staged")
