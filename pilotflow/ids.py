"""Names and numbers that identify things: our version, runs."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
"""pilotflow's version; the same in pyproject.toml, which a test compares."""
RUN_VARIABLE: Final = "PILOTFLOW_RUN"
"""Environment variable by which every process of a run can be found: see `runtime.leftovers`."""
RUN_DIRECTORY_VARIABLE: Final = "PILOTFLOW_RUN_DIRECTORY"
"""Environment variable with the run's directory, in workers and what they start."""
STEP_VARIABLE: Final = "PILOTFLOW_STEP"
"""Environment variable of tasks that are steps of the batch system: the step's name."""
WORKER_VARIABLE: Final = "PILOTFLOW_WORKER"
"""Environment variable with a worker's number, in that worker and what it starts."""
UNREACHABLE: Final = 69
"""Exit code of a manager that could not reach its run (EX_UNAVAILABLE of sysexits.h)."""
