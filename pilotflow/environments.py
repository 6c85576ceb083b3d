"""The Python environment of an executor's nodes: the submitting program's, there or brought there, or their own."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from pilotflow.errors import ConfigError
from pilotflow.providers.activation import Environment, activation_text, environment_of
from pilotflow.runtime.pythons import Python, home, this_python

if TYPE_CHECKING:
    from pilotflow.config.model import ExecutorConfig

STORE: Final = ".environments"
"""Directory beside the run directories for packed environments, which several runs may use."""


class NodeEnvironment(NamedTuple):
    """How Python is started on nodes, and shell text that comes before a block's worker_init."""

    python: Python
    prelude: str


def node_environment(executor: ExecutorConfig, run_directory: Path, *, write: bool = True) -> NodeEnvironment:
    """What an executor's `activate` and `stage_env` mean for this program.

    Args:
        executor: whose nodes.
        run_directory: the run's.
        write: leave there what the nodes read.

    Raises:
        ConfigError: the environment is to be staged, and cannot be.
    """
    here = _this_environment()
    if executor.stage_env:
        return _staged(executor, here, run_directory, write)
    if not executor.activate:
        return NodeEnvironment(Python("python3", home()), "")
    # On this machine blocks inherit the environment as it is.
    return NodeEnvironment(this_python(), activation_text(here) if executor.provider.elsewhere else "")


def _this_environment() -> Environment:
    name = os.environ.get("CONDA_DEFAULT_ENV", "") if os.environ.get("CONDA_PREFIX") == sys.prefix else ""
    has_conda_meta = Path(sys.prefix, "conda-meta").is_dir()
    return environment_of(sys.prefix, sys.base_prefix, has_conda_meta=has_conda_meta, name=name)


def _staged(executor: ExecutorConfig, here: Environment, run_directory: Path, write: bool) -> NodeEnvironment:
    from pilotflow.runtime.staging import SCRIPT, pack_environment

    if not here.kind:
        raise ConfigError(
            f"Executor '{executor.label}': stage_env brings a virtual environment or one of conda to the nodes, and "
            f"this program runs in none ({sys.executable}). Run it in one, or leave stage_env out."
        )
    folder = "/tmp" if executor.stage_env is True else str(executor.stage_env)  # noqa: S108  a directory of ours in it
    package = Path(home(), "pilotflow") if home() else None
    base = f"{folder}/pilotflow-env-{os.getuid()}"
    tar, dest = pack_environment(Path(here.prefix), run_directory.parent / STORE, base, package, write=write)
    script = run_directory / "stage.sh"
    if write:
        script.write_text(SCRIPT)
    executable = dest / os.path.relpath(sys.executable, here.prefix)
    python = Python(str(executable), "", ("bash", str(script), str(tar), str(dest)))
    prelude = activation_text(dataclasses.replace(here, prefix=str(dest))) if executor.activate else ""
    return NodeEnvironment(python, prelude)
