"""What is known of sites, and which settings hold: as tables, or as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pilotflow.cli.layout import print_pairs, print_table
from pilotflow.config.compose import Effective, effective
from pilotflow.config.match import Fit, match
from pilotflow.config.origins import effective_values
from pilotflow.config.places import usual_places
from pilotflow.config.plugins import name_of
from pilotflow.config.settings import layer_of_environment
from pilotflow.config.site import Partition, Site
from pilotflow.config.site_file import SiteFile
from pilotflow.config.sites import Catalog, detect, read_catalog, site_of
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.requests import parse_request
from pilotflow.units import format_duration, format_memory

_KEY_WIDTH = 20


def show_list(as_json: bool) -> None:
    """Print the sites that are known."""
    catalog = read_catalog(usual_places(os.environ))
    here = {hit.file.site.name for hit in detect(catalog, os.environ)}
    sites = [(name, catalog.files[name]) for name in sorted(catalog.files)]
    if as_json:
        rows = [
            {"name": name, "here": name in here, "kind": catalog.kind[name], "file": str(file.path)}
            for name, file in sites
        ]
        print(json.dumps(rows, indent=2))
        return
    table = [
        (
            f"{name} (here)" if name in here else name,
            file.site.batch_system,
            str(len(file.site.partitions)),
            {"admin": "this machine's", "added": "added", "shipped": "shipped"}[catalog.kind[name]],
            file.site.description.split("\n")[0],
        )
        for name, file in sites
    ]
    print_table(_console(), ("site", "batch system", "partitions", "file is", "description"), table, right={2})


def show_detected(as_json: bool) -> bool:
    """Print which site this is; False if nothing tells."""
    found = detect(read_catalog(usual_places(os.environ)), os.environ)
    if as_json:
        print(json.dumps([{"site": hit.file.site.name, "reason": hit.reason} for hit in found], indent=2))
    elif found:
        for hit in found:
            print(f"{hit.file.site.name}: {hit.reason}")
    else:
        print("This is no site that is known here. `pilotflow site list` shows those that are.")
    return bool(found)


def show_site(name: str | None, as_json: bool) -> None:
    """Print what a site's file says."""
    catalog = read_catalog(usual_places(os.environ))
    site = _named(catalog, name)
    file = catalog.site(site.name)
    if as_json:
        print(json.dumps(_plain(site), indent=2))
        return
    console = _console()
    print_pairs(console, _head(file), _KEY_WIDTH)
    print()
    print_table(
        console,
        ("partition", "nodes", "cores", "memory", "GPUs", "walltime", "nodes a job", "cost", "notes"),
        [_row(partition) for partition in site.partitions],
        right={1, 2, 3},
    )
    if unverified := site.unverified_values():
        print()
        print_pairs(console, [("not verified", unverified[0]), *(("", text) for text in unverified[1:])], _KEY_WIDTH)


def _head(file: SiteFile) -> list[tuple[str, str]]:
    site = file.site
    pairs = [("site", site.name), ("description", site.description), ("file", str(file.path))]
    pairs += [("source", f"{source.url} ({source.date or 'not read'})") for source in site.sources]
    pairs.append(("recognised by", str(site.detect)))
    account = site.account
    pairs.append(("batch system", site.batch_system))
    pairs.append(
        ("account", f"{'required' if account.required else 'not required'}, default {account.default or 'none'}")
    )
    pairs.append(("nodes connect to", site.network.address or "the address that the route to them uses"))
    pairs.append(("run directories", site.paths.runs or "runs/ in the working directory"))
    pairs += [("scratch", site.paths.scratch or ""), ("node-local", site.paths.node_local or "")]
    pairs.append(("consumables", ", ".join(f"{amount} {name}" for name, amount in site.resources.items())))
    pairs.append(("message", site.message.strip()))
    pairs.append(("worker_init", ", ".join(site.worker_init) or "no snippets"))
    limits = {key: value for key, value in vars(site.policy).items() if value not in (None, ())}
    pairs += [
        ("policy", f"{key}: {_value_text(key, value)} ({file.place(f'policy.{key}')})") for key, value in limits.items()
    ]
    return [pair for pair in pairs if pair[1]]


def _row(partition: Partition) -> tuple[str, ...]:
    notes = [word for word, said in (("default", partition.default), ("only if named", partition.explicit)) if said]
    notes += ["nodes are shared"] if partition.shared else []
    gpus = f"{partition.gpus_per_node} {partition.gpu_type or ''}".strip() if partition.gpus_per_node else "-"
    most = partition.max_nodes if partition.max_nodes is not None else "any number"
    return (
        partition.name,
        str(partition.nodes or "?"),
        str(partition.cpus_per_node or "?"),
        "?" if partition.memory_bytes is None else format_memory(partition.memory_bytes),
        gpus,
        "no limit" if partition.max_walltime_s is None else format_duration(partition.max_walltime_s),
        f"{partition.min_nodes} to {most}",
        f"{partition.charge_factor:g}",
        ", ".join(notes),
    )


