"""What is told about sites: which partitions a request fits into, and who has said each value that holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.config.match import match
from pilotflow.config.origins import effective_values
from pilotflow.config.policy import LocatedPolicy
from pilotflow.config.site import Partition, Policy, Site
from pilotflow.config.site_file import check_trusted
from pilotflow.errors import ConfigError
from pilotflow.requests import parse_request
from tests.core.site_files import SITE, settle

HERE = Site(
    name="hill",
    partitions=(
        Partition(name="cpu", nodes=10, cpus_per_node=64, memory_per_node="240g", max_walltime="2d", default=True),
        Partition(name="gpu", nodes=4, cpus_per_node=32, gpus_per_node=4, max_walltime="1h", charge_factor=4),
        Partition(name="huge", memory_per_node="2t", max_nodes=1, explicit=True),
    ),
)


def told(policies: list[LocatedPolicy] | None = None, **asked: object) -> dict[str, str]:
    fits = match(HERE, parse_request(**asked), policies or [])
    return {fit.partition.name: "; ".join(fit.reasons) for fit in fits}


def test_a_request_is_told_where_it_fits_and_why_not_elsewhere_with_both_numbers() -> None:
    assert told(num_gpus=2, runtime="3h", num_nodes=5) == {
        "cpu": "2 GPUs a node, it has none",
        "gpu": "5 nodes, a job gets at most 4; 3h, a job may run 1h",
        "huge": "2 GPUs a node, it has none; 5 nodes, a job gets at most 1",
    }
    assert told(num_cpus=65, memory="300g")["cpu"] == "65 cores a node, it has 64; 300 GiB a node, it has 240 GiB"


def test_the_cheapest_that_need_not_be_named_comes_first_with_what_one_task_costs() -> None:
    fits = match(HERE, parse_request(num_cpus=16, memory="60g", runtime="1h"), [])
    assert [fit.partition.name for fit in fits] == ["cpu", "gpu", "huge"]
    assert (fits[0].at_once, fits[0].cost) == (4, 0.25)
    assert (fits[1].at_once, fits[1].cost) == (2, 2.0)


def test_a_policy_is_a_reason_too() -> None:
    policy = Policy(partitions=["cpu"], max_walltime="30m", max_nodes=2)
    reasons = told([LocatedPolicy(policy, "hill", {"partitions": "/etc/x.yaml:3"})], runtime="40m", num_nodes=3)
    assert reasons["cpu"] == "3 nodes, a job gets at most 2; 40m, a job may run 30m"
    assert "site 'hill' allows partitions: cpu (/etc/x.yaml:3)" in reasons["gpu"]


def test_every_value_that_holds_has_a_place_or_is_built_in(tmp_path: Path) -> None:
    found = settle(tmp_path, {"account": "abc"}, environment={"PILOTFLOW_RETRIES": "2"}, user="qos: slow\n")
    values = {one.key: (one.value, one.origin.removeprefix(f"{tmp_path}/")) for one in effective_values(found)}
    assert values.pop("walltime") == ([14400.0, 3600.0], "built-in default, as far as partitions and policies allow")
    assert values == {
        "site": ("hill", f"{tmp_path}/admin.yaml exists".removeprefix(f"{tmp_path}/")),
        "account": ("abc", "load(account=...)"),
        "partition": (["cpu", "gpu"], "admin.yaml:6"),
        "qos": ("slow", "user.yaml:1"),
        "nodes_per_block": (1, "built-in default, as far as partitions and policies allow"),
        "init_blocks": (0, "built-in default, as far as partitions and policies allow"),
        "min_blocks": (0, "built-in default, as far as partitions and policies allow"),
        "max_blocks": (3, "admin.yaml:11"),
        "worker_init": ("module load python", "admin.yaml:5"),
        "launcher": (["srun", "srun_mpi"], "admin.yaml:6"),
        "address": ("ib0", "admin.yaml:3"),
        "ports": ("50000-50100", "admin.yaml:3"),
        "scheduler_options": ("#SBATCH --licenses=scratch", "admin.yaml:6"),
        "run_dir": ("/work/runs", "admin.yaml:4"),
        "retries": (2, "PILOTFLOW_RETRIES"),
        "crash_limit": (5, "built-in default"),
        "max_idletime": (120.0, "built-in default"),
        "heartbeat_limit": (30.0, "built-in default"),
        "encrypted": (True, "built-in default"),
    }


def test_variables_and_tildes_expand_in_the_site_s_paths_and_nowhere_else(tmp_path: Path) -> None:
    site = SITE.replace("module load python", "'module load $WORK ~/x ${WORK}'").replace("scratch", "$WORK")
    found = settle(tmp_path, {"account": "$WORK"}, site)
    cpu, gpu = found.config.block_executors
    assert str(found.config.run_dir) == "/work/runs"
    assert cpu.provider.worker_init == "module load $WORK ~/x ${WORK}"  # the shell of the block expands it
    assert getattr(cpu.provider, "account", None) == "$WORK"
    assert getattr(gpu.provider, "scheduler_options", None) == "#SBATCH --licenses=$WORK"


def test_an_admin_file_that_is_a_link_is_looked_at_where_it_really_is(tmp_path: Path) -> None:
    real, shown = tmp_path / "real", tmp_path / "shown"
    for folder in (real, shown):
        folder.mkdir(mode=0o755)
    (real / "site.yaml").write_text("name: x\n")
    (real / "site.yaml").chmod(0o644)
    (shown / "site.yaml").symlink_to(real / "site.yaml")
    check_trusted(shown / "site.yaml")
    real.chmod(0o777)
    with pytest.raises(ConfigError, match=f"everybody may write {real}"):
        check_trusted(shown / "site.yaml")
