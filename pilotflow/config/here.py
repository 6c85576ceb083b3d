"""What holds on this machine: the configuration of a run that is given none, and the admins' word on one that is.

Reading YAML is imported only where there is something to read, so that a plain `load` starts sooner.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pilotflow.config.model import Config
from pilotflow.config.places import Places, may_exist, nothing_said, usual_places
from pilotflow.errors import ConfigError
from pilotflow.providers.local import LocalProvider

if TYPE_CHECKING:
    from pilotflow.config.compose import Effective


def config_to_use(
    config: Config | str | os.PathLike[str] | None, call: Mapping[str, Any], places: Places | None = None
) -> Config:
    """The configuration of a run that `load` is asked for.

    Args:
        config: a configuration or the path of a file with one, or None for what holds here.
        call: settings, by name; None where nothing was said.
        places: where the admins' file is.

    Raises:
        ConfigError: it is wrong, or both were given.
        PolicyExceeded: this machine's admins do not allow it.
    """
    if config is None:
        found = effective_here(call)
        if found is None:
            return Config.for_this_machine()
        tell_message(found)
        return found.config
    given = sorted(name for name, value in call.items() if value is not None)
    if given:
        listed = ", ".join(f"{name}=..." for name in given)
        raise ConfigError(f"load(config=..., {listed}): a configuration is complete; give it, or settings ({listed}).")
    if isinstance(config, (str, os.PathLike)):
        from pilotflow.config.file import load_config

        return within_policy(load_config(config), None, origins_in(os.fspath(config)), places)
    if not isinstance(config, Config):
        raise ConfigError(f"load(config=...) takes a Config or the path of a file, not {type(config).__name__}")
    return within_policy(config, places=places)


def tell_message(found: Effective) -> None:
    """Tell users what their site's admins want them to know when a run starts."""
    if found.site is not None and found.site.message:
        sys.stderr.write(f"{found.site.name}: {found.site.message.strip()}\n")


def effective_here(call: Mapping[str, Any], where: str = "load({key}=...)") -> Effective | None:
    """What holds for a run that is started here, or None if nobody says anything about it.

    Args:
        call: settings that the call or command line says; None where it says nothing.
        where: what the origin of such a setting looks like, see `layer_of_call`.

    Raises:
        ConfigError: a file or a value is wrong, or several sites seem to be this one.
        PolicyExceeded: something is not allowed.
    """
    places = usual_places(os.environ)
    if nothing_said(places, os.environ, call):
        return None
    from pilotflow.config.compose import effective

    return effective(places, os.environ, call, where)


def within_policy(
    config: Config,
    blocks: Mapping[str, int] | None = None,
    origins: Mapping[str, Mapping[str, str]] | None = None,
    places: Places | None = None,
    *,
    is_own: bool = True,
) -> Config:
    """A configuration that did not come from settings, if this machine's admins allow it; as gently as they want it.

    What it says nothing of and they have fixed is as they want it. It asks the batch system no more often than they say, and submits no faster.

    Args:
        config: the configuration.
        blocks: how many an executor may come to have, by its label, if that is more than its provider says.
        origins: who says what of an executor, by its label, see `Use`.
        places: where the admins' file is.
        is_own: whether it may be held against what is fixed; not if a site's file made it.

    Raises:
        ConfigError: their file is wrong.
        PolicyExceeded: something is not allowed.
    """
    places = places or usual_places(os.environ)
    if not may_exist(places.admin) or not config.block_executors:
        return config
    from pilotflow.config.compose import gentle, use_of
    from pilotflow.config.fixed import with_fixed
    from pilotflow.config.policy import check_uses
    from pilotflow.config.sites import read_catalog

    policies = read_catalog(places, lambda _: False).policies(None)
    said = {label: {"": f"executor '{label}'", **lines} for label, lines in (origins or {}).items()}

    def where(label: str, key: str) -> str:
        of_one = said.get(label, {"": f"executor '{label}'"})
        return of_one.get(key, of_one[""]) if label else "the configuration"

    if is_own:
        config = with_fixed(config, policies, where)
    executors = [executor for executor in config.block_executors if not isinstance(executor.provider, LocalProvider)]
    more = blocks or {}
    uses = [use_of(executor, os.environ) for executor in executors]
    uses = [
        dataclasses.replace(
            use,
            blocks=max(use.blocks, more.get(use.executor, 0)),
            origins=said.get(use.executor, {"": f"executor '{use.executor}'"}),
        )
        for use in uses
    ]
    check_uses(policies, uses, {})
    kept = [executor if executor not in executors else gentle(executor, policies) for executor in config.executors]
    return dataclasses.replace(config, executors=kept)


def more_within_policy(
    config: Config, asked: Mapping[str, int], label: str, count: int, places: Places | None = None
) -> dict[str, int]:
    """Blocks that a run was asked for beyond its configuration, with some more of an executor, if they are allowed.

    Args:
        config: the run's.
        asked: blocks asked for before, by executor.
        label, count: what is asked for now.
        places: where the admins' file is.

    Raises:
        PolicyExceeded: with these there could be too many.
    """
    more = {**asked, label: asked.get(label, 0) + count}
    most = {one.label: one.provider.max_blocks + more.get(one.label, 0) for one in config.block_executors}
    within_policy(config, most, places=places, is_own=False)
    return more


def origins_in(path: str) -> dict[str, dict[str, str]]:
    """Where a configuration's file says what of the provider of each executor."""
    from pilotflow.config.reader import read_document

    keys = read_document(path).keys_at
    value: Any = read_document(path).value
    out: dict[str, dict[str, str]] = {}
    for index, item in enumerate(value.get("executors", ())):
        at = ("executors", index, "provider")
        lines = {key[-1]: mark.line for key, mark in keys.items() if key[:-1] == at}
        out[item.get("label", "local")] = {str(key): f"{path}:{line}" for key, line in lines.items()}
    return out
