"""What holds on this machine: the configuration of a run that is given none, and the admins' word on one that is.

Reading YAML is imported only where there is something to read, so that a plain `load` starts sooner.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pilotflow.config.model import Config
from pilotflow.config.places import Places, nothing_said, usual_places
from pilotflow.errors import ConfigError
from pilotflow.providers.local import LocalProvider

if TYPE_CHECKING:
    from pilotflow.config.compose import Effective


def config_to_use(config: Config | str | os.PathLike[str] | None, call: Mapping[str, Any]) -> Config:
    """The configuration of a run that `load` is asked for.

    Args:
        config: a configuration or the path of a file with one, or None for what holds here.
        call: settings, by name; None where nothing was said.

    Raises:
        ConfigError: it is wrong, or both were given.
        PolicyExceeded: this machine's admins do not allow it.
    """
    if config is None:
        found = effective_here(call)
        if found is None:
            return Config.for_this_machine()
        if found.site is not None and found.site.message:
            sys.stderr.write(f"{found.site.name}: {found.site.message.strip()}\n")
        return found.config
    given = sorted(name for name, value in call.items() if value is not None)
    if given:
        listed = ", ".join(f"{name}=..." for name in given)
        raise ConfigError(f"load(config=..., {listed}): a configuration is complete; give it, or settings ({listed}).")
    if isinstance(config, (str, os.PathLike)):
        from pilotflow.config.file import load_config

        config = load_config(config)
    elif not isinstance(config, Config):
        raise ConfigError(f"load(config=...) takes a Config or the path of a file, not {type(config).__name__}")
    check_config(config)
    return config


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


def check_config(config: Config, places: Places | None = None) -> None:
    """See that a configuration of the user's own keeps to the policy of this machine's admins, if they have one.

    Raises:
        ConfigError: their file is wrong.
        PolicyExceeded: something is not allowed.
    """
    admin = (places or usual_places(os.environ)).admin
    executors = [executor for executor in config.block_executors if not isinstance(executor.provider, LocalProvider)]
    if not executors or not admin.exists():
        return
    from pilotflow.config.compose import use_of
    from pilotflow.config.policy import check_uses
    from pilotflow.config.site_file import read_site
    from pilotflow.config.sites import Catalog

    file = read_site(admin, trusted=True)
    policies = Catalog(files={file.site.name: file}, admin=file).policies(None)
    check_uses(policies, [use_of(executor) for executor in executors], {})
