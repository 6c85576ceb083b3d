"""Settings: what users say about where and how work runs, in layers, each value with its origin.

Layers, lowest first: built-in defaults, the site's `defaults`, the user's file, the project's file, the
environment, and what was said in the call or on the command line. A higher layer goes before a lower
one, setting by setting; what the site's policy allows is another matter (`pilotflow.config.policy`).
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pilotflow.config.places import PREFIX
from pilotflow.config.reader import Bad, RecordReader, raise_problems, read_document
from pilotflow.errors import ConfigError
from pilotflow.typechecks import annotations_of, check_arguments, field_error, split_field_error
from pilotflow.units import did_you_mean, parse_duration, show


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What may be said about where and how work runs; None where nothing is said.

    Attributes:
        site: name of the site.
        account: the account (project, allocation) that batch jobs are charged to.
        partition: where they run; a list if work may go to any of several.
        qos, reservation, constraint: as the batch system knows them.
        nodes_per_block: nodes of each block.
        init_blocks, min_blocks, max_blocks: how many blocks there are, see `Provider`.
        walltime: how long a block may live; seconds, "2h", "01:30:00".
        cores_per_node, mem_per_node: what is wanted of each node where nodes are shared, see `SlurmProvider`.
        worker_init: names of the site's snippets, or shell text, that a block runs before its managers.
        launcher: how managers are started: a launcher's name.
        address: by which nodes reach this host, see `ExecutorConfig`.
        ports: where to listen, such as "50000-50100".
        scheduler_options: further options of the batch system.
        max_workers_per_node, max_parallel_jobs: see `ExecutorConfig`.
        run_dir: where run directories go.
        cache: where results of apps with `cache=True` are kept.
        retries: how often a task is tried again after an error of its own.
        crash_limit: attempts at a task that may end with the loss of its worker or manager.
        max_idletime: a block idle for so long is ended.
        heartbeat_limit: a process silent for so long is given up.
        encrypted: whether TCP links are protected.
    """

    site: str | None = None
    account: str | None = None
    partition: str | Sequence[str] | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    nodes_per_block: int | None = None
    init_blocks: int | None = None
    min_blocks: int | None = None
    max_blocks: int | None = None
    walltime: float | str | None = None
    cores_per_node: int | None = None
    mem_per_node: int | float | None = None
    worker_init: str | Sequence[str] | None = None
    launcher: str | None = None
    address: str | None = None
    ports: str | None = None
    scheduler_options: Sequence[str] | None = None
    max_workers_per_node: int | None = None
    max_parallel_jobs: int | None = None
    run_dir: str | None = None
    cache: str | None = None
    retries: int | None = None
    crash_limit: int | None = None
    max_idletime: float | str | None = None
    heartbeat_limit: float | str | None = None
    encrypted: bool | None = None

    def __post_init__(self) -> None:
        check_arguments(self)
        for key in ("walltime", "max_idletime", "heartbeat_limit"):
            value = getattr(self, key)
            if value is not None:
                try:
                    object.__setattr__(self, key, parse_duration(value))
                except ConfigError as error:
                    raise field_error(self, key, str(error)) from None


_OPTIONS: Final = ("site", "account")
"""Settings that commands have options of their own for."""
NAMES: Final = tuple(field.name for field in dataclasses.fields(Settings))


@dataclass(frozen=True)
class Layer:
    """What one place says.

    Attributes:
        name: "site", "user", "project", "environment" or "call".
        values: what it says, by setting.
        origins: where it says so, such as `pilotflow.yaml:3`, by setting.
    """

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """A value and where it comes from.

    Attributes:
        value: the value.
        layer: the name of the layer.
        origin: the place within it.
    """

    value: Any
    layer: str
    origin: str


def resolve(layers: Sequence[Layer]) -> dict[str, Setting]:
    """What holds, by setting; later layers go before earlier ones. What no layer says is left out."""
    out: dict[str, Setting] = {}
    for layer in layers:
        for key, value in layer.values.items():
            if value is not None:
                out[key] = Setting(value, layer.name, layer.origins.get(key, layer.name))
    return {key: out[key] for key in NAMES if key in out}


def layer_of_file(name: str, path: str | os.PathLike[str]) -> Layer:
    """The layer in a YAML file of settings.

    Args:
        name: what the layer is called.
        path: the file.

    Raises:
        ConfigError: it cannot be read or something in it is wrong, by line and column.
    """
    text = os.fspath(path)
    document = read_document(text)
    reader = RecordReader(document)
    if document.value is None and not document.problems:
        return Layer(name)
    try:
        settings = reader.record(Settings, document.value, (), {})
    except Bad:
        raise_problems(text, reader.problems)
        raise AssertionError("a record that cannot be made has problems") from None
    raise_problems(text, reader.problems)
    values = {key: getattr(settings, key) for key in document.value}
    return Layer(name, values, {key: f"{text}:{document.keys_at[(key,)].line}" for key in values})


def layer_of_environment(environment: Mapping[str, str]) -> Layer:
    """The layer in variables such as `PILOTFLOW_ACCOUNT`.

    Lists are separated by commas. Variables that name no setting are somebody else's.

    Raises:
        ConfigError: a value is wrong; names the variable.
    """
    given = {key: environment[PREFIX + key.upper()] for key in NAMES if environment.get(PREFIX + key.upper())}
    hints = annotations_of(Settings)
    values = {key: _from_text(PREFIX + key.upper(), text, hints[key]) for key, text in given.items()}
    names = {key: PREFIX + key.upper() for key in values}
    return Layer("environment", _checked(values, names), names)


def option_of(key: str) -> str:
    """How a setting is given to commands."""
    return f"--{key}" if key in _OPTIONS else f"--set {key}"


def layer_of_call(values: Mapping[str, Any], where: str = "load({key}=...)") -> Layer:
    """The layer that a call or a command line is.

    Args:
        values: by setting; None where nothing was said.
        where: what an origin looks like, with `{key}` for the setting, or `{option}` for its option of a command.

    Raises:
        ConfigError: there is no such setting, or a value is wrong.
    """
    for key in values:
        if key not in NAMES:
            raise ConfigError(f"there is no setting '{key}'{did_you_mean(key, NAMES)}. Valid: {', '.join(NAMES)}.")
    origins = {key: where.format(key=key, option=option_of(key)) for key in values}
    given = {key: value for key, value in values.items() if value is not None}
    return Layer("call", _checked(given, origins), origins)


def _checked(values: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, Any]:
    try:
        settings = Settings(**values)
    except ConfigError as error:
        parts = split_field_error(error)
        if parts is None:
            raise
        raise ConfigError(f"{origins[parts.keys[0]]}: {parts.problem}") from None
    return {key: getattr(settings, key) for key in values}


def _from_text(name: str, text: str, annotation: Any) -> Any:
    """A variable's text as the type of its setting."""
    members = typing.get_args(annotation)
    if bool in members:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{name}: {show(text)} is neither true nor false.")
        return text.lower() == "true"
    if int in members:
        try:
            return float(text) if float in members and "." in text else int(text)
        except ValueError:
            raise ConfigError(f"{name}: {show(text)} is not a whole number.") from None
    if any(typing.get_origin(member) is not None for member in members) and "\n" not in text:
        items = [item.strip() for item in text.split(",")]
        return text if len(items) == 1 and str in members else items
    return text
