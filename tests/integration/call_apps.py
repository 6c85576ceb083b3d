"""Apps of `call_tasks` and a command, and the two executors that they name."""

from __future__ import annotations

import os
from pathlib import Path

import pilotflow as pf
from tests.integration import call_tasks

WORKERS = 2


def two_executors(directory: Path) -> pf.Config:
    """The one called "cpu" has `WORKERS`, the other one has one."""
    cpu = pf.ExecutorConfig(label="cpu", max_workers_per_node=WORKERS)
    return pf.Config(run_dir=directory, executors=[cpu, pf.ExecutorConfig(label="other", max_workers_per_node=1)])


same = pf.python_app(executors=["cpu"])(call_tasks.same)
add = pf.python_app(executors=["cpu"])(call_tasks.add)
gather = pf.python_app(call_tasks.gather)
hold = pf.python_app(executors=["cpu"])(call_tasks.hold)
hold_with_child = pf.python_app(executors=["cpu"])(call_tasks.hold_with_child)
fail = pf.python_app(call_tasks.fail)


@pf.python_app
def talk(word: str) -> str:
    print("printed", word)
    os.system(f"echo child {word}; echo trouble {word} >&2")
    return word


@pf.bash_app
def shell(command: str) -> str:
    return command
