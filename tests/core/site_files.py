"""A site, and a machine whose admins, user and project have files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pilotflow.config.compose import Effective, effective
from pilotflow.config.places import Places

SITE = """\
name: hill
account: {required: true, suffix_for_gpus: _g}
network: {address: ib0, ports: 50000-50100}
paths: {runs: "$WORK/runs"}
worker_init: {default: module load python, gpu: module load cuda}
partitions:
  - {name: cpu, cpus_per_node: 64, memory_per_node: 240g, max_walltime: 2-00:00:00, default: true}
  - {name: gpu, cpus_per_node: 32, gpus_per_node: 4, gpu_type: a100, max_walltime: 1h, qos: [fast, slow],
     default_qos: fast, charge_factor: 4, launcher: srun_mpi, scheduler_options: ["--licenses=scratch"]}
  - {name: huge, memory_per_node: 2t, explicit: true}
defaults: {max_blocks: 3}
policy: {max_blocks: 8, max_nodes: 16, max_walltime: 12h, partitions: [cpu, gpu, huge], max_submissions_per_minute: 30, min_poll_interval: 15s}
"""


def places(folder: Path, **files: str) -> Places:
    """A machine whose admins, user and project have these files."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return Places(admin=folder / "admin.yaml", user=folder / "user.yaml", project=folder / "project.yaml")


def settle(
    folder: Path, call: dict[str, Any], site: str = SITE, environment: dict[str, str] | None = None, **files: str
) -> Effective:
    said = {"WORK": "/work", **(environment or {})}
    return effective(places(folder, admin=site, **files), said, call, "load({key}=...)")


BESIDE = {
    "--time=9-0": "max_walltime",
    "-Ht9-0": "max_walltime",
    "--exclusive -N 99": "max_nodes",
    "--part=r": "partitions",
    "-A c": "accounts",
    "--qos c": "qos",
    "--array=1-99": "max_queued_jobs",
}
"""Options that would go past limits, by whose."""
