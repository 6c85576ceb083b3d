"""What Slurm's words mean for a block: states, reasons for which it never starts, refusals. Pure tables.

Sources: "JOB STATE CODES" and "JOB REASON CODES" in squeue(1), Slurm 22.05 to 24.05; the messages of sbatch
as they were seen there.
"""

from __future__ import annotations

import re
from typing import Final

from pilotflow.core.block_records import BlockState

STATES: Final = {
    "BOOT_FAIL": BlockState.FAILED,
    "CANCELLED": BlockState.CANCELLED,
    "COMPLETED": BlockState.COMPLETED,
    "COMPLETING": BlockState.RUNNING,  # its processes are still being ended
    "CONFIGURING": BlockState.PENDING,
    "DEADLINE": BlockState.TIMEOUT,
    "FAILED": BlockState.FAILED,
    "LAUNCH_FAILED": BlockState.FAILED,
    "NODE_FAIL": BlockState.FAILED,
    "OUT_OF_MEMORY": BlockState.FAILED,
    "PENDING": BlockState.PENDING,
    "POWER_UP_NODE": BlockState.PENDING,
    "PREEMPTED": BlockState.CANCELLED,
    "RECONFIG_FAIL": BlockState.FAILED,
    "REQUEUED": BlockState.PENDING,
    "REQUEUE_FED": BlockState.PENDING,
    "REQUEUE_HOLD": BlockState.PENDING,
    "RESIZING": BlockState.RUNNING,
    "RESV_DEL_HOLD": BlockState.PENDING,
    "REVOKED": BlockState.CANCELLED,
    "RUNNING": BlockState.RUNNING,
    "SIGNALING": BlockState.RUNNING,
    "SPECIAL_EXIT": BlockState.PENDING,
    "STAGE_OUT": BlockState.RUNNING,
    "STOPPED": BlockState.SUSPENDED,
    "SUSPENDED": BlockState.SUSPENDED,
    "TIMEOUT": BlockState.TIMEOUT,
    "UPDATE_DB": BlockState.RUNNING,
}

_TIME: Final = "Lower provider.walltime"
_NODES: Final = "Lower provider.nodes_per_block"
_CORES: Final = "Lower provider.cores_per_node"
_GPUS: Final = "Lower provider.gpus_per_node or provider.gres"

NEVER: Final = {
    "AccountNotAllowed": "Set provider.account to one that may use this partition",
    "AssocMaxCpuMinutesPerJobLimit": f"{_TIME} or provider.cores_per_node",
    "AssocMaxCpuPerJobLimit": _CORES,
    "AssocMaxGRESPerJob": _GPUS,
    "AssocMaxMemPerJob": "Lower provider.mem_per_node",
    "AssocMaxNodePerJobLimit": _NODES,
    "AssocMaxWallDurationPerJobLimit": _TIME,
    "AssociationTimeLimit": _TIME,
    "BadConstraints": "Check provider.constraint, nodes_per_block, cores_per_node and mem_per_node",
    "DependencyNeverSatisfied": "Check the dependencies in provider.scheduler_options",
    "InvalidAccount": "Set provider.account",
    "InvalidQOS": "Set provider.qos",
    "MaxCpuPerAccount": _CORES,
    "MaxMemPerLimit": "Lower provider.mem_per_node",
    "PartitionConfig": f"{_NODES}, cores_per_node or mem_per_node, or set another provider.partition",
    "PartitionNodeLimit": f"{_NODES}, or set another provider.partition",
    "PartitionTimeLimit": f"{_TIME}, or set another provider.partition",
    "QOSMaxCpuMinutesPerJobLimit": f"{_TIME} or provider.cores_per_node",
    "QOSMaxCpuPerJobLimit": _CORES,
    "QOSMaxCpuPerNode": _CORES,
    "QOSMaxGRESMinutesPerJob": f"{_TIME}, or lower provider.gpus_per_node",
    "QOSMaxGRESPerJob": _GPUS,
    "QOSMaxGRESPerNode": _GPUS,
    "QOSMaxMemoryPerJob": "Lower provider.mem_per_node",
    "QOSMaxMemoryPerNode": "Lower provider.mem_per_node",
    "QOSMaxNodePerJobLimit": _NODES,
    "QOSMaxWallDurationPerJobLimit": _TIME,
    "QOSMinCpuNotSatisfied": "Raise provider.cores_per_node",
    "QOSMinGRES": "Raise provider.gpus_per_node or provider.gres",
    "QOSMinMemory": "Raise provider.mem_per_node",
    "QOSNotAllowed": "Set provider.qos to one that this account may use",
    "QOSTimeLimit": _TIME,
    "QOSUsageThreshold": "Set another provider.qos",
}
"""Reasons of pending jobs that time does not cure, and what would."""

HELD: Final = re.compile(r"JobHeld(User|Admin)|JobHoldMaxRequeue|requeued in held state|requeued held", re.IGNORECASE)
"""Reasons of pending jobs that wait for somebody to release them."""
FULL: Final = re.compile(
    r"MaxSubmit|SubmitJobs?Limit|QOSMaxSubmitJobPerUserLimit|too many jobs|job limit exceeded|"
    r"Slurm temporarily unable to accept job|MaxJobCount",
    re.IGNORECASE,
)
"""Refusals for as long as so many other jobs are there."""
AWAY: Final = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection refused|Zero Bytes were transmitted|"
    r"slurm_persist_conn_open|Transport endpoint|Problem talking to (the )?database|Backup controller|"
    r"can't be reached now|Communication connection failure|Resource temporarily unavailable",
    re.IGNORECASE,
)
"""Slurm cannot be asked now."""
UNKNOWN_JOB: Final = re.compile(r"Invalid job id", re.IGNORECASE)
NO_ACCOUNTING: Final = re.compile(r"accounting storage is disabled", re.IGNORECASE)

_REFUSALS: Final = (
    (
        r"violates accounting",
        "Compare walltime, nodes_per_block and cores_per_node with the limits of provider.account and provider.qos",
    ),
    (r"invalid partition|partition name", "Set provider.partition"),
    (r"account or partition combination|account/partition combination", "Set provider.account and provider.partition"),
    (r"invalid account", "Set provider.account"),
    (r"qos", "Set provider.qos"),
    (r"feature specification", "Set provider.constraint"),
    (r"reservation", "Set provider.reservation"),
    (r"gres", "Set provider.gres or provider.gpus_per_node"),
    (r"time limit|--time", "Lower provider.walltime, or set another provider.partition"),
    (r"node count", "Lower provider.nodes_per_block, or set another provider.partition"),
    (r"memory specification", "Lower provider.mem_per_node"),
    (r"cpu count", "Lower provider.cores_per_node"),
    (
        r"node configuration is not available|partition configuration not available",
        "Lower provider.nodes_per_block, cores_per_node, mem_per_node or gpus_per_node, or set another partition",
    ),
    (r"--cluster", "Set provider.clusters"),
    (r"invalid option|unrecognized option", "Check provider.scheduler_options"),
)


def remedy(refusal: str) -> str:
    """What to change after sbatch has said this; empty if that is not known."""
    for pattern, text in _REFUSALS:
        if re.search(pattern, refusal, re.IGNORECASE):
            return text
    return ""
