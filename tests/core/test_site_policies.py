"""No settings of layers and no configuration of one's own go past what the machine's admins allow."""

from __future__ import annotations

import dataclasses
import fnmatch
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.config.compose import effective
from pilotflow.config.here import config_to_use, more_within_policy, within_policy
from pilotflow.config.model import Config, ExecutorConfig, ThreadExecutorConfig
from pilotflow.config.places import Places
from pilotflow.errors import PilotflowError, PolicyExceeded
from pilotflow.providers.slurm import SlurmProvider
from tests.core.site_files import BESIDE, SITE, places, settle


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
