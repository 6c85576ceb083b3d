"""Apps that run on the nodes of the test clusters, and configurations to run them with."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from pilotflow import Config, python_app
from pilotflow.config.model import ExecutorConfig
from pilotflow.providers.slurm import SlurmProvider


@python_app
def double(x: int) -> int:
    return 2 * x


@python_app
def where() -> str:
    return socket.gethostname()


@python_app
def pause(seconds: float) -> str:
    time.sleep(seconds)
    return socket.gethostname()


@python_app
def noted(number: int, seconds: float, until: str = "") -> int:
    """Takes so long, and until there is a file, after noting in `starts` that it has begun, when and where."""
    with open("starts", "a") as file:
        file.write(f"{number} {time.time()} {socket.gethostname()}\n")
    time.sleep(seconds)
    while until and not os.path.exists(until):
        time.sleep(0.05)
    return number


@python_app
def variable(name: str) -> str | None:
    return os.environ.get(name)


def config(provider: dict[str, Any] | None = None, executor: dict[str, Any] | None = None, **run: Any) -> Config:
    """A run with one executor on Slurm."""
    given = {"partition": "debug", "walltime": 600, **(provider or {})}
    return Config(
        executors=(ExecutorConfig(label="slurm", provider=SlurmProvider(**given), **(executor or {})),), **run
    )
