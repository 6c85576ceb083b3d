"""The srun of one task: what is asked for is passed on, and a site's defaults do not matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.launchers.srun_task import TaskStep, task_argv
from pilotflow.testing.launchers import ODD_ARGUMENTS

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PLAIN = TaskStep(name="fit-7", node="node3", cpus=1)
FULL = TaskStep(name="fit-7", node="node3", cpus=8, memory_bytes=(3 << 29) + 1, gpus=2, runtime_s=90.5, grace_s=2.5)
FREE = TaskStep(name="fit-7", node="node3", cpus=None)


@pytest.mark.parametrize(
    ("step", "options", "name"), [(PLAIN, (), "plain"), (FULL, ("--network=x",), "full"), (FREE, (), "free")]
)
def test_the_command_is_as_shown(step: TaskStep, options: tuple[str, ...], name: str) -> None:
    argv = task_argv(["python3", "it's $HOME"], step, options)
    assert "\n".join(argv) + "\n" == (GOLDEN / f"srun_task_{name}.txt").read_text()


def test_every_argument_of_the_command_arrives_as_it_is() -> None:
    assert task_argv(["x", *ODD_ARGUMENTS], PLAIN)[-len(ODD_ARGUMENTS) :] == list(ODD_ARGUMENTS)
