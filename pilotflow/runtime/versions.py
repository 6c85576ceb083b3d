"""Versions of the packages that pack values, in the submitting program's environment and in a manager's."""

from __future__ import annotations

import sys
from typing import Final

from pilotflow.errors import ConfigError
from pilotflow.runtime.connection import Connection

PACKERS: Final = ("cloudpickle", "dill", "tblib")
"""Functions, values and tracebacks that one version has packed another one may not read."""


def versions_here() -> tuple[tuple[str, str], ...]:
    """The packages that pack values, with their versions in this environment; "" for one that is missing."""
    from importlib.metadata import PackageNotFoundError, version  # takes its time, and most managers need it not

    found = []
    for name in PACKERS:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            found.append((name, ""))
    return tuple(found)


def check_versions(connection: Connection, node: str, brought: bool) -> None:
    """See that this manager's environment reads what the program packs, before it takes a task.

    Args:
        connection: the run's, which says what the program has.
        node: this node's name.
        brought: this environment is the program's own, brought here.

    Raises:
        ConfigError: a package is missing here, or of another version (the first two numbers count).
    """
    if brought or sys.prefix == connection.prefix:
        return
    here = dict(versions_here())
    for name, theirs in connection.packages:
        ours = here.get(name, "")
        if theirs and ours.split(".")[:2] != theirs.split(".")[:2]:
            has = f"has {name} {ours}" if ours else f"has no {name}"
            raise ConfigError(
                f"node {node} {has} in {sys.prefix}, the program has {theirs} in {connection.prefix}: what one packs the "
                f"other may not read. Set worker_init of the executor's provider to an environment with {name} {theirs}, "
                "or leave activate on."
            )
