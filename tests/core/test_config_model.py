"""A configuration is checked when it is made, and every refusal names the key."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.config.plugins import load_launcher, load_provider, name_of
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.single_node import SingleNodeLauncher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.providers.base import Provider
from pilotflow.providers.local import LocalProvider
from pilotflow.providers.slurm import SlurmProvider
from pilotflow.supplies import kept_executors


def test_the_default_is_one_executor_on_this_machine() -> None:
    config = Config()
    assert config.block_executors == (ExecutorConfig(label="local"),)
    assert config.block_executors[0].provider == LocalProvider(init_blocks=1, max_blocks=1)
    assert config.block_executors[0].launcher == SingleNodeLauncher()
    assert (config.max_idletime_s, config.heartbeat_limit_s, config.max_frame_bytes) == (120.0, 30.0, 2 << 30)
    assert config.encrypted
    assert not config.tcp
    assert config == Config.for_this_machine()


def test_workers_of_this_machine_can_be_set() -> None:
    assert Config.for_this_machine(max_workers=3).block_executors[0].max_workers_per_node == 3


def test_durations_and_sizes_become_numbers_once() -> None:
    config = Config(max_idletime="1h 30m", heartbeat_limit="PT5S", max_message_bytes="1g", run_dir=Path("r"))
    assert (config.max_idletime, config.heartbeat_limit, config.max_message_bytes) == (5400.0, 5.0, 1 << 30)
    assert config == Config(max_idletime=5400, heartbeat_limit=5, max_message_bytes=1 << 30, run_dir=Path("r"))


@pytest.mark.parametrize(
    ("given", "provider", "launcher", "limit_s"),
    [
        (None, LocalProvider(), SingleNodeLauncher(), 60.0),
        (None, LocalProvider(), SrunLauncher(), 300.0),
        (None, SlurmProvider(), SingleNodeLauncher(), 300.0),
        ("1h", LocalProvider(), SingleNodeLauncher(), 3600.0),
        (20, SlurmProvider(), SrunLauncher(), 20.0),
    ],
)
def test_a_block_without_a_manager_is_given_less_time_on_this_machine_unless_the_user_says(
    given: str | int | None, provider: Provider, launcher: Launcher, limit_s: float, tmp_path: Path
) -> None:
    config = Config(executors=[ExecutorConfig(provider=provider, launcher=launcher)], start_limit=given)
    (kept,) = kept_executors(config, tmp_path, tmp_path / "connection.json", {}, write=False)
    assert kept.limits.start_limit_s == limit_s


def test_a_manager_that_cannot_connect_has_the_time_to_say_why(tmp_path: Path) -> None:
    config = Config(executors=[ExecutorConfig(provider=SlurmProvider())], connect_timeout="10m")
    (kept,) = kept_executors(config, tmp_path, tmp_path / "connection.json", {}, write=False)
    assert kept.limits.start_limit_s == 630.0


def test_a_configuration_survives_pickling() -> None:
    config = Config(executors=[ExecutorConfig(label="a"), ExecutorConfig(label="b")], max_idletime="2m")
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"executors": []}, "Config(executors=...): is empty"),
        ({"executors": ExecutorConfig()}, "Config(executors=...): "),
        (
            {"executors": [3]},
            "Config(executors=...): [3] is not Sequence[ExecutorConfig | ThreadExecutorConfig]: item 0",
        ),
        ({"executors": [ExecutorConfig()] * 2}, "Config(executors=...): label 'local' is used twice"),
        ({"run_dir": 3}, "Config(run_dir=...): 3 is int, expected str | PathLike[str]."),
        ({"run_dir": ""}, "Config(run_dir=...): '' cannot be the path of a directory"),
        ({"retries": -1}, "Config(retries=...): -1 is not a whole number from 0 to 1000000."),
        ({"retries": True}, "Config(retries=...): True is bool, expected int."),
        ({"crash_limit": 0}, "Config(crash_limit=...): 0 is not a whole number from 1"),
        ({"max_idletime": "soon"}, "Config(max_idletime=...): 'soon' is not a duration. Write seconds (90"),
        ({"max_idletime": [1]}, "Config(max_idletime=...): [1] is list, expected float | str."),
        ({"heartbeat_limit": 0}, "Config(heartbeat_limit=...): 0 is less than 100ms."),
        ({"start_limit": "0.5s"}, "Config(start_limit=...): '0.5s' is less than 1s."),
        ({"max_message_bytes": "1k"}, "Config(max_message_bytes=...): '1k' is less than 1 MiB."),
        ({"encrypted": "no"}, "Config(encrypted=...): 'no' is str, expected bool."),
        ({"store": 1}, "Config(store=...): 1 is int, expected bool."),
    ],
)
def test_a_wrong_value_of_the_run_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**fields)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"label": "a b"}, "ExecutorConfig(label=...): 'a b' is no label. Use letters"),
        ({"label": ""}, "ExecutorConfig(label=...): '' is no label"),
        ({"label": "*"}, "'*' is no label"),
        ({"label": "x" * 65}, "is no label"),
        ({"label": 3}, "ExecutorConfig(label=...): 3 is int, expected str."),
        ({"provider": "local"}, "ExecutorConfig(provider=...): 'local' is str, expected Provider."),
        ({"launcher": LocalProvider()}, "is LocalProvider, expected Launcher."),
        ({"max_workers_per_node": 0}, "ExecutorConfig(max_workers_per_node=...): 0 is not a whole number from 1"),
        ({"max_workers_per_node": 1.5}, "1.5 is float, expected int | None."),
        ({"min_time_for_new_tasks": "x"}, "ExecutorConfig(min_time_for_new_tasks=...): 'x' is not a duration."),
        (
            {"min_time_for_new_tasks": "10m", "provider": LocalProvider(walltime="10m")},
            "ExecutorConfig(min_time_for_new_tasks=...): 10m are never left of blocks with a walltime of 10m.",
        ),
        ({"max_parallel_jobs": 10**9}, "ExecutorConfig(max_parallel_jobs=...): 1000000000 is not a whole number from"),
        (
            {"max_workers_per_node": 2, "max_parallel_jobs": 2},
            "ExecutorConfig(max_workers_per_node=..., max_parallel_jobs=...): executor 'local' has both",
        ),
    ],
)
def test_a_wrong_value_of_an_executor_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ExecutorConfig(**fields)
    assert words in str(caught.value)


@dataclass(frozen=True, kw_only=True)
class Foreign(LocalProvider):
    """A provider that leaves the types of its own fields unchecked, as most will."""

    hosts: tuple[str, ...] = ()


def test_a_wrong_type_in_a_foreign_provider_is_named() -> None:
    ExecutorConfig(provider=Foreign(hosts=("a",)))
    with pytest.raises(ConfigError) as caught:
        ExecutorConfig(provider=Foreign(hosts=(1,)))  # type: ignore[arg-type]
    assert "Foreign(hosts=...): (1,) is not tuple[str, ...]: item 0" in str(caught.value)


def test_plugins_load_by_name_and_by_dotted_path() -> None:
    assert load_provider("local") is LocalProvider
    assert load_provider("pilotflow.providers.local:LocalProvider") is LocalProvider
    assert load_launcher("single_node") is SingleNodeLauncher
    assert load_launcher("pilotflow.launchers.single_node:SingleNodeLauncher") is SingleNodeLauncher


def test_plugins_have_their_short_name_back() -> None:
    assert name_of(LocalProvider) == "local"
    assert name_of(SingleNodeLauncher) == "single_node"
    assert name_of(Path) == f"{Path.__module__}:Path"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("locl", "there is no provider 'locl' (did you mean 'local'?). Valid: local, slurm, or the dotted path"),
        ("", "there is no provider ''"),
        ("a b:C", "is no dotted path"),
        (":", "is no dotted path"),
        ("os:", "is no dotted path"),
        ("no_such_module_x:C", "module no_such_module_x cannot be imported (ModuleNotFoundError"),
        ("pilotflow.providers.local:LocalProvide", "has no 'LocalProvide' (did you mean 'LocalProvider'?)"),
        ("pathlib:Path", "is pathlib:Path, which is not a subclass of pilotflow.providers.base.Provider"),
        ("os:getcwd", "is not a subclass of"),
    ],
)
def test_a_provider_that_is_none_is_refused_with_words(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_provider(name)
    assert words in str(caught.value)


def test_a_registered_provider_is_found_among_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "my_site-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-site\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pilotflow.providers]\nnice = my_site_providers:Nice\n")
    (tmp_path / "my_site_providers.py").write_text(
        "from pilotflow.providers.local import LocalProvider\nclass Nice(LocalProvider): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = load_provider("nice")
    assert issubclass(found, LocalProvider)
    assert name_of(found) == "my_site_providers:Nice"
    with pytest.raises(ConfigError, match="did you mean 'nice'"):
        load_provider("nise")
