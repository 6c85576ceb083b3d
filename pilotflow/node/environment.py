"""What a task's process is told of the cores and GPUs that it has been given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pilotflow.core.placement import WHOLE, Seat
from pilotflow.node.gpus import VISIBLE, Gpu, Vendor
from pilotflow.node.report import NodeReport

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""How many threads numerical libraries start. Source: MAX_NUM_THREADS_VARS in joblib's _parallel_backends.py.

NUMBA_NUM_THREADS, which joblib sets too, is left alone: Numba refuses to go on in a process where it
has changed after its threads were started, and a worker runs tasks of different sizes.
"""
DEVICE_VARIABLES: Final = (
    *dict.fromkeys(name for names in VISIBLE.values() for name in names),
    "GPU_DEVICE_ORDINAL",
)
"""Lists of visible GPUs, of any vendor."""


def preset_variables(environ: Mapping[str, str]) -> frozenset[str]:
    """Which of the variables that `task_environment` may set an environment has already."""
    return frozenset(name for name in (*THREAD_VARIABLES, *DEVICE_VARIABLES) if name in environ)


def task_environment(seat: Seat, report: NodeReport, user_environ: Mapping[str, str]) -> dict[str, str]:
    """Variables to set for a task, on top of the environment of its manager.

    - Threads: as many as the task has whole cores, at least 1. Those that the manager's environment
      has already are left alone: the user or the site has exported them for all tasks.
    - GPUs: the task's own, in the variable of their vendor. A task without GPUs sees none of those
      that the node offers. On a node that offers none nothing is set.

    Args:
        seat: what the task holds.
        report: of the node.
        user_environ: variables that the user wrote for this task; none of them is set here.
    """
    threads = str(max(1, seat.cpus_milli // WHOLE))
    environ = {name: threads for name in THREAD_VARIABLES if name not in report.preset}
    if report.gpus:
        environ |= _devices(report, [report.gpus[position] for position in seat.gpus])
    for name in user_environ:
        environ.pop(name, None)
    return environ


def task_affinity(seat: Seat, report: NodeReport) -> frozenset[int] | None:
    """Ids of the CPUs that a task may run on; None for no restriction: pinning is off, or it has no core."""
    if not report.pinned or not seat.cores:
        return None
    return frozenset(cpu for core in seat.cores for cpu in report.cores[core].cpus)


def _devices(report: NodeReport, gpus: list[Gpu]) -> dict[str, str]:
    ids = ",".join(gpu.id for gpu in gpus)
    match report.vendor:
        case Vendor.AMD:
            # HIP's and OpenCL's lists count among the devices that ROCm's leaves, so a list for the
            # whole node, which Slurm may have written, would hide the wrong ones ("Flags" in gres.conf(5)).
            places = ",".join(str(place) for place in range(len(gpus)))
            later = (*VISIBLE[Vendor.AMD][1:], "GPU_DEVICE_ORDINAL")
            return {"ROCR_VISIBLE_DEVICES": ids} | {name: places for name in later if name in report.preset}
        case Vendor.INTEL:
            if not gpus:  # Level Zero has no list that is sure to hide every device
                return {}
            return {"ZE_AFFINITY_MASK": ids, "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "1"}
        case _:
            # Indices are nvidia-smi's, which are in the order of PCI addresses; CUDA's own default is
            # the fastest first (CUDA_DEVICE_ORDER in the CUDA Programming Guide).
            return {"CUDA_VISIBLE_DEVICES": ids, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
