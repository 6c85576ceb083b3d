"""Stands in for srun: starts the copies here, as Slurm would on the nodes, and forwards SIGUSR1 as it does.

It refuses options that it does not know, and takes from the environment what srun would.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--nodes", "--ntasks", "--ntasks-per-node"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--relative", type=int, default=0)
    for name in ("--job-name", "--mem", "--cpu-bind", "--mpi", "--export", "--input", "--kill-on-bad-exit", "--wait"):
        parser.add_argument(name)
    parser.add_argument("--overlap", action="store_true")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    inherited = {name for name in os.environ if name.startswith(("SLURM_CPUS", "SRUN_CPUS", "SLURM_GPUS_PER_TASK"))}
    if inherited or (options.export, options.mem, options.overlap) != ("ALL", "0", True):
        print(f"these are inherited: {inherited}, or an option is missing: {options}", file=sys.stderr)
        return 99
    copies = [
        subprocess.Popen(options.command, env=os.environ | _of_step(options, index), stdin=subprocess.DEVNULL)
        for index in range(options.ntasks)
    ]

    def forward(*_: object) -> None:
        for copy in copies:
            copy.send_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, forward)
    codes = [copy.wait() for copy in copies]
    return max(code if code >= 0 else 128 - code for code in codes)  # the highest, as srun(1) says


def _of_step(options: argparse.Namespace, index: int) -> dict[str, str]:
    """What srun gives to each task."""
    return {
        "SLURM_NODEID": str(index),
        "SLURM_PROCID": str(index),
        "SLURM_STEP_ID": "0",
        "SLURMD_NODENAME": f"node{options.relative + index + 1}",
        "SLURM_CPUS_ON_NODE": "4",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": str(options.nodes) if options.relative == 0 else "2",
    }


if __name__ == "__main__":
    sys.exit(main())
