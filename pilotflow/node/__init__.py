"""The node a manager runs on: what it has, and what a task there is told of its share.

report = measure_node()                        # once, when the manager starts
log(report.summary(), *report.notes)
book = report.book()
seat = book.take(request.cpus_milli, request.gpus_milli)    # None: not now
environ |= task_environment(seat, report, the_tasks_own_variables)
cpus = task_affinity(seat, report)             # None: leave it alone
book.give_back(seat)
"""

from pilotflow.node.environment import task_affinity, task_environment
from pilotflow.node.gpus import Gpu, Vendor
from pilotflow.node.measure import measure_node
from pilotflow.node.report import Core, NodeReport, Overrides
from pilotflow.node.slurm import Allocation
from pilotflow.node.tools import Answer, Run, run_tool
from pilotflow.node.topology import NumaNode

__all__ = [
    "Allocation",
    "Answer",
    "Core",
    "Gpu",
    "NodeReport",
    "NumaNode",
    "Overrides",
    "Run",
    "Vendor",
    "measure_node",
    "run_tool",
    "task_affinity",
    "task_environment",
]
