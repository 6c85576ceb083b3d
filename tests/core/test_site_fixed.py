"""What admins have fixed, in layers and in configurations of users' own; and options that would go past limits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from pilotflow.config.here import within_policy
from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.errors import PolicyExceeded
from pilotflow.launchers.srun import SrunLauncher, SrunMPILauncher
from pilotflow.providers.slurm import SlurmProvider
from tests.core.site_files import BESIDE, places, settle


def test_what_is_fixed_cannot_be_set_in_any_layer(tmp_path: Path) -> None:
    site = "name: hill\npartitions: [{name: cpu}]\ndefaults: {walltime: 1h}\npolicy: {fixed: [walltime, encrypted]}\n"
    with pytest.raises(PolicyExceeded) as caught:
        settle(tmp_path, {"walltime": "2h"}, site, user="encrypted: false\n")
    assert str(caught.value).splitlines() == [
        f"walltime=7200.0 (load(walltime=...)) cannot be set: it is 3600.0 by the policy 'fixed' of site 'hill' ({tmp_path}/admin.yaml:4).",
        f"encrypted=False ({tmp_path}/user.yaml:1) cannot be set: it is left as it is by the policy 'fixed' of site 'hill' ({tmp_path}/admin.yaml:4).",
    ]
    assert settle(tmp_path, {"walltime": "1h"}, site, user="").config.block_executors[0].provider.walltime_s == 3600


def test_what_is_fixed_holds_for_a_configuration_of_one_s_own(tmp_path: Path) -> None:
    site = "name: hill\ndefaults: {qos: slow}\npolicy: {fixed: [encrypted, qos, ports]}\n"
    where = places(tmp_path, admin=site)
    for qos, encrypted, ports in (("fast", False, "50000-50001"), ("slow", True, None)):
        provider = SlurmProvider(qos=qos)
        config = Config(executors=[ExecutorConfig(label="x", provider=provider)], encrypted=encrypted, ports=ports)
        if qos == "slow":
            assert within_policy(config, places=where) == config
            continue
        with pytest.raises(PolicyExceeded) as caught:
            within_policy(config, places=where)
        assert [line.partition(" cannot be set: ")[0] for line in str(caught.value).splitlines()] == [
            "encrypted=False (the configuration)",
            "ports='50000-50001' (the configuration)",
            "qos='fast' (executor 'x')",
        ]
        assert f"it is 'slow' by the policy 'fixed' of site 'hill' ({tmp_path}/admin.yaml:3)." in str(caught.value)


FIXED = """\
name: hill
network: {address: ib0, ports: 50000-50100}
worker_init: {default: "module load python\\n", cuda: module load cuda}
launcher: {type: srun, mpi: pmix}
partitions:
  - {name: cpu, scheduler_options: ["--licenses=a"]}
  - {name: gpu, batch_name: g, default_qos: fast, gpus_per_node: 1}