def show_matches(name: str | None, asked: Mapping[str, Any], as_json: bool) -> bool:
    """Print how a request and the partitions of a site go together; False if none fits."""
    catalog = read_catalog(usual_places(os.environ))
    site = _named(catalog, name)
    fits = match(site, parse_request(**asked), catalog.policies(site.name))
    if as_json:
        rows = [
            {
                "partition": fit.partition.name,
                "fits": not fit.reasons,
                "reasons": fit.reasons,
                "at_once": fit.at_once,
                "cost": fit.cost,
            }
            for fit in fits
        ]
        print(json.dumps(rows, indent=2))
    else:
        header = ("partition", "fits", "tasks a node at once", "cost of one", "why not")
        print_table(_console(), header, [_match_row(fit) for fit in fits], right={2, 3})
    return any(not fit.reasons for fit in fits)


def _match_row(fit: Fit) -> tuple[str, ...]:
    if fit.reasons:
        return fit.partition.name, "no", "", "", "; ".join(fit.reasons)
    named = "yes, if named" if fit.partition.explicit else "yes"
    cost = "?" if fit.cost is None else f"{fit.cost:.3g} node-hours"
    return fit.partition.name, named, str(fit.at_once or "?"), cost, ""


def show_settings(given: Sequence[str], origin: bool, as_json: bool) -> None:
    """Print which settings hold here, and the executors that they amount to."""
    found = effective(usual_places(os.environ), os.environ, parse_settings(given), "--set {key}")
    if as_json:
        print(json.dumps(_settings_data(found), indent=2, default=str))
        return
    console = _console()
    site = "none; this machine" if found.site is None else found.site.name
    print_pairs(console, [("site", site)], _KEY_WIDTH)
    rows = [(key, _value_text(key, value), who) for key, value, who in effective_values(found)]
    if not origin:  # what somebody has said
        rows = [row for row in rows if row[0] in found.settings]
    if rows:
        print()
        header = ("setting", "value", "set by") if origin else ("setting", "value")
        print_table(console, header, [row[: len(header)] for row in rows])
    print()
    executors = [
        (
            executor.label,
            name_of(type(executor.provider)),
            f"{executor.provider.init_blocks} ({executor.provider.min_blocks} to {executor.provider.max_blocks})",
            str(executor.provider.nodes_per_block),
            "no limit" if executor.provider.walltime_s is None else format_duration(executor.provider.walltime_s),
            name_of(type(executor.launcher)),
        )
        for executor in found.config.block_executors
    ]
    print_table(console, ("executor", "provider", "blocks", "nodes", "walltime", "launcher"), executors)
    limits = [
        (located.site, f"{key}: {_value_text(key, value)}", located.places.get(key, ""))
        for located in found.policies
        for key, value in vars(located.policy).items()
        if value not in (None, ())
    ]
    if limits:
        print()
        print_table(console, ("policy of", "limit", "set by"), limits)


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """Settings of the command line, each as NAME=VALUE.

    Raises:
        ConfigError: there is no such setting, or a value is wrong.
    """
    pairs = map(_split, given)
    return dict(layer_of_environment({f"PILOTFLOW_{name.upper()}": value for name, value in pairs}).values)


def _split(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: write NAME=VALUE, such as --set account=abc.")
    from pilotflow.config.settings import NAMES
    from pilotflow.units import did_you_mean

    if name not in NAMES:
        raise ConfigError(
            f"--set {text}: there is no setting '{name}'{did_you_mean(name, NAMES)}. Valid: {', '.join(NAMES)}."
        )
    return name, value


def _settings_data(found: Effective) -> dict[str, Any]:
    return {
        "site": None if found.site is None else found.site.name,
        "settings": {key: dataclasses.asdict(setting) for key, setting in found.settings.items()},
        "effective": [one._asdict() for one in effective_values(found)],
        "executors": [
            {"label": executor.label, "provider": name_of(type(executor.provider)), **_public(executor.provider)}
            for executor in found.config.block_executors
        ],
    }


def _public(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record) if field.init}


def _named(catalog: Catalog, name: str | None) -> Site:
    site = site_of(catalog, name, os.environ)
    if site is None:
        known = ", ".join(sorted(catalog.files)) or "none"
        raise ConfigError(f"This is no site that is known here; say which: {known}.")
    return site


def _value_text(key: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_value_text(key, item) for item in value)
    if key in ("max_walltime", "walltime", "min_poll_interval", "max_idletime", "heartbeat_limit"):
        return format_duration(float(value))
    return "\\n".join(str(value).splitlines())


def _plain(value: Any) -> Any:
    """A record as JSON."""
    if isinstance(value, Launcher):
        return {"type": name_of(type(value)), **{key: _plain(item) for key, item in vars(value).items()}}
    if dataclasses.is_dataclass(value):
        return {key: _plain(item) for key, item in _public(value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)
