"""A program that defines apps again and again: its run's processes do not grow, and what workers do not see is said."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import pilotflow as pf
from pilotflow.runtime.definitions import FORGOTTEN_BYTES

CARRIED = 1 << 20
"""Bytes that each function carries along."""


def new_app(number: int) -> pf.App[int]:
    carried = os.urandom(CARRIED)

    @pf.python_app
    def mine() -> int:
        return number + len(carried)

    return mine


def largest_bytes() -> int:
    """Of the processes of this program's runs."""
    return max(process.memory_info().rss for process in psutil.Process().children(recursive=True))


@pytest.mark.parametrize("count", [240, pytest.param(2000, marks=pytest.mark.soak)])
def test_functions_that_nobody_has_any_more_are_forgotten_by_all_processes(tmp_path: Path, count: int) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)):
        kept = new_app(-1)
        assert kept().result(60) == CARRIED - 1
        before = largest_bytes()
        for number in range(count):
            assert new_app(number)().result(60) == number + CARRIED
            if number % 20 == 0:
                gc.collect()
        # A worker has a function's body, its code by value, and what it carries: three times that.
        assert largest_bytes() < before + 4 * FORGOTTEN_BYTES + 32 * CARRIED < before + 3 * count * CARRIED
        assert kept().result(60) == CARRIED - 1


def test_a_function_is_kept_while_a_task_of_it_waits_or_runs_and_for_as_long_as_any_app_has_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def waiting(number: int) -> Any:
        @pf.python_app
        def wait(after: Any) -> int:
            import time

            while not gate.exists():
                time.sleep(0.01)
            return number

        return wait

    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path / "runs")) as run:
        first = waiting(1)(None)
        waits = waiting(2)(first)
        queued = [waiting(3)(None) for _ in range(3)]
        twin, other = waiting(4), waiting(4)
        late = twin(None)
        del twin
        for number in range(100):
            new_app(number)
            new_app(number)()
        gc.collect()
        gate.touch()
        assert [future.result(60) for future in (first, waits, *queued, late)] == [1, 2, 3, 3, 3, 4]
        assert other(None).result(60) == 4
        assert run.client.wait_idle(60)


def test_a_module_that_is_edited_while_the_run_is_open_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "edited_physics.py"
    file.write_text("def law():\n    return 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    physics = importlib.import_module("edited_physics")

    def new_app() -> pf.App[int]:
        return pf.python_app(lambda: physics.law() * 2)

    try:
        with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path / "runs")):
            assert new_app()().result(60) == 2
            assert new_app()().result(60) == 2  # without a warning, which would be an error
            file.write_text("def law():\n    return 'another'\n", encoding="utf-8")
            with pytest.warns(
                RuntimeWarning, match=r"'edited_physics' .* was edited at .* Close the run and load it again"
            ):
                assert new_app()().result(60) == 2
    finally:
        del sys.modules["edited_physics"]