account: {suffix_for_gpus: _g}
defaults: {account: abc, scheduler_options: ["--signal=B:USR1"], partition: [cpu, gpu]}
policy: {fixed: [worker_init, scheduler_options, address, launcher, ports, account, qos, partition, max_workers_per_node]}
"""


def test_what_a_configuration_does_not_say_is_as_admins_have_fixed_it(tmp_path: Path) -> None:
    executors = [
        ExecutorConfig(label="a", provider=SlurmProvider()),
        ExecutorConfig(label="b", provider=SlurmProvider(partition="g", account="abc_g")),
    ]
    kept = within_policy(Config(executors=executors), places=places(tmp_path, admin=FIXED))
    assert kept.ports == "50000-50100"
    first, second = kept.block_executors
    assert isinstance(first.provider, SlurmProvider)
    assert isinstance(second.provider, SlurmProvider)
    assert (first.address, first.launcher) == ("ib0", SrunLauncher(mpi="pmix"))
    assert (first.provider.worker_init, first.provider.partition) == ("module load python\n", "cpu")
    assert first.provider.scheduler_options == "#SBATCH --signal=B:USR1"
    assert (second.provider.partition, second.provider.account, second.provider.qos) == ("g", "abc_g", "fast")
    assert within_policy(kept, places=places(tmp_path)) == kept, "what it has now is what is wanted"


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ({"worker_init": "module load mine"}, "worker_init='module load mine' (executor 'x') cannot be set: it is 'module load python\\n'"),
        ({"scheduler_options": "#SBATCH --nice"}, "scheduler_options='#SBATCH --nice' (executor 'x') cannot be set"),
        ({"address": "eth0"}, "address='eth0' (executor 'x') cannot be set: it is 'ib0'"),
        ({"launcher": SrunMPILauncher()}, "launcher='srun_mpi' (executor 'x') cannot be set: it is 'srun'"),
        ({"max_workers_per_node": 3}, "max_workers_per_node=3 (executor 'x') cannot be set: it is left as it is"),
        ({"partition": "cpus"}, "partition='cpus' (executor 'x') cannot be set: it is 'cpu'"),
    ],
)  # fmt: skip
def test_what_is_fixed_is_so_for_every_part_of_a_configuration(
    tmp_path: Path, own: dict[str, Any], problem: str
) -> None:
    of_executor = {key: own[key] for key in ("address", "launcher", "max_workers_per_node") if key in own}
    provider = SlurmProvider(**{key: value for key, value in own.items() if key not in of_executor})
    config = Config(executors=[ExecutorConfig(label="x", provider=provider, **of_executor)])
    with pytest.raises(PolicyExceeded) as caught:
        within_policy(config, places=places(tmp_path, admin=FIXED))
    assert problem in str(caught.value)
    assert f"'fixed' of site 'hill' ({tmp_path}/admin.yaml:" in str(caught.value)


def test_what_is_fixed_is_not_set_by_a_further_option_either(tmp_path: Path) -> None:
    where = places(tmp_path, admin="name: hill\npolicy: {fixed: [qos, mem_per_node]}\n")
    for option, setting in (("--licenses=a --qos=x", "qos"), ("--mem=1G", "mem_per_node"), ("-qx", "qos")):
        provider = SlurmProvider(scheduler_options=f"#SBATCH {option}")
        with pytest.raises(PolicyExceeded, match=rf"\(executor 'x'\): {setting} cannot be set, by the policy 'fixed'"):
            within_policy(Config(executors=[ExecutorConfig(label="x", provider=provider)]), places=where)


def test_what_is_fixed_for_the_run_is_so_where_all_blocks_are_on_this_machine(tmp_path: Path) -> None:
    where = places(tmp_path, admin="name: hill\npolicy: {fixed: [encrypted]}\n")
    with pytest.raises(PolicyExceeded, match="encrypted=False"):
        within_policy(Config(encrypted=False, tcp=True), places=where)


@pytest.mark.parametrize("option", [*BESIDE, "--ti 99", "--constraint=x -q c"])
def test_no_further_option_of_the_batch_system_goes_past_a_limit(tmp_path: Path, option: str) -> None:
    limits = "max_walltime: 1h, max_nodes: 4, partitions: [p], accounts: [a], qos: [a], max_queued_jobs: 4"
    site = f"name: s\npartitions: [{{name: p}}]\npolicy: {{{limits}}}\n"
    said = {"account": "a", "scheduler_options": [option]}
    with pytest.raises(
        PolicyExceeded, match=r"the option -.* \(load\(scheduler_options=...\)\): site 's' allows .* Say "
    ):
        settle(tmp_path, said, site)
    own = SlurmProvider(partition="p", account="a", walltime="1h", scheduler_options=f"#SBATCH {option}")
    with pytest.raises(PolicyExceeded, match=r"the option -.* \(executor 'x'\): site 's' allows"):
        within_policy(Config(executors=[ExecutorConfig(label="x", provider=own)]), places=places(tmp_path))


def test_the_site_s_own_further_options_may_say_what_is_limited(tmp_path: Path) -> None:
    site = 'name: s\npartitions: [{name: p, scheduler_options: ["--qos=special"]}]\npolicy: {qos: [none]}\n'
    (executor,) = settle(tmp_path, {"scheduler_options": ["--nice"]}, site).config.block_executors
    assert isinstance(executor.provider, SlurmProvider)
    assert executor.provider.scheduler_options == "#SBATCH --qos=special\n#SBATCH --nice"


def test_a_qos_from_the_batch_system_s_own_variable_is_held_against_the_list(tmp_path: Path) -> None:
    site = "name: s\npartitions: [{name: p}]\npolicy: {qos: [slow]}\n"
    with pytest.raises(PolicyExceeded, match="qos 'urgent'"):
        settle(tmp_path, {}, site, environment={"SBATCH_QOS": "urgent"})


def test_ports_that_are_fixed_are_those_of_the_site_s_network(tmp_path: Path) -> None:
    site = "name: hill\npartitions: [{name: cpu}]\nnetwork: {ports: 50000-50100}\npolicy: {fixed: [ports]}\n"
    found = settle(tmp_path, {}, site)
    assert found.config.ports == "50000-50100"
    for ports in ("50000-50100", "60000-60001"):
        config = Config(executors=[ExecutorConfig(provider=SlurmProvider())], ports=ports)
        with (
            contextlib.nullcontext()
            if ports == found.config.ports
            else pytest.raises(PolicyExceeded, match="50000-50100")
        ):
            within_policy(config, places=places(tmp_path))
