"""What users may import from `pilotflow`: adding or dropping a name is a decision, made here."""

from __future__ import annotations

import re
from pathlib import Path

import pilotflow

PUBLIC = [
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


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(pilotflow.__all__) == sorted(PUBLIC)


def test_every_public_name_can_be_imported() -> None:
    assert not [name for name in PUBLIC if not hasattr(pilotflow, name)]


def test_the_version_is_the_one_of_the_distribution() -> None:
    pyproject = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    match = re.search(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    assert match
    assert match[1] == pilotflow.__version__
