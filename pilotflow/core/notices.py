"""What users are told without having asked, once an executor: how its nodes could be used better."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from pilotflow.core.peers import where
from pilotflow.core.supply import Manager, RequestClass
from pilotflow.messages.client import Notice
from pilotflow.units import format_memory

EACH_NODE: Final = "write `start_one_worker_per_node: true` in the action that asks for its blocks."
"""The remedy where one manager has all nodes of a block, which only a workflow's actions ask for."""


class Notices:
    """What has been said of a run's executors, and what there may be to say."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._headed: set[str] = set()  # the others that have nodes which follow a head

    def joined(self, manager: Manager) -> None:
        """There is this manager."""
        if manager.capacity.follows and manager.executor not in self._told:
            self._headed.add(manager.executor)

    def of_excess(self, manager: Manager) -> Notice | None:
        """What to say if a depth-limited manager runs tasks that together ask for more than its node has."""
        if manager.executor in self._told:
            return None
        capacity = manager.capacity
        short: list[str] = []
        if manager.free_cpus < 0:
            asked = capacity.cpus_milli - manager.free_cpus
            short.append(f"{asked / 1000:g} cores of {capacity.cpus_milli / 1000:g}")
        if manager.free_memory < 0:
            asked = capacity.memory_bytes - manager.free_memory
            short.append(f"{format_memory(asked)} of {format_memory(capacity.memory_bytes)}")
        if not short:
            return None
        self._told.add(manager.executor)
        return Notice(
            f"The tasks that {where(manager)} runs ask for {' and '.join(short)}. It runs {capacity.slots} at once "
            f"whatever they ask for (max_parallel_jobs of executor '{manager.executor}'); fewer of them may be faster."
        )

    def of_idle_nodes(self, classes: Collection[RequestClass], managers: Collection[Manager]) -> list[Notice]:
        """What to say where tasks on one node wait while nodes idle that follow their block's head."""
        notices: list[Notice] = []
        for executor in sorted(self._headed):
            waiting = sum(cls.queued for cls in classes if cls.request.num_nodes == 1 and cls.admits(executor))
            here = [one for one in managers if one.executor == executor and not one.closed and one.gang is None]
            idle = sum(one.capacity.follows for one in here)
            waiting += sum(sum(one.prefilled.values()) for one in here)  # sent ahead: they wait there
            if waiting and 0 < idle < len(here):
                self._headed.discard(executor)
                self._told.add(executor)
                notices.append(Notice(_idle_followers(executor, waiting, idle)))
        return notices


def _idle_followers(executor: str, waiting: int, idle: int) -> str:
    """What there is to say of nodes that idle although jobs wait for the head of their block."""
    text = f"{waiting:,} job{'s wait' if waiting > 1 else ' waits'} for executor '{executor}', whose blocks have one "
    text += f"manager each, at the head: jobs on one node run there alone, and {idle} other "
    return f"{text}node{'s idle' if idle > 1 else ' idles'}. To use all nodes for them, {EACH_NODE}"
