"""Every value that holds for a run started here, and who says so: settings, the site's file, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from pilotflow.config.compose import Effective
from pilotflow.config.model import Config, ExecutorConfig
from pilotflow.config.plugins import name_of
from pilotflow.config.settings import NAMES

BUILT_IN: Final = "built-in default"
_IN_SITE: Final = {
    "account": "account.default",
    "partition": "partitions",
    "qos": "partitions",
    "constraint": "partitions",
    "scheduler_options": "partitions",
    "worker_init": "worker_init.default",
    "launcher": "launcher",
    "address": "network.address",
    "ports": "network.ports",
    "run_dir": "paths.runs",
}
"""Where a site's file says what settings may say too."""
_FITTED: Final = ("walltime", "max_blocks", "min_blocks", "init_blocks", "nodes_per_block")
"""Settings whose defaults depend on partitions and policies."""
_NOT_OF_PROVIDERS: Final[dict[str, Callable[[ExecutorConfig], Any]]] = {
    "partition": lambda executor: executor.label,
    "launcher": lambda executor: name_of(type(executor.launcher)),
    "address": lambda executor: executor.address,
    "max_workers_per_node": lambda executor: executor.max_workers_per_node,
    "max_parallel_jobs": lambda executor: executor.max_parallel_jobs,
    "walltime": lambda executor: executor.provider.walltime_s,
}


class Value(NamedTuple):
    """A value that holds.

    Attributes:
        key: the setting.
        value: what holds; of several executors all values.
        origin: who says so: `FILE:LINE`, a variable, an option, or `BUILT_IN`.
    """

    key: str
    value: Any
    origin: str


def effective_values(found: Effective) -> Iterator[Value]:
    """Every value that holds, in the order of the settings; what is empty is left out."""
    for key in NAMES:
        if key in found.settings:
            setting = found.settings[key]
            yield Value(key, setting.value, setting.origin)
            continue
        value = found.site.name if key == "site" and found.site is not None else _held(key, found.config)
        if value not in (None, "", [], ()) and not (key == "partition" and found.site is None):
            yield Value(key, value, _origin(key, found))


def _held(key: str, config: Config) -> Any:
    """What a configuration has as a setting; all values if executors differ."""
    if key != "site" and key in Config.__dataclass_fields__:
        return getattr(config, key)
    read = _NOT_OF_PROVIDERS.get(key, lambda executor: getattr(executor.provider, key, None))
    values = [value for value in map(read, config.block_executors) if value not in (None, "")]
    distinct = list(dict.fromkeys(values))
    return distinct[0] if len(distinct) == 1 else distinct


def _origin(key: str, found: Effective) -> str:
    file = found.file
    if file is not None:
        if key == "site":
            return found.here or str(file.path)
        place = _IN_SITE.get(key, "")
        if key == "launcher" and any(partition.launcher for partition in file.site.partitions):
            place = "partitions"
        if place in file.places:
            return file.places[place]
        if key in _FITTED and file.site.partitions:
            return f"{BUILT_IN}, as far as partitions and policies allow"
    return BUILT_IN
