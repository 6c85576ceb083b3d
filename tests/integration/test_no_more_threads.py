"""A program that can start no more threads is told so by the tasks that need one; the run goes on."""

from __future__ import annotations

from pathlib import Path

from tests.integration.scripts import run_script

SCRIPT = """
import threading
import pilotflow as pf
import pilotflow.errors

same = pf.python_app(executors="cpu")(lambda x: x)
here = pf.python_app(executors="threads")(lambda x: x)
known = pf.python_app(cache=True, executors="cpu")(lambda x: x)
joined = pf.join_app(same)

if __name__ == "__main__":
    cpu, threads = pf.ExecutorConfig(label="cpu", max_workers_per_node=1), pf.ThreadExecutorConfig(label="threads")
    with pf.load(pf.Config(executors=[cpu, threads])):
        same(0).result()
        threading.stack_size(1 << 46)  # more than there can be
        join = joined(1)
        print(type(here(2).exception()).__name__, here(2).exception())
        try:
            known(3)
        except pf.errors.InfrastructureError as error:
            print(type(error).__name__, error)
        print(same(4).result(), join.state)
        threading.stack_size(0)
        print(join.result(), here(5).result(), known(6).result())
"""


def test_tasks_that_need_a_thread_that_cannot_be_fail_or_wait_and_the_run_goes_on(tmp_path: Path) -> None:
    first, second, third, last = run_script(tmp_path, SCRIPT).stdout.splitlines()
    assert first.startswith("BlockStartError Executor 'threads' has no thread. This program can start no thread")
    assert "Raise its limits (ulimit -u" in first
    assert second.startswith("InfrastructureError This program can start no thread")
    assert (third, last) == ("4 running", "1 5 6")


AT_LOAD = """
import threading
import pilotflow as pf
import pilotflow.errors

if __name__ == "__main__":
    for store in (True, False):  # whose thread is the first
        threading.stack_size(1 << 46)  # more than there can be
        try:
            pf.load(pf.Config(store=store))
        except pf.errors.InfrastructureError as error:
            print(type(error).__name__, error)
        threading.stack_size(0)
    with pf.load(pf.Config()):
        print(pf.python_app(abs)(-1).result())
"""


def test_a_program_that_can_start_no_thread_at_all_is_told_so_by_load(tmp_path: Path) -> None:
    *refused, last = run_script(tmp_path, AT_LOAD).stdout.splitlines()
    assert [line.split(" (")[0] for line in refused] == 2 * [
        "InfrastructureError This program can start no thread besides its 1"
    ]
    assert last == "1"
