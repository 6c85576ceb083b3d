"""Tasks start processes of their own, as scripts for one machine do: pools, forks, what they leave behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pilotflow as pf
from tests.integration.call_tasks import DEADLINE_S


@pf.python_app
def squares_in_a_pool() -> list[float]:
    with multiprocessing.get_context("fork").Pool(2) as pool:  # its end is a SIGTERM to each of its processes
        return pool.map(abs, range(-3, 0))


@pf.python_app
def terminated_child() -> int | None:
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode


@pf.python_app
def forked(number: int, *, leaves: bool = False) -> str:
    child = os.fork()
    if child == 0:
        if leaves:
            sys.exit("the child")
        return "the child"
    os.waitpid(child, 0)
    return f"the task {number}"


def test_processes_that_a_task_forks_end_at_sigterm(tmp_path: Path) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)):
        assert squares_in_a_pool().result(DEADLINE_S) == [3, 2, 1]
        assert terminated_child().result(DEADLINE_S) == -signal.SIGTERM


def test_a_process_that_a_task_forks_never_answers_in_its_place(tmp_path: Path) -> None:
    with pf.load(pf.Config.for_this_machine(max_workers=1, run_dir=tmp_path)):
        futures = [forked(0), forked(1, leaves=True), forked(2)]
        assert [future.result(DEADLINE_S) for future in futures] == ["the task 0", "the task 1", "the task 2"]
