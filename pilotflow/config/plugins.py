"""Providers and launchers by name: built in, registered by an installed package, or by dotted path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeVar

from pilotflow.damaged import damaged_module
from pilotflow.errors import ConfigError
from pilotflow.launchers.base import Launcher
from pilotflow.providers.base import Provider
from pilotflow.typechecks import fields_without_dataclass
from pilotflow.units import did_you_mean

Plugin = TypeVar("Plugin", Provider, Launcher)

PROVIDER_GROUP: Final = "pilotflow.providers"
LAUNCHER_GROUP: Final = "pilotflow.launchers"

# These need no look at the entry points of everything that is installed.
_BUILT_IN: Final[Mapping[str, Mapping[str, str]]] = {
    PROVIDER_GROUP: {
        "local": "pilotflow.providers.local:LocalProvider",
        "slurm": "pilotflow.providers.slurm:SlurmProvider",
    },
    LAUNCHER_GROUP: {
        "mpiexec": "pilotflow.launchers.mpirun:MpiexecLauncher",
        "mpirun": "pilotflow.launchers.mpirun:MpirunLauncher",
        "simple": "pilotflow.launchers.simple:SimpleLauncher",
        "single_node": "pilotflow.launchers.single_node:SingleNodeLauncher",
        "srun": "pilotflow.launchers.srun:SrunLauncher",
        "srun_mpi": "pilotflow.launchers.srun:SrunMPILauncher",
        "wrapped": "pilotflow.launchers.simple:WrappedLauncher",
    },
}


class _Kind(NamedTuple):
    """What a plugin is called in messages, and where its names are registered."""

    word: str
    group: str


def load_provider(name: str) -> type[Provider]:
    """The provider class of this name.

    Args:
        name: a built-in name ("local"), one registered in the entry-point group
            `pilotflow.providers`, or a dotted path "package.module:Class".

    Raises:
        ConfigError: there is none, it cannot be imported, or it is no provider; the message has
            the valid names.
    """
    return _load(_Kind("provider", PROVIDER_GROUP), name, Provider)  # type: ignore[type-abstract]  # as a base only


def load_launcher(name: str) -> type[Launcher]:
    """The launcher class of this name; as `load_provider`, with the group `pilotflow.launchers`.

    Raises:
        ConfigError: as in `load_provider`.
    """
    return _load(_Kind("launcher", LAUNCHER_GROUP), name, Launcher)  # type: ignore[type-abstract]  # as a base only


def provider_names() -> list[str]:
    """The short names of providers: built in, and registered by installed packages."""
    return sorted({*_BUILT_IN[PROVIDER_GROUP], *_entry_points(PROVIDER_GROUP)})


def launcher_names() -> list[str]:
    """The short names of launchers; as `provider_names`."""
    return sorted({*_BUILT_IN[LAUNCHER_GROUP], *_entry_points(LAUNCHER_GROUP)})


def name_of(cls: type) -> str:
    """The built-in name of a provider or launcher class, or its dotted path."""
    path = f"{cls.__module__}:{cls.__qualname__}"
    for names in _BUILT_IN.values():
        for name, target in names.items():
            if target == path:
                return name
    return path


def _load(kind: _Kind, name: str, base: type[Plugin]) -> type[Plugin]:
    path = name if ":" in name else _BUILT_IN[kind.group].get(name) or _registered(kind, name)
    found = _import(kind, name, path)
    if not (isinstance(found, type) and issubclass(found, base)):
        home = f"{base.__module__}.{base.__name__}"
        raise ConfigError(f"{kind.word} '{name}' is {path}, which is not a subclass of {home}.")
    lost = fields_without_dataclass(found)
    if lost is not None:
        raise ConfigError(f"{kind.word} '{name}': {lost}")
    return found


def _entry_points(group: str) -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=group)}


def _registered(kind: _Kind, name: str) -> str:
    registered = _entry_points(kind.group)
    if name in registered:
        return registered[name]
    valid = sorted({*_BUILT_IN[kind.group], *registered})
    raise ConfigError(
        f"there is no {kind.word} '{name}'{did_you_mean(name, valid)}. Valid: {', '.join(valid)}, "
        f"or the dotted path of a class, such as my_site.{kind.word}s:MyClass."
    )


def _import(kind: _Kind, name: str, path: str) -> Any:
    module_name, _, qualified = path.partition(":")
    qualified = qualified.split("[", maxsplit=1)[0].strip()  # an entry point may name extras behind the class
    if not all(part.isidentifier() for part in [*module_name.split("."), *qualified.split(".")]):
        raise ConfigError(f"{kind.word} '{name}' is no dotted path. Write it as package.module:Class.")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever a foreign module does while it is imported
        how = f"({type(error).__name__}: {error})."
        damage = damaged_module(error)
        if damage is not None:
            how += f" {damage}."
        raise ConfigError(f"{kind.word} '{name}': module {module_name} cannot be imported {how}") from error
    for part in qualified.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            meant = did_you_mean(part, [other for other in vars(found) if not other.startswith("_")])
            raise ConfigError(f"{kind.word} '{name}': module {module_name} has no '{qualified}'{meant}.") from None
    return found
