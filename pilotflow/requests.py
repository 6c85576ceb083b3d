"""What a task asks for, from the keywords that users write to a `Request` of exact integers.

The names are the same in decorators, `options()`, YAML and on the command line:

    num_cpus        cores a node, fractions allowed (default 1)
    memory          memory a node, such as "4g"
    num_gpus        GPUs a node; a fraction of one, or a whole number (default 0)
    num_nodes       nodes; more than 1 reserves whole nodes (default 1)
    ranks_per_node  MPI ranks on each node (default 1)
    runtime         limit of one attempt, such as "30m"
    priority        larger runs sooner (default 0)
    resources       site-defined consumables, such as {"licence": 1}
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from pilotflow.errors import ConfigError
from pilotflow.resources import DEFAULT_REQUEST, Request
from pilotflow.units import did_you_mean, kind, parse_duration, parse_memory, show

_MAX_COUNT: Final = 10**6
_MAX_AMOUNT: Final = 2**53


def parse_request(**keywords: object) -> Request:
    """The request for these keywords. None stands for "not said".

    Args:
        keywords: `num_cpus`, `memory`, `num_gpus`, `num_nodes`, `ranks_per_node`, `runtime`,
            `priority`, `resources`, as the module describes them.

    Raises:
        ConfigError: a name is unknown or a value is wrong; names the key, the value, what is
            allowed, and the nearest valid name.
    """
    if not keywords:
        return DEFAULT_REQUEST
    fields: dict[str, Any] = {}
    for name, value in keywords.items():
        field_and_parser = _PARSERS.get(name)
        if field_and_parser is None:
            raise ConfigError(
                f"'{name}' is nothing a task can ask for{did_you_mean(name, _PARSERS)}. Valid: {', '.join(_PARSERS)}."
            )
        if value is not None:
            field, parser = field_and_parser
            try:
                fields[field] = parser(value)
            except ConfigError as error:
                raise ConfigError(f"{name}={show(value)}: {error}") from None
    return Request(**fields)


def _milli(value: object, allowed: str) -> int:
    try:
        number = None if isinstance(value, (bool, str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise ConfigError(f"is {kind(value)}, expected {allowed}.")
    if not 0 <= number <= _MAX_COUNT:
        raise ConfigError(f"expected {allowed}, at most {_MAX_COUNT}.")
    # Rounded up, so that parts of a whole never fit more often than they were meant to.
    return math.ceil(number * 1000 - 1e-6)


def _cpus(value: object) -> int:
    allowed = "a number of cores above 0, such as 2 or 0.5"
    milli = _milli(value, allowed)
    if milli < 1:
        raise ConfigError(f"expected {allowed}.")
    return milli


def _gpus(value: object) -> int:
    allowed = "a whole number of GPUs, or a fraction of one such as 0.5"
    milli = _milli(value, allowed)
    if milli > 1000 and milli % 1000:
        raise ConfigError(f"expected {allowed}.")
    return milli


def _whole(value: object, low: int, high: int) -> int:
    allowed = f"a whole number from {low} to {high}"
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None:
        raise ConfigError(f"is {kind(value)}, expected {allowed}.")
    if not low <= number <= high:
        raise ConfigError(f"expected {allowed}.")
    return number


def _count(value: object) -> int:
    return _whole(value, 1, _MAX_COUNT)


def _priority(value: object) -> int:
    return _whole(value, -(2**31), 2**31 - 1)


def _memory(value: Any) -> int:
    try:
        value = value if isinstance(value, bool) else operator.index(value)  # integers of NumPy are integers
    except TypeError:
        pass
    size = parse_memory(value)
    if size == 0:
        raise ConfigError("expected more than 0 bytes; leave memory out if its size is not known.")
    return size


def _runtime(value: Any) -> float:
    seconds = parse_duration(value)
    if seconds == 0:
        raise ConfigError("expected more than 0 seconds; leave runtime out for no limit.")
    return seconds


def _resources(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, Mapping):
        raise ConfigError(f'is {kind(value)}, expected names and amounts, such as {{"licence": 1}}.')
    amounts = list[tuple[str, int]]()
    for name, amount in value.items():
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"the name {show(name)} is {kind(name)}, expected a string that is not empty.")
        try:
            amounts.append((name, _whole(amount, 1, _MAX_AMOUNT)))
        except ConfigError as error:
            raise ConfigError(f"the amount {show(amount)} of '{name}': {error}") from None
    return tuple(sorted(amounts))


_PARSERS: Final[dict[str, tuple[str, Callable[[Any], Any]]]] = {
    "num_cpus": ("cpus_milli", _cpus),
    "memory": ("memory_bytes", _memory),
    "num_gpus": ("gpus_milli", _gpus),
    "num_nodes": ("num_nodes", _count),
    "ranks_per_node": ("ranks_per_node", _count),
    "runtime": ("runtime_s", _runtime),
    "priority": ("priority", _priority),
    "resources": ("resources", _resources),
}

REQUEST_WORDS: Final = tuple(_PARSERS)
"""The keywords of a request."""
