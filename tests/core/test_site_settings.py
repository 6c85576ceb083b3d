"""Settings in layers, what a site's policy allows of them, and the configuration that they amount to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilotflow.config.compose import effective, expanded
from pilotflow.config.places import Places, nothing_said
from pilotflow.config.settings import layer_of_call, layer_of_environment, layer_of_file, resolve
from pilotflow.config.site import AccountRules
from pilotflow.errors import ConfigError
from pilotflow.launchers.srun import SrunMPILauncher
from pilotflow.providers.local import LocalProvider
from pilotflow.providers.slurm import SlurmProvider
from tests.core.site_files import SITE, places, settle


def test_a_higher_layer_goes_before_a_lower_one_and_each_value_knows_where_it_is_from(tmp_path: Path) -> None:
    found = settle(
        tmp_path,
        {"walltime": "3h"},
        environment={"PILOTFLOW_ACCOUNT": "env", "PILOTFLOW_MAX_BLOCKS": "2"},
        user="account: user\nqos: slow\nwalltime: 1h\n",
        project="account: project\nretries: 2\n",
    )
    said = {
        key: (setting.value, setting.origin.removeprefix(f"{tmp_path}/")) for key, setting in found.settings.items()
    }
    assert said == {
        "account": ("env", "PILOTFLOW_ACCOUNT"),
        "qos": ("slow", "user.yaml:2"),
        "max_blocks": (2, "PILOTFLOW_MAX_BLOCKS"),
        "walltime": (10800.0, "load(walltime=...)"),
        "retries": (2, "project.yaml:2"),
    }
    assert found.config.retries == 2


def test_nobody_need_name_a_partition(tmp_path: Path) -> None:
    config = settle(tmp_path, {"account": "abc"}).config
    cpu, gpu = config.block_executors
    assert (config.run_dir, config.ports) == ("/work/runs", "50000-50100")
    assert (cpu.label, cpu.num_cpus, cpu.memory_bytes, cpu.num_gpus, cpu.address) == ("cpu", 64, 240 << 30, 0, "ib0")
    assert isinstance(cpu.provider, SlurmProvider)
    assert isinstance(gpu.provider, SlurmProvider)
    first, second = cpu.provider, gpu.provider
    assert (first.partition, first.account, first.walltime_s, first.worker_init) == (
        "cpu",
        "abc",
        14400,
        "module load python",
    )
    assert (first.init_blocks, first.max_blocks, first.submit_rate, first.min_poll_s) == (0, 3, 0.5, 15.0)
    assert (second.account, second.gpus_per_node, second.qos, second.walltime_s) == ("abc_g", "a100:4", "fast", 3600)
    assert second.scheduler_options == "#SBATCH --licenses=scratch"
    assert isinstance(gpu.launcher, SrunMPILauncher)


def test_a_partition_may_be_a_qos_and_a_constraint_to_the_batch_system(tmp_path: Path) -> None:
    site = 'name: peak\npartitions: [{name: cpu, batch_name: "", default_qos: regular, constraint: cpu}, {name: x, batch_name: y}]\n'
    cpu, other = settle(tmp_path, {}, site).config.block_executors
    assert isinstance(cpu.provider, SlurmProvider)
    assert isinstance(other.provider, SlurmProvider)
    assert (cpu.provider.partition, cpu.provider.qos, cpu.provider.constraint) == (None, "regular", "cpu")
    assert other.provider.partition == "y"


def test_a_partition_that_is_named_is_the_only_executor_and_starts_at_once(tmp_path: Path) -> None:
    config = settle(tmp_path, {"account": "abc", "partition": "huge", "worker_init": ["gpu", "export A=1"]}).config
    (huge,) = config.block_executors
    assert (huge.label, huge.provider.init_blocks) == ("huge", 1)
    assert huge.provider.worker_init == "module load cuda\nexport A=1"


def test_what_only_the_site_says_shrinks_to_what_its_policy_leaves_room_for(tmp_path: Path) -> None:
    config = settle(tmp_path, {"account": "abc", "nodes_per_block": 4}).config
    assert [(executor.label, executor.provider.max_blocks) for executor in config.block_executors] == [
        ("cpu", 2),
        ("gpu", 2),
    ]
    site = SITE.replace("max_blocks: 8", "max_queued_jobs: 1")
    assert [executor.label for executor in settle(tmp_path, {"account": "abc"}, site).config.block_executors] == ["cpu"]


def test_a_walltime_that_is_meant_for_all_partitions_is_no_longer_than_each_allows(tmp_path: Path) -> None:
    def walltimes(call: dict[str, Any], site: str = SITE) -> list[float | None]:
        executors = settle(tmp_path, {"account": "abc", **call}, site).config.block_executors
        return [executor.provider.walltime_s for executor in executors]

    assert walltimes({"walltime": "3h"}) == [10800, 3600]
    by_site = SITE.replace("defaults: {", "defaults: {walltime: 2h, ")
    assert walltimes({}, by_site) == [7200, 3600]
    assert walltimes({"partition": "gpu"}, by_site) == [3600]
    assert walltimes({"partition": "gpu", "walltime": "3h"}) == [10800], "the batch system says what is wrong with it"


def test_without_a_site_it_is_this_machine(tmp_path: Path) -> None:
    found = effective(
        Places(tmp_path / "none", user=tmp_path / "none", project=tmp_path / "none"), {}, {"max_blocks": 2}, "{key}"
    )
    (executor,) = found.config.block_executors
    assert (found.site, type(executor.provider), executor.provider.max_blocks) == (None, LocalProvider, 2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({}, "site 'hill' needs an account: say account=..., or set PILOTFLOW_ACCOUNT"),
        (
            {"account": "a", "partition": "gpus"},
            "site 'hill' has no partition 'gpus' (did you mean 'gpu'?). It has: cpu",
        ),
        ({"account": "a", "worker_init": "gpus"}, "worker_init: there is no snippet 'gpus' (did you mean 'gpu'?)"),
        ({"acount": "a"}, "there is no setting 'acount' (did you mean 'account'?)"),
        ({"walltime": "soon"}, "load(walltime=...): 'soon' is not a duration"),
        ({"max_blocks": "many"}, "load(max_blocks=...): 'many' is str, expected int | None"),
        ({"site": "hil"}, "there is no site 'hil' (did you mean 'hill'?). Known here: hill."),
        ({"site": "hil"}, "`pilotflow site list` shows all"),
    ],
)
def test_a_wrong_word_is_answered_with_what_is_known(tmp_path: Path, call: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settle(tmp_path, call)
    assert words in str(caught.value)


def test_wrong_settings_in_files_and_variables_are_located(tmp_path: Path) -> None:
    path = tmp_path / "user.yaml"
    path.write_text("account: 7\nmax_bloks: 2\n")
    with pytest.raises(ConfigError) as caught:
        layer_of_file("user", path)
    first, second = str(caught.value).splitlines()
    assert first == f"{path}:1:10: account: 7 is int, expected str | null."
    assert second.startswith(f"{path}:2:1: max_bloks: there is no such key (did you mean 'max_blocks'?)")
    for name, text, words in (
        ("MAX_BLOCKS", "x", "'x' is not a whole number"),
        ("ENCRYPTED", "no", "'no' is neither true nor false"),
    ):
        with pytest.raises(ConfigError, match=f"PILOTFLOW_{name}: {words}"):
            layer_of_environment({f"PILOTFLOW_{name}": text})


def test_lists_in_variables_are_separated_by_commas() -> None:
    layer = layer_of_environment(
        {"PILOTFLOW_PARTITION": "a, b", "PILOTFLOW_SCHEDULER_OPTIONS": "--x", "PILOTFLOW_RUN": "1"}
    )
    assert layer.values == {"partition": ["a", "b"], "scheduler_options": ["--x"]}


def test_only_paths_of_the_site_expand_variables() -> None:
    assert expanded("$A/${B}/~", {"A": "/a", "B": "b"}) == "/a/b/~"
    assert expanded("~/x", {"HOME": "/home/me"}) == "/home/me/x"
    for path, words in (("$NOT/x", "the variable NOT is not set"), ("a$", "must be followed by a name")):
        with pytest.raises(ConfigError, match=words):
            expanded(path, {})


def test_what_no_layer_says_is_left_out() -> None:
    assert resolve([layer_of_call({"account": None, "qos": "x"})])["qos"].origin == "load(qos=...)"
    assert "account" not in resolve([layer_of_call({"account": None})])


def test_an_account_has_the_name_that_a_partition_wants_of_it() -> None:
    rules = AccountRules(suffix_for_gpus="-gpu", suffix_for_cpus="-cpu")
    names = {rules.name_on(given, gpus) for given in ("abc", "abc-cpu", "abc-gpu") for gpus in (False, True)}
    assert names == {"abc-cpu", "abc-gpu"}
    assert [AccountRules(suffix_for_gpus="_g").name_on(name, gpus=True) for name in ("abc", "abc_g")] == ["abc_g"] * 2
    assert AccountRules(suffix_for_gpus="_g").name_on("abc", gpus=False) == "abc"


def test_consumables_of_a_site_are_shared_by_all_nodes_that_a_run_may_have(tmp_path: Path) -> None:
    site = "name: s\npartitions: [{name: a}, {name: b, min_nodes: 2}]\nresources: {matlab: 20, rare: 5}\n"
    found = [dict(one.resources) for one in settle(tmp_path, {"max_blocks": 2}, site).config.block_executors]
    assert found == [{"matlab": 3}] * 2, "2 x 1 and 2 x 2 nodes"
    (one,) = settle(tmp_path, {"max_blocks": 5, "partition": "a"}, site).config.block_executors
    assert dict(one.resources) == {"matlab": 4, "rare": 1}


def test_gpus_that_come_with_the_node_are_not_asked_for(tmp_path: Path) -> None:
    site = "name: s\npartitions: [{name: g, gpus_per_node: 4, ask_for_gpus: false}]\n"
    (executor,) = settle(tmp_path, {}, site).config.block_executors
    assert isinstance(executor.provider, SlurmProvider)
    assert (executor.num_gpus, executor.provider.gpus_per_node) == (4, None)


def test_a_plain_load_reads_nothing_where_nobody_has_a_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no batch system
    none = Places(tmp_path / "none", user=tmp_path / "none", project=tmp_path / "none")
    assert nothing_said(none, {}, {"site": None})
    assert not nothing_said(none, {}, {"site": "hill"})
    assert not nothing_said(none, {"PILOTFLOW_ACCOUNT": "a"}, {})
    assert not nothing_said(places(tmp_path, user="qos: x\n"), {}, {})
    (tmp_path / "sbatch").touch(mode=0o755)
    assert not nothing_said(none, {}, {})
    assert nothing_said(none, {"SLURM_JOB_ID": "1"}, {}), "in a batch job its nodes are the place to be"
