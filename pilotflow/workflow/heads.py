"""Which allocations have one manager, at their head, for all of their nodes."""

from __future__ import annotations

from pilotflow.workflow.records import Action, Deed, Mode, Workflow


def one_head(workflow: Workflow, action: Action) -> bool:
    """Whether the allocations that an action asks for have one manager each, though they have several nodes.

    So it is in direct mode, unless the action says `start_one_worker_per_node`. In slurm mode there is one, too,
    but srun starts its jobs on all nodes.
    """
    return (
        workflow.execution.mode is Mode.DIRECT
        and action.deed is Deed.SCHEDULE_NODES
        and action.scheduler is not None
        and not action.start_one_worker_per_node
        and workflow.slurm_schedulers[action.scheduler].nodes > 1
    )
