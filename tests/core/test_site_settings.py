"""Settings in layers, what a site's policy allows of them, and the configuration that they amount to."""

from __future__ import annotations

import dataclasses
import fnmatch
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.config.compose import Effective, effective, expanded
from pilotflow.config.here import config_to_use, more_within_policy, within_policy
from pilotflow.config.model import Config, ExecutorConfig, ThreadExecutorConfig
from pilotflow.config.places import Places, nothing_said
from pilotflow.config.settings import layer_of_call, layer_of_environment, layer_of_file, resolve
from pilotflow.config.site import AccountRules
from pilotflow.errors import ConfigError, PilotflowError, PolicyExceeded
from pilotflow.launchers.srun import SrunMPILauncher
from pilotflow.providers.local import LocalProvider
from pilotflow.providers.slurm import SlurmProvider

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


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (
            {"max_blocks": 5},
            "10 blocks (5 of 'cpu' + 5 of 'gpu') (load(max_blocks=...)): site 'hill' allows max_blocks: 8 ({admin}:12).",
        ),
        (
            {"nodes_per_block": 4, "max_blocks": 3},
            "24 nodes (3 blocks of 4 + 3 blocks of 4) (load(nodes_per_block=...)): site 'hill' allows max_nodes: 16 ({admin}:12).",
        ),
        (
            {"walltime": "13h"},
            "a walltime of 13h (load(walltime=...)): site 'hill' allows max_walltime: 12h ({admin}:12).",
        ),
    ],
)
def test_what_admins_do_not_allow_is_refused_with_both_places(
    tmp_path: Path, call: dict[str, Any], problem: str
) -> None:
    with pytest.raises(PolicyExceeded) as caught:
        settle(tmp_path, {"account": "abc", **call})
    assert str(caught.value) == problem.format(admin=tmp_path / "admin.yaml")


def test_accounts_and_qos_are_held_against_their_lists(tmp_path: Path) -> None:
    site = "name: hill\npartitions: [{name: cpu}, {name: big}]\npolicy: {accounts: [proj*], qos: [normal], partitions: [cpu]}\n"
    assert settle(tmp_path, {"account": "proj1"}, site).config.block_executors[0].label == "cpu"
    with pytest.raises(PolicyExceeded) as caught:
        settle(tmp_path, {"qos": "urgent", "partition": "big"}, site)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "partition 'big' (load(partition=...))",
        "no account",
        "qos 'urgent' (load(qos=...))",
    ]


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
HELD = {"qos": "a", "worker_init": "load", "scheduler_options": ["--exclusive"], "address": "ib0", "walltime": None}
"""Settings that may be fixed, and what the site has as such."""
FACTS = """\
name: s
network: {address: ib0}
worker_init: {load: module load x}
defaults: {qos: a, worker_init: load, scheduler_options: ["--exclusive"]}
"""
counts = st.integers(0, 20)
durations = st.integers(60, 200_000)
names = st.sampled_from(["a", "b", "ab"])
LAYER: dict[str, st.SearchStrategy[Any]] = {
    "max_blocks": counts,
    "min_blocks": counts,
    "init_blocks": counts,
    "nodes_per_block": st.integers(1, 9),
    "walltime": durations,
    "account": names,
    "qos": names,
    "partition": st.sampled_from(["p", "q", "r"]),
    "worker_init": st.sampled_from(["load", "export X=1"]),
    "address": st.sampled_from(["ib0", "ib1"]),
    "scheduler_options": st.sampled_from(["--exclusive", "--hint=x", *BESIDE]).map(lambda one: [one]),
}
POLICY: dict[str, st.SearchStrategy[Any]] = {
    "max_blocks": st.integers(1, 20),
    "max_nodes": st.integers(1, 60),
    "max_queued_jobs": st.integers(1, 20),
    "max_walltime": durations,
    "accounts": st.lists(st.sampled_from(["a", "b", "a*"]), max_size=2),
    "qos": st.lists(st.sampled_from(["a", "b"]), max_size=2),
    "partitions": st.lists(st.sampled_from(["p", "q"]), max_size=2),
    "max_submissions_per_minute": st.integers(1, 400),
    "min_poll_interval": st.integers(1, 100),
    "fixed": st.lists(st.sampled_from(sorted(HELD)), max_size=5, unique=True),
}


