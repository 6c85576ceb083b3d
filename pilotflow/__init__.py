"""pilotflow: many Python functions and shell commands on one laptop or a batch system.

Decorate functions with `python_app` and `bash_app` and call them inside `with load(): ...`, or use
a `PilotExecutor` as a pool from `concurrent.futures`. README.md shows both.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing: nothing is imported before the `pilotflow` command is ready for Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from pilotflow.app_output import AUTO_LOGNAME
    from pilotflow.apps import bash_app, python_app
    from pilotflow.caching.values import cache_key
    from pilotflow.caching.why import CacheReport, why_not_cached
    from pilotflow.config.model import Config, ExecutorConfig, ThreadExecutorConfig
    from pilotflow.context import TaskContext, current_task
    from pilotflow.errors import (
        BashExitError,
        BlockStartError,
        CacheKeyError,
        ConfigError,
        DependencyError,
        InterchangeLost,
        MemoryLimitExceeded,
        MissingOutputs,
        PilotflowError,
        RankError,
        RunClosed,
        SerializationError,
        StagingError,
        TaskTimeout,
        WalltimeExceeded,
        WorkerLost,
    )
    from pilotflow.executor import PilotExecutor
    from pilotflow.files import File
    from pilotflow.futures import AppFuture
    from pilotflow.ids import VERSION as __version__  # noqa: N811  the name that everybody looks for
    from pilotflow.joins import join_app
    from pilotflow.launchers.mpirun import MpiexecLauncher, MpirunLauncher
    from pilotflow.launchers.simple import SimpleLauncher, WrappedLauncher
    from pilotflow.launchers.single_node import SingleNodeLauncher
    from pilotflow.launchers.srun import SrunLauncher, SrunMPILauncher
    from pilotflow.loading import load
    from pilotflow.providers.local import LocalProvider
    from pilotflow.providers.slurm import SlurmProvider
    from pilotflow.run import Run
    from pilotflow.sharing import Shared, share
    from pilotflow.waiting import as_completed, progress

_HOMES = {
    "pilotflow.context": ("TaskContext", "current_task"),
    "pilotflow.app_output": ("AUTO_LOGNAME",),
    "pilotflow.apps": ("bash_app", "python_app"),
    "pilotflow.caching.values": ("cache_key",),
    "pilotflow.caching.why": ("CacheReport", "why_not_cached"),
    "pilotflow.config.model": ("Config", "ExecutorConfig", "ThreadExecutorConfig"),
    "pilotflow.errors": (
        "BashExitError",
        "BlockStartError",
        "CacheKeyError",
        "ConfigError",
        "DependencyError",
        "InterchangeLost",
        "MemoryLimitExceeded",
        "MissingOutputs",
        "PilotflowError",
        "RankError",
        "RunClosed",
        "SerializationError",
        "StagingError",
        "TaskTimeout",
        "WalltimeExceeded",
        "WorkerLost",
    ),
    "pilotflow.executor": ("PilotExecutor",),
    "pilotflow.files": ("File",),
    "pilotflow.futures": ("AppFuture",),
    "pilotflow.joins": ("join_app",),
    "pilotflow.launchers.mpirun": ("MpiexecLauncher", "MpirunLauncher"),
    "pilotflow.launchers.simple": ("SimpleLauncher", "WrappedLauncher"),
    "pilotflow.launchers.single_node": ("SingleNodeLauncher",),
    "pilotflow.launchers.srun": ("SrunLauncher", "SrunMPILauncher"),
    "pilotflow.loading": ("load",),
    "pilotflow.waiting": ("as_completed", "progress"),
    "pilotflow.providers.local": ("LocalProvider",),
    "pilotflow.providers.slurm": ("SlurmProvider",),
    "pilotflow.run": ("Run",),
    "pilotflow.sharing": ("Shared", "share"),
}

__all__ = [
    "AUTO_LOGNAME",
    "AppFuture",
    "BashExitError",
    "BlockStartError",
    "CacheKeyError",
    "CacheReport",
    "Config",
    "ConfigError",
    "DependencyError",
    "ExecutorConfig",
    "File",
    "InterchangeLost",
    "LocalProvider",
    "MemoryLimitExceeded",
    "MissingOutputs",
    "MpiexecLauncher",
    "MpirunLauncher",
    "PilotExecutor",
    "PilotflowError",
    "RankError",
    "Run",
    "RunClosed",
    "SerializationError",
    "Shared",
    "SimpleLauncher",
    "SingleNodeLauncher",
    "SlurmProvider",
    "SrunLauncher",
    "SrunMPILauncher",
    "StagingError",
    "TaskContext",
    "TaskTimeout",
    "ThreadExecutorConfig",
    "WalltimeExceeded",
    "WorkerLost",
    "WrappedLauncher",
    "__version__",
    "as_completed",
    "bash_app",
    "cache_key",
    "current_task",
    "join_app",
    "load",
    "progress",
    "python_app",
    "share",
    "why_not_cached",
]


def __getattr__(name: str) -> Any:
    # Names are imported when they are first used: managers and workers import only what they need.
    for module, names in _HOMES.items():
        if name in names:
            import importlib

            value = getattr(importlib.import_module(module), name)
            globals()[name] = value
            return value
    if name == "__version__":
        from pilotflow.ids import VERSION

        return VERSION
    raise AttributeError(f"module 'pilotflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
