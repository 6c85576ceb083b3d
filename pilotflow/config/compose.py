"""A `Config` from a site and settings: what users need not know is filled in, what is not allowed refused."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pilotflow.config.fixed import RUN_KEYS, check_fixed
from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.config.places import Places
from pilotflow.config.plugins import load_launcher, load_provider
from pilotflow.config.policy import LocatedPolicy, Use, check_uses, refusals
from pilotflow.config.settings import Layer, Setting, layer_of_call, layer_of_environment, layer_of_file, resolve
from pilotflow.config.site import Partition, Site
from pilotflow.config.site_file import SiteFile
from pilotflow.config.sites import Catalog, needed, read_catalog, settled
from pilotflow.config.snippets import batch_name, further_lines, script_lines, worker_init_text
from pilotflow.errors import ConfigError, PolicyExceeded
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.srun import SrunLauncher
from pilotflow.providers.base import Provider
from pilotflow.providers.local import LocalProvider

USUAL_WALLTIME_S: Final = 4 * 3600.0
"""Of a block, where nobody says anything and the partition allows it: longer ones wait longer for their start."""
_EXECUTOR_KEYS: Final = ("max_workers_per_node", "max_parallel_jobs", "address")


@dataclass(frozen=True)
class Effective:
    """What holds here.

    Attributes:
        site: the site, or None where there is none.
        settings: what was said, with origins.
        policies: what has to be kept.
        config: what a run is started with.
        file: the site's file, or None where there is none.
        here: what tells that this is the site, if it was not named.
    """

    site: Site | None
    settings: Mapping[str, Setting]
    policies: Sequence[LocatedPolicy]
    config: Config
    file: SiteFile | None = None
    here: str = ""


def effective(places: Places, environment: Mapping[str, str], call: Mapping[str, Any], where: str) -> Effective:
    """What holds when all layers have been put together.

    Args:
        places: where files are.
        environment: variables.
        call: what the call or the command line says, by setting.
        where: what the origin of such a setting looks like, see `layer_of_call`.

    Raises:
        ConfigError: a file or a value is wrong, or the site cannot be told.
        PolicyExceeded: something is not allowed.
    """
    own = [
        *(
            layer_of_file(name, path)
            for name, path in (("user", places.user), ("project", places.project))
            if path.exists()
        ),
        layer_of_environment(environment),
        layer_of_call(call, where),
    ]
    said = resolve(own).get("site")
    name = None if said is None else said.value
    catalog = read_catalog(places, needed(name, environment))
    place = settled(catalog, name, environment)
    site = None if place is None else place.file.site
    layers = [_site_layer(catalog, site), *own] if site is not None else own
    policies = catalog.policies(None if site is None else site.name)
    check_fixed(policies, layers)
    settings = resolve(layers)
    config = compose(site, settings, policies, environment)
    # Policies speak of partitions by the site's names for them, and this machine is nobody's partition.
    batch = [executor for executor in config.block_executors if not isinstance(executor.provider, LocalProvider)]
    uses = [dataclasses.replace(use_of(executor, environment), partition=executor.label) for executor in batch]
    check_uses(policies, uses, settings)
    if place is None:
        return Effective(None, settings, policies, config)
    return Effective(site, settings, policies, config, place.file, place.reason)


def _site_layer(catalog: Catalog, site: Site) -> Layer:
    file = catalog.site(site.name)
    return Layer("site", site.defaults, {key: file.place(f"defaults.{key}") for key in site.defaults})


def use_of(executor: ExecutorConfig, environment: Mapping[str, str]) -> Use:
    """What an executor may come to use, for policies; fields that its provider does not have are None.

    Args:
        executor: the executor.
        environment: of the program, in which sbatch finds what nobody else says.
    """
    provider: Any = executor.provider
    partition, account, qos = (getattr(provider, key, None) for key in ("partition", "account", "qos"))
    return Use(
        executor.label,
        partition,
        account,
        qos or environment.get("SBATCH_QOS") or None,
        provider.max_blocks,
        provider.nodes_per_block,
        provider.walltime_s,
        further=tuple(further_lines(getattr(provider, "scheduler_options", ""))),
    )


def compose(
    site: Site | None,
    settings: Mapping[str, Setting],
    policies: Sequence[LocatedPolicy],
    environment: Mapping[str, str],
) -> Config:
    """The configuration that a site and settings amount to.

    Without a site, or on one without a batch system, that is this machine. On a site each partition that
    work may go to is an executor whose blocks are asked for when work wants them, so that requests alone decide.

    Raises:
        ConfigError: a value is wrong, or there is no such partition or snippet.
    """
    said = {key: setting.value for key, setting in settings.items()}
    run = {key: said[key] for key in RUN_KEYS if key in said}
    if site is not None and "run_dir" not in run and site.paths.runs is not None:
        try:
            run["run_dir"] = expanded(site.paths.runs, environment)
        except ConfigError as error:
            raise ConfigError(f"Site '{site.name}': {error} Is this machine of that site? Or say run_dir=...") from None
    if site is not None and "ports" not in run and site.network.ports is not None:
        run["ports"] = site.network.ports
    own: dict[str, Any] = {key: said[key] for key in _EXECUTOR_KEYS if key in said}
    if site is None or site.batch_system == "local":
        return Config(executors=(ExecutorConfig(provider=_local(site, said), **own),), **run)
    if site.batch_system != "slurm":
        raise ConfigError(
            f"site '{site.name}' has the batch system {site.batch_system}, for which there is no provider yet; "
            "run inside a batch job of yours with pilotflow.load(site=None)."
        )
    own.setdefault("address", site.network.address)
    partitions = chosen_partitions(site, said.get("partition"), policies)
    room = _room(said, policies, partitions)
    if "partition" not in said and room is not None:  # each has one block at least
        partitions = partitions[: max(1, room)]
    limits = _shared_limits(settings, room, len(partitions))
    if shares := _shares(site, said, limits, partitions):
        own["resources"] = shares
    executors = [_executor(site, partition, settings, limits, policies, own) for partition in partitions]
    return Config(executors=executors, **run)


def _shares(site: Site, said: Mapping[str, Any], limits: _Limits, partitions: Sequence[Partition]) -> Mapping[str, int]:
    """What each node may use of the site's consumables, so that all nodes of a run never use more than there is."""
    nodes = sum(limits.most * said.get("nodes_per_block", partition.min_nodes) for partition in partitions)
    return {name: amount // nodes for name, amount in site.resources.items() if 0 < nodes <= amount}


def expanded(path: str, environment: Mapping[str, str]) -> str:
    """A path of a site file with `~`, `$NAME` and `${NAME}` filled in.

    Raises:
        ConfigError: a variable is not set.
    """
    import string

    try:
        text = string.Template(path).substitute(environment)
    except KeyError as error:
        raise ConfigError(f"paths: {path}: the variable {error.args[0]} is not set.") from None
    except ValueError:
        raise ConfigError(f"paths: {path}: a '$' must be followed by a name; write $$ for the sign itself.") from None
    if text.startswith("~"):
        home = environment.get("HOME")
        text = home + text[1:] if home and text[1:2] in ("", "/") else os.path.expanduser(text)
    return text


def chosen_partitions(
    site: Site, wanted: str | Sequence[str] | None, policies: Sequence[LocatedPolicy]
) -> list[Partition]:
    """The partitions that work may go to: those that were named, or all that need not be named and are allowed.

    Raises:
        ConfigError: there is no such partition, or none that is used unasked.
        PolicyExceeded: there are some, and none is allowed.
    """
    if wanted is not None:
        return [site.partition(name) for name in ([wanted] if isinstance(wanted, str) else wanted)]
    free = [partition for partition in site.partitions if not partition.explicit]
    found = [partition for partition in free if not refusals(policies, partition.name)]
    if free and not found:
        why = [f"partition '{free[0].name}': {text}" for text in refusals(policies, free[0].name)]
        raise PolicyExceeded(f"site '{site.name}' has no partition that may be used unasked.\n" + "\n".join(why))
    if not found:
        names = ", ".join(partition.name for partition in site.partitions) or "none"
        raise ConfigError(f"site '{site.name}' has no partition that is taken unasked. Say partition=...: {names}.")
    return sorted(found, key=lambda partition: not partition.default)


@dataclass(frozen=True)
class _Limits:
    """Blocks of each executor, so that all together keep to the policies."""

    init: int
    least: int
    most: int


def _room(said: Mapping[str, Any], policies: Sequence[LocatedPolicy], partitions: Sequence[Partition]) -> int | None:
    """Blocks that policies leave for all executors together, None for any number."""
    nodes = max(said.get("nodes_per_block", partition.min_nodes) for partition in partitions)
    room: list[int] = []
    for policy in (located.policy for located in policies):
        room += [limit for limit in (policy.max_blocks, policy.max_queued_jobs) if limit is not None]
        room += [policy.max_nodes // nodes] if policy.max_nodes is not None else []
    return min(room, default=None)


def _shared_limits(settings: Mapping[str, Setting], room: int | None, executors: int) -> _Limits:
    """Blocks of each executor: what the user said; else what the site says, or four, if there is room for them."""
    said = {key: setting.value for key, setting in settings.items()}
    least, most = said.get("min_blocks", 0), said.get("max_blocks", 4)
    if "max_blocks" not in said or settings["max_blocks"].layer == "site":
        most = max(1, least, most if room is None else min(most, room // executors))
    return _Limits(said.get("init_blocks", max(least, 1 if executors == 1 and most else 0)), least, most)


def _executor(
    site: Site,
    partition: Partition,
    settings: Mapping[str, Setting],
    limits: _Limits,
    policies: Sequence[LocatedPolicy],
    own: Mapping[str, Any],
) -> ExecutorConfig:
    cls: Any = load_provider("slurm")
    said = {key: setting.value for key, setting in settings.items()}
    account = said.get("account", site.account.default)
    if account is None and site.account.required:
        raise ConfigError(f"site '{site.name}' needs an account: say account=..., or set PILOTFLOW_ACCOUNT.")
    if account is not None:
        account = site.account.name_on(account, gpus=partition.gpus_per_node > 0)
    options = [*partition.scheduler_options, *said.get("scheduler_options", ())]
    provider: Provider = cls(
        partition=batch_name(partition),
        account=account,
        qos=said.get("qos", partition.default_qos),
        constraint=said.get("constraint", partition.constraint),
        reservation=said.get("reservation"),
        gpus_per_node=_gpus(partition),
        nodes_per_block=said.get("nodes_per_block", partition.min_nodes),
        init_blocks=limits.init,
        min_blocks=limits.least,
        max_blocks=limits.most,
        walltime=_walltime_s(partition, settings, policies),
        worker_init=worker_init_text(site, said.get("worker_init")),
        scheduler_options="\n".join(script_lines(options)),
        exclusive=None if partition.shared or "cores_per_node" in said or "mem_per_node" in said else True,
        cores_per_node=said.get("cores_per_node"),
        mem_per_node=said.get("mem_per_node"),
        **_gentleness(policies),
    )
    launcher: Launcher = partition.launcher or site.launcher or SrunLauncher()
    if "launcher" in said:
        launcher = load_launcher(said["launcher"])()
    return ExecutorConfig(
        label=partition.name,
        provider=provider,
        launcher=launcher,
        num_cpus=said.get("cores_per_node", partition.cpus_per_node),
        memory=f"{said['mem_per_node']}g" if said.get("mem_per_node") else partition.memory_bytes,
        num_gpus=partition.gpus_per_node,
        **own,
    )


def _gentleness(policies: Sequence[LocatedPolicy]) -> dict[str, Any]:
    """How gently the batch system has to be treated, if policies say so."""
    limits = [located.policy for located in policies]
    rates = [one.max_submissions_per_minute / 60 for one in limits if one.max_submissions_per_minute is not None]
    pauses = [float(one.min_poll_interval) for one in limits if one.min_poll_interval is not None]
    out: dict[str, Any] = {"submit_rate": min(rates)} if rates else {}
    return {**out, "min_poll_interval": max(pauses)} if pauses else out


def gentle(executor: ExecutorConfig, policies: Sequence[LocatedPolicy]) -> ExecutorConfig:
    """The executor, treating the batch system at least as gently as policies want it."""
    provider: Any = executor.provider
    is_record = dataclasses.is_dataclass(executor.provider)  # those of plugins need not be
    keys = {each.name for each in dataclasses.fields(provider)} if is_record else set()
    wanted = {key: value for key, value in _gentleness(policies).items() if key in keys}
    if "submit_rate" in wanted:
        wanted["submit_rate"] = min(wanted["submit_rate"], provider.submit_rate)
    if "min_poll_interval" in wanted:
        wanted["min_poll_interval"] = max(wanted["min_poll_interval"], float(provider.min_poll_interval))
    return dataclasses.replace(executor, provider=dataclasses.replace(provider, **wanted)) if wanted else executor


def _gpus(partition: Partition) -> int | str | None:
    if not partition.gpus_per_node or not partition.ask_for_gpus:
        return None
    return f"{partition.gpu_type}:{partition.gpus_per_node}" if partition.gpu_type else partition.gpus_per_node


def _walltime_s(partition: Partition, settings: Mapping[str, Setting], policies: Sequence[LocatedPolicy]) -> float:
    """As `walltime_s`; no longer than the partition allows, unless a user has named that partition and a walltime."""
    said, named = settings.get("walltime"), settings.get("partition")
    wanted = walltime_s(partition, None if said is None else said.value, policies)
    if partition.max_walltime_s is None or (said and named and "site" not in (said.layer, named.layer)):
        return wanted
    return min(wanted, partition.max_walltime_s)


def walltime_s(partition: Partition, wanted: float | None, policies: Sequence[LocatedPolicy]) -> float:
    """How long a block may live: what was said, else the longest that all allow, up to four hours."""
    if wanted is not None:
        return float(wanted)
    most = [float(located.policy.max_walltime) for located in policies if located.policy.max_walltime is not None]
    if partition.max_walltime_s is not None:
        most.append(partition.max_walltime_s)
    return min([USUAL_WALLTIME_S, *most])


def _local(site: Site | None, said: Mapping[str, Any]) -> LocalProvider:
    keys = ("nodes_per_block", "init_blocks", "min_blocks", "max_blocks", "walltime")
    given = {key: said[key] for key in keys if key in said}
    return LocalProvider(**given, worker_init=worker_init_text(site, said.get("worker_init")))
