"""Settings that admins have fixed: no layer says others, and no configuration of a user's own has others.

Where such a configuration says nothing, it gets what is fixed; where it says something else, it is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.config.plugins import load_launcher, name_of
from pilotflow.config.policy import LocatedPolicy, at, refuse
from pilotflow.config.settings import Layer
from pilotflow.config.site import Partition, Site
from pilotflow.config.snippets import batch_name, further_lines, script_lines, worker_init_text
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.providers.local import LocalProvider
from pilotflow.units import show

RUN_KEYS: Final = (
    "run_dir",
    "cache",
    "retries",
    "crash_limit",
    "max_idletime",
    "heartbeat_limit",
    "encrypted",
    "ports",
)
"""Settings that are fields of `Config` under the same names."""
_OF_EXECUTOR: Final = ("address", "max_workers_per_node", "max_parallel_jobs", "launcher")


def check_fixed(policies: Sequence[LocatedPolicy], layers: Sequence[Layer]) -> None:
    """See that no layer of users' own changes what admins have fixed.

    Raises:
        PolicyExceeded: naming each such setting, its value and place, and the policy's.
    """
    refuse(
        [
            _problem(located, key, layer.values[key], layer.origins.get(key, layer.name), located.defaults.get(key))
            for located in policies
            for key in located.policy.fixed
            for layer in layers
            if layer.name != "site" and layer.values.get(key) not in (None, located.defaults.get(key))
        ]
    )


def with_fixed(config: Config, policies: Sequence[LocatedPolicy], where: Callable[[str, str], str]) -> Config:
    """A configuration of a user's own, with what admins have fixed where it says nothing of it.

    Args:
        config: the configuration.
        policies: what has to be kept.
        where: who says a setting, by the executor's label (empty for the run) and the setting.

    Raises:
        PolicyExceeded: naming each setting that it has otherwise, its value and place, and the policy's.
    """
    problems: list[str] = []
    for located in policies:
        fixed = located.policy.fixed
        run: dict[str, Any] = {}
        for key in (key for key in RUN_KEYS if key in fixed):
            default = Config.__dataclass_fields__[key].default
            wanted = [located.defaults[key]] if located.defaults.get(key) is not None else []
            _settle(located, key, (getattr(config, key), default), wanted, where("", key), run, problems)
        executors = [
            _executor(one, located, where, problems) if _is_batch(one) and isinstance(one, ExecutorConfig) else one
            for one in config.executors
        ]
        refuse(problems)
        config = dataclasses.replace(config, executors=executors, **run) if fixed else config
    return config


def _is_batch(executor: object) -> bool:
    return isinstance(executor, ExecutorConfig) and not isinstance(executor.provider, LocalProvider)


def _executor(
    executor: ExecutorConfig, located: LocatedPolicy, where: Callable[[str, str], str], problems: list[str]
) -> ExecutorConfig:
    """The executor with what is fixed; what is wrong is added to the problems."""
    provider: Any = executor.provider
    own: dict[str, Any] = {}
    for key in (key for key in _OF_EXECUTOR if key in located.policy.fixed):
        default = provider.default_launcher() if key == "launcher" else None
        wanted = _wanted(key, provider, located)
        _settle(located, key, (getattr(executor, key), default), wanted, where(executor.label, key), own, problems)
    if dataclasses.is_dataclass(executor.provider):  # those of plugins need not be
        fields = {field.name: field.default for field in dataclasses.fields(provider)}
        has = {key: (getattr(provider, key), fields[key]) for key in located.policy.fixed if key in fields}
        if "walltime" in has:
            has["walltime"] = provider.walltime_s, None
        new: dict[str, Any] = {}
        for key, values in has.items():
            wanted = _wanted(key, provider, located)
            _settle(located, key, values, wanted, where(executor.label, key), new, problems)
        own |= {"provider": dataclasses.replace(provider, **new)} if new else {}
    return dataclasses.replace(executor, **own) if own else executor


def _settle(
    located: LocatedPolicy,
    key: str,
    values: tuple[object, object],
    wanted: Sequence[object],
    where: str,
    new: dict[str, Any],
    problems: list[str],
) -> None:
    """Note the new value of a setting that has its default, or the problem with one that has another than wanted."""
    value, default = values
    if value == default and wanted:
        new[key] = wanted[0]
    elif value != default and not any(_same(key, value, one) for one in wanted):
        problems.append(_problem(located, key, value, where, wanted[0] if wanted else None))


def _same(key: str, value: object, wanted: object) -> bool:
    if key == "scheduler_options":
        return further_lines(str(value)) == further_lines(str(wanted))
    return str(value).strip() == str(wanted).strip() if key == "worker_init" else value == wanted


def _wanted(key: str, provider: Any, located: LocatedPolicy) -> list[Any]:
    """What a configuration may have as a fixed setting, the first being what it gets; none for the default."""
    site, said = located.described, located.defaults.get(key)
    if site is None:
        return [] if said is None else [said]
    partition = _partition(site, getattr(provider, "partition", None))
    if key == "worker_init":
        text = worker_init_text(site, said)  # type: ignore[arg-type]  # a settings' value of this name
        return [text] if text else []
    if key == "scheduler_options":
        return _further(partition, located.defaults)
    if key == "launcher":
        return [load_launcher(said)() if isinstance(said, str) else _launcher(site, partition)]
    if key == "partition":
        names = [said] if isinstance(said, str) else list(said) if isinstance(said, (list, tuple)) else []
        return [batch_name(one) for one in site.partitions if one.name in names] or names
    if key == "account":
        account = said or site.account.default
        return (
            []
            if not account
            else list(
                dict.fromkeys(site.account.name_on(str(account), gpus) for gpus in (_gpus(partition), True, False))
            )
        )
    if said is None and partition is not None and key in ("qos", "constraint"):
        said = partition.default_qos if key == "qos" else partition.constraint
    return [] if said is None else [said]


def _partition(site: Site, name: str | None) -> Partition | None:
    """The site's partition that the batch system calls so."""
    return next((one for one in site.partitions if batch_name(one) == name), None)


def _gpus(partition: Partition | None) -> bool:
    return partition is not None and partition.gpus_per_node > 0


def _launcher(site: Site, partition: Partition | None) -> Launcher:
    return (partition.launcher if partition is not None else None) or site.launcher or SrunLauncher()


def _further(partition: Partition | None, defaults: Mapping[str, object]) -> list[str]:
    said = defaults.get("scheduler_options")
    options = list(said) if isinstance(said, (list, tuple)) else []
    of_both = [*(partition.scheduler_options if partition is not None else ()), *options]
    return list(dict.fromkeys("\n".join(script_lines(some)) for some in (of_both, options) if some))


def _problem(located: LocatedPolicy, key: str, value: object, where: str, wanted: object) -> str:
    held = "left as it is" if wanted is None else _text(wanted)
    return (
        f"{key}={_text(value)} ({where}) cannot be set: it is {held} by the policy 'fixed' of site "
        f"'{located.site}'{at(located, 'fixed')}."
    )


def _text(value: object) -> str:
    return show(name_of(type(value)) if isinstance(value, Launcher) else value)
