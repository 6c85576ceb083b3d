"""What tests of steps share: a runner of real processes, and a way to wait for outcomes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pilotflow.bodies import pack_function
from pilotflow.launchers.base import Launcher
from pilotflow.launchers.rank_text import rank_command
from pilotflow.launchers.steps import Step
from pilotflow.names import ImportPath
from pilotflow.remote_errors import unpack_exception
from pilotflow.runtime.head_agent import RankCall, RunningStep, StepEnd, StepOutcome, StepRunner
from pilotflow.runtime.loop import Loop
from pilotflow.runtime.pythons import Python
from pilotflow.serialize import Packed, pack_call, unpack

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake_mpirun.py")
LIMIT_S = 60.0


class FakeMpirun(Launcher):
    """Starts ranks on this host without any MPI."""

    def wrap(self, command: Sequence[str], nodes: int) -> str:
        raise AssertionError("its ranks are started as steps")

    def step(self, command: Sequence[str], step: Step) -> list[str]:
        return [sys.executable, str(FAKE), str(step.ranks), *rank_command(command, step)]


def call_of(
    function: Callable[..., Any],
    *args: Any,
    return_ranks: Literal["first", "all"] = "first",
    arguments: Packed | None = None,
    **kwargs: Any,
) -> RankCall:
    packed = arguments or pack_call(args, kwargs, [])
    name = function.__name__
    path = ImportPath((), (str(ROOT),))
    return RankCall(name=name, body=pack_function(function), arguments=packed, return_ranks=return_ranks, path=path)


def local(name: str = "step", nodes: int = 2, **fields: Any) -> Step:
    names = tuple(f"logical-{index}" for index in range(nodes))
    return Step(name=name, nodes=names, local=True, **fields)


def runner(directory: Path, launcher: Launcher | None = None, *, grace_s: float = 5.0) -> StepRunner:
    return StepRunner(
        launcher or FakeMpirun(),
        directory / "steps",
        os.environ,
        grace_s=grace_s,
        python=Python(sys.executable, str(ROOT)),
    )


def outcome(running: RunningStep, *, close: bool = True) -> StepOutcome:
    """The outcome, waited for in the project's own loop, as a head agent would."""
    found: list[StepOutcome] = []
    loop = Loop()

    def ended() -> None:
        loop.remove(running.fileno())
        if (done := running.advance(time.monotonic())) is not None:
            found.append(done)

    loop.add(running.fileno(), ended)
    end = time.monotonic() + LIMIT_S
    while not found:
        now = time.monotonic()
        assert now < end, "the step does not end"
        due_at = running.due_at
        loop.turn(min(end, end if due_at is None else due_at) - now)
        is_due = not found and due_at is not None and time.monotonic() >= due_at
        if is_due and (done := running.advance(time.monotonic())) is not None:
            found.append(done)
    loop.close()
    if close:
        running.close()
    return found[0]


def value_of(done: StepOutcome) -> Any:
    assert done.end is StepEnd.OK, done.words
    return unpack(*done.packed)


def error_of(done: StepOutcome, end: StepEnd = StepEnd.ERROR) -> BaseException:
    assert done.end is end, (done.end, done.words)
    return unpack_exception(*done.packed)