def few_of(known: dict[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Up to so many of the keys said, the others None: where more is said, nearly everything is refused."""
    some = st.lists(st.sampled_from(sorted(known)), max_size=most, unique=True)
    nothing: dict[str, Any] = {key: [] if key == "fixed" else None for key in known}
    return some.flatmap(lambda keys: st.fixed_dictionaries({key: known[key] for key in keys})).map(
        lambda said: {**nothing, **said}
    )


layers, policies = few_of(LAYER, 2), few_of(POLICY, 2)
own_layers = few_of(LAYER, 3)


def yaml_of(values: dict[str, Any]) -> str:
    import json

    return json.dumps({key: value for key, value in values.items() if value is not None})


@settings(max_examples=300, deadline=None)
@given(policies, policies, layers, layers, layers, layers)
def test_no_layers_ever_exceed_a_policy(
    tmp_path_factory: pytest.TempPathFactory,
    policy: dict[str, Any],
    tighter: dict[str, Any],
    user: dict[str, Any],
    project: dict[str, Any],
    environment: dict[str, Any],
    call: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("layers")
    partitions = '[{"name": "p"}, {"name": "q", "max_walltime": "1h"}, {"name": "r", "explicit": true}]'
    (folder / "admin.yaml").write_text(f"{FACTS}partitions: {partitions}\npolicy: {yaml_of(policy)}\n")
    (folder / "tighter.yaml").write_text(f"name: s\npolicy: {yaml_of(tighter)}\n")
    (folder / "user.yaml").write_text(yaml_of(user))
    (folder / "project.yaml").write_text(yaml_of(project))
    where = Places(folder / "admin.yaml", (folder / "tighter.yaml",), (), folder / "user.yaml", folder / "project.yaml")
    variables = {
        f"PILOTFLOW_{key.upper()}": ",".join(value) if isinstance(value, list) else str(value)
        for key, value in environment.items()
        if value is not None
    }
    try:
        config = effective(where, variables, call, "{key}").config
    except PilotflowError:  # anything else is a failure
        return
    for limits in (policy, tighter):
        within(limits, config)
    for key in {*policy["fixed"], *tighter["fixed"]}:
        assert all(layer[key] in (None, HELD[key]) for layer in (user, project, environment, call))


@settings(max_examples=300, deadline=None)
@given(policies, policies, st.lists(own_layers, min_size=1, max_size=2))
def test_no_configuration_of_one_s_own_exceeds_a_policy(
    tmp_path_factory: pytest.TempPathFactory,
    policy: dict[str, Any],
    tighter: dict[str, Any],
    wanted: list[dict[str, Any]],
) -> None:
    folder = tmp_path_factory.mktemp("own")
    (folder / "admin.yaml").write_text(f"{FACTS}policy: {yaml_of(policy)}\n")
    (folder / "tighter.yaml").write_text(f"name: s\npolicy: {yaml_of(tighter)}\n")
    where = dataclasses.replace(Places(folder / "admin.yaml"), added=(folder / "tighter.yaml",))
    try:
        executors = [own_executor(f"e{number}", each) for number, each in enumerate(wanted)]
        kept = within_policy(Config(executors=executors), places=where)
    except PilotflowError:
        return
    for limits in (policy, tighter):
        within(limits, kept)


def own_executor(label: str, wanted: dict[str, Any]) -> ExecutorConfig:
    """One that a program has made itself."""
    said = {key: value for key, value in wanted.items() if value is not None}
    address = said.pop("address", None)
    if "scheduler_options" in said:
        said["scheduler_options"] = "".join(f"#SBATCH {option}\n" for option in said["scheduler_options"])
    return ExecutorConfig(label=label, provider=SlurmProvider(**said), address=address)


def within(limits: dict[str, Any], config: Config) -> None:
    providers: list[Any] = [executor.provider for executor in config.block_executors]
    blocks = sum(provider.max_blocks for provider in providers)
    assert limits["max_blocks"] is None or blocks <= limits["max_blocks"]
    assert limits["max_queued_jobs"] is None or blocks <= limits["max_queued_jobs"]
    nodes = sum(provider.max_blocks * provider.nodes_per_block for provider in providers)
    assert limits["max_nodes"] is None or nodes <= limits["max_nodes"]
    for provider in providers:
        assert limits["max_walltime"] is None or provider.walltime_s <= limits["max_walltime"]
        assert limits["partitions"] is None or provider.partition in limits["partitions"]
        assert limits["qos"] is None or provider.qos is None or provider.qos in limits["qos"]
        if limits["accounts"] is not None:
            assert any(fnmatch.fnmatchcase(provider.account, pattern) for pattern in limits["accounts"])
        assert "qos" not in limits["fixed"] or provider.qos == "a"
        assert "worker_init" not in limits["fixed"] or provider.worker_init == "module load x"
        assert "scheduler_options" not in limits["fixed"] or provider.scheduler_options.strip() == "#SBATCH --exclusive"
        for option, limit in BESIDE.items():
            assert limits[limit] is None or option not in provider.scheduler_options
        rate, pause = limits["max_submissions_per_minute"], limits["min_poll_interval"]
        assert rate is None or provider.submit_rate <= rate / 60
        assert pause is None or provider.min_poll_s >= pause
    if "address" in limits["fixed"]:
        assert {executor.address for executor in config.block_executors} == {"ib0"}


def test_what_no_layer_says_is_left_out() -> None:
    assert resolve([layer_of_call({"account": None, "qos": "x"})])["qos"].origin == "load(qos=...)"
    assert "account" not in resolve([layer_of_call({"account": None})])


def test_a_configuration_of_one_s_own_keeps_to_the_machine_s_policy_too(tmp_path: Path) -> None:
    where = places(tmp_path, admin=SITE)
    assert within_policy(Config(), places=where) == Config(), "this machine is nobody's partition"
    config = Config(executors=[ExecutorConfig(label="x", provider=SlurmProvider(max_blocks=9, partition="cpu"))])
    with pytest.raises(PolicyExceeded) as caught:
        within_policy(config, places=where)
    assert str(caught.value).splitlines() == [
        f"9 blocks (executor 'x'): site 'hill' allows max_blocks: 8 ({tmp_path}/admin.yaml:12).",
        f"no walltime (executor 'x'): site 'hill' allows max_walltime: 12h ({tmp_path}/admin.yaml:12).",
    ]


def test_a_configuration_of_one_s_own_is_as_gentle_as_the_machine_s_admins_want(tmp_path: Path) -> None:
    slow = SlurmProvider(partition="cpu", walltime="1h", submit_rate=0.1, min_poll_interval="1m")
    executors: list[ExecutorConfig | ThreadExecutorConfig] = [
        ExecutorConfig(label="fast", provider=SlurmProvider(partition="cpu", walltime="1h")),
        ExecutorConfig(label="slow", provider=slow),
        ThreadExecutorConfig(label="here", max_threads=1),
    ]
    fast, kept, here = within_policy(Config(executors=executors), places=places(tmp_path, admin=SITE)).executors
    assert isinstance(fast, ExecutorConfig)
    assert isinstance(fast.provider, SlurmProvider)
    assert (fast.provider.submit_rate, fast.provider.min_poll_s) == (0.5, 15.0)
    assert (kept, here) == (executors[1], executors[2])


def test_a_user_s_own_tighter_policy_holds_for_configurations_too(tmp_path: Path) -> None:
    tighter = tmp_path / "tighter.yaml"
    tighter.write_text("name: hill\npolicy: {max_blocks: 1}\n")
    where = dataclasses.replace(places(tmp_path, admin=SITE), added=(tighter,))
    config = Config(executors=[ExecutorConfig(provider=SlurmProvider(max_blocks=2, partition="cpu", walltime="1h"))])
    with pytest.raises(PolicyExceeded, match=rf"2 blocks \(executor 'local'\): .*max_blocks: 1 \({tighter}:2\)"):
        within_policy(config, places=where)


def test_blocks_that_are_asked_for_by_hand_count_as_those_of_the_configuration(tmp_path: Path) -> None:
    where = places(tmp_path, admin=SITE)
    config = Config(executors=[ExecutorConfig(provider=SlurmProvider(max_blocks=5, partition="cpu", walltime="1h"))])
    asked = more_within_policy(config, {}, "local", 2, where)
    assert more_within_policy(config, asked, "local", 1, where) == {"local": 3}
    with pytest.raises(PolicyExceeded, match="9 blocks"):
        more_within_policy(config, asked, "local", 2, where)


def test_a_policy_speaks_of_partitions_by_their_names_not_by_those_of_the_batch_system(tmp_path: Path) -> None:
    site = (
        'name: peak\npartitions: [{name: cpu, batch_name: ""}, {name: x, batch_name: y}]\npolicy: {partitions: [cpu]}\n'
    )
    assert [one.label for one in settle(tmp_path, {}, site).config.block_executors] == ["cpu"]
    with pytest.raises(PolicyExceeded, match="partition 'x'"):
        settle(tmp_path, {"partition": "x"}, site)


def test_a_file_with_a_configuration_is_refused_with_its_line(tmp_path: Path) -> None:
    where = places(tmp_path, admin=SITE)
    file = tmp_path / "mine.yaml"
    file.write_text(
        "executors:\n  - label: x\n    provider:\n      type: slurm\n      walltime: 20h\n      partition: cpu\n"
    )
    with pytest.raises(PolicyExceeded) as caught:
        config_to_use(file, {}, where)
    assert str(caught.value) == (
        f"a walltime of 20h ({file}:5): site 'hill' allows max_walltime: 12h ({tmp_path}/admin.yaml:12)."
    )


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
