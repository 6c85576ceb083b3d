"""What a site is asked for on behalf of a workflow that says nothing about it: as `plan` recommends."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from pilotflow.config.policy import LocatedPolicy
from pilotflow.config.site import Site
from pilotflow.units import counted, format_duration
from pilotflow.workflow.plans import MANY_JOBS, plan, written_durations
from pilotflow.workflow.records import Workflow
from pilotflow.workflow.schemes import Place, places_of

KEYS: Final = ("partition", "nodes_per_block", "walltime", "init_blocks", "min_blocks", "max_blocks")
"""Settings that are planned; where anybody says one of them, none is."""
IDLE_S: Final = 120.0


class Planned(NamedTuple):
    """What to ask for.

    Attributes:
        settings: by name, see `pilotflow.config.settings`.
        words: the same for people, and what would come of it.
    """

    settings: dict[str, Any]
    words: str


def planned_settings(
    workflow: Workflow, site: Site, policies: Sequence[LocatedPolicy], said: Collection[str]
) -> Planned | None:
    """What to ask for, or None if a plan would be a guess.

    That is: if somebody has said a part of it, a job does not say its `runtime`, there are very many jobs, no
    partition of known nodes takes them all, or jobs are meant for certain executors.

    Args:
        workflow: the workflow.
        site: whose nodes.
        policies: what has to be kept.
        said: names of the settings that somebody has said.
    """
    fixed = {key for located in policies for key in located.policy.fixed}
    if any(key in said or key in fixed for key in KEYS) or workflow.slurm_schedulers or len(workflow.jobs) > MANY_JOBS:
        return None
    if any(job.request.runtime_s is None or job.executors or job.label for job in workflow.jobs):
        return None
    if all(partition.explicit for partition in site.partitions):
        return None
    places = places_of(site, policies)
    return _of_places(workflow, places) if places else None


def _of_places(workflow: Workflow, places: Sequence[Place]) -> Planned | None:
    found = plan(workflow, written_durations(workflow), places, lambda _: 0.0, workflow.idle_s or IDLE_S)
    one_kind = [one for one in found.choices if one.is_complete and len(one.scheme.asks) == 1]
    if not one_kind:
        return None
    choice = one_kind[0]  # the best comes first, then the fastest
    (ask,) = choice.scheme.asks
    settings = {
        "partition": ask.place.name,
        "nodes_per_block": ask.nodes,
        "walltime": ask.walltime_s,
        "init_blocks": ask.count,
        "max_blocks": ask.count,
    }
    nodes = counted(ask.nodes, "node")
    words = (
        f"planned: {ask.count} x {nodes} of partition '{ask.place.name}' for {format_duration(ask.walltime_s)} each; "
        f"done in {format_duration(round(choice.forecast.makespan_s))} and the wait in the queue, "
        f"{choice.node_hours:,.2f} node-hours, {choice.forecast.idle_share:.0%} idle. `pilotflow plan` compares other "
        "ways; `--set nodes_per_block=...` and the like choose one."
    )
    return Planned(settings, words)
