"""Which tasks can run nowhere any more, after executors have failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pilotflow.core.supply import Manager, RequestClass

ANY = "*"
"""Stands for every executor of the run."""


def hopeless_classes(
    classes: Iterable[RequestClass], failed: Mapping[str, str], managers: Iterable[Manager]
) -> dict[int, str]:
    """Classes whose tasks no block will ever take, and why.

    Args:
        classes: those of the run.
        failed: executors that will have no new blocks, and why; `ANY` says so of all.
        managers: those that are here, which may take what fits them until they go.
    """
    kinds = {(m.executor, m.capacity): m for m in managers if not m.closed}
    hopeless: dict[int, str] = {}
    for cls in classes:
        names = sorted(cls.executors)
        dead = ANY in failed or (bool(names) and all(name in failed for name in names))
        if dead and not any(manager.could_ever_run(cls) for manager in kinds.values()):
            hopeless[cls.id] = "\n".join(failed[name] for name in names if name in failed) or failed[ANY]
    return hopeless
