"""Python on the nodes: activated, chosen by worker_init, staged; and what is said when a module is missing."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.harness import packages
from tests.slurm.harness.cluster import ROOT, Cluster

CALLS_MAX = 1400
"""File-system calls of a manager from its start to its first result, on files that a cluster shares."""
STAGED_CALLS_MAX = 60
"""The same with a staged environment, its standard library left out."""


def test_the_programs_environment_is_active_and_missing_modules_are_explained(cluster: Cluster, tmp_path: Path) -> None:
    said = cluster.function("tests.slurm.environment_runs:run_activated", str(tmp_path), cwd=tmp_path)
    python, prefix, here, nowhere = said.splitlines()
    assert (python, prefix) == (f"{sys.prefix}/bin/python", sys.prefix)
    assert re.search(r"Module 'only_on_login' is here \(/dev/shm/only_on_login\.py\) but not on node node\d", here)
    assert "set worker_init of its executor's provider" in here
    assert nowhere == "No module named 'nowhere_at_all'"


def test_worker_init_can_choose_another_python(cluster: Cluster, small_environment: Path, tmp_path: Path) -> None:
    said = cluster.function("tests.slurm.environment_runs:run_chosen", str(small_environment), cwd=tmp_path)
    assert said == f"{small_environment}/bin/python3\n"


# ---- what a start costs ---------------------------------------------------------------------


@pytest.mark.parametrize("staged", [False, True], ids=["shared", "staged"])
def test_a_managers_start_costs_a_limited_number_of_file_system_calls(
    cluster: Cluster, small_environment: Path, tmp_path: Path, record_property: Any, *, staged: bool
) -> None:
    if (lacking := packages.missing(packages.TRACING)) and not packages.in_ci():
        pytest.skip(f"no {', '.join(lacking)}: {packages.apt_line()}")
    ours = [str(small_environment), f"{ROOT}/pilotflow", str(tmp_path)]
    shared = ours if staged else [*ours, sys.base_prefix]
    python = str(small_environment / "bin/python")
    local = str(tmp_path / "node") if staged else ""
    code = f"from tests.slurm.environment_runs import run_traced; run_traced({str(tmp_path)!r}, {shared!r}, {local!r})"
    said = cluster.run("env", f"--chdir={tmp_path}", python, "-c", code, timeout_s=120).stdout.split()
    prefix, calls = said
    record_property("file-system calls", calls)
    if staged:
        assert prefix.startswith(f"{local}/pilotflow-env-{os.getuid()}/")
        assert 5 < int(calls) <= STAGED_CALLS_MAX
    else:
        assert prefix == str(small_environment)
        assert STAGED_CALLS_MAX < int(calls) <= CALLS_MAX
    print(f"{calls} file-system calls")
