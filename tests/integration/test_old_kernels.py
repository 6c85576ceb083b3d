"""Linux 4.18, which RHEL 8 has: whole runs where each system call that came later is refused, or Python lacks them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.faults import ROOT
from tests.integration.scripts import run_script

HERE = "tests/integration"
TESTS = (
    "test_faults_workers.py::test_a_task_whose_worker_dies_runs_again_within_a_second_on_another",
    "test_faults_managers.py::test_tasks_of_a_killed_manager_run_again_on_the_block_that_replaces_it",
    "test_faults_interchange.py::test_all_pending_futures_fail_and_another_run_can_be_loaded[SIGKILL]",
    "test_faults_programs.py::test_nothing_of_a_killed_program_is_alive_15_seconds_later",
    "test_faults_programs.py::test_ctrl_c_of_a_terminal_reaches_the_whole_group_and_ends_the_run_as_usual",
    "test_block_guard.py::test_what_was_left_behind_is_done_when_both_are_gone",
    "test_multi_node.py::test_an_exception_of_a_rank_fails_the_task_and_names_the_rank",
    "test_multi_node.py::test_a_step_that_exceeds_its_runtime_is_ended_on_all_nodes",
    "test_workflow_kills.py::test_what_has_finished_is_neither_lost_nor_repeated[coordinator-sample0]",
)
CHECK = "import os, pilotflow.runtime.process_end as e; print(e.why_threads())"


def under(number: str, *command: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.old_kernel", number, *command]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(
    ("number", "words"), [("ENOSYS", "Function not implemented"), ("EPERM", "Operation not permitted")]
)
def test_there_are_no_pidfds_then(number: str, words: str) -> None:
    done = under(number, sys.executable, "-c", CHECK)
    assert done.stdout.strip() == f"pidfd_open: {words}", done.stderr


@pytest.mark.timeout(300)
def test_runs_and_whatever_dies_in_them_end_as_everywhere() -> None:
    """These tests themselves run on such a kernel."""
    done = under("ENOSYS", sys.executable, "-m", "pytest", "-q", "-x", *(f"{HERE}/{name}" for name in TESTS))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(TESTS)} passed" in done.stdout


LACKING = """
import os, signal
del os.pidfd_open, os.memfd_create, os.MFD_CLOEXEC, signal.pidfd_send_signal
"""
PROGRAM = """
import os
import pilotflow as pf

@pf.python_app
def turn(data):
    return hasattr(os, "memfd_create"), data[::-1]

if __name__ == "__main__":
    with pf.load(pf.Config()) as run:
        data = os.urandom(1 << 20)
        assert turn(data).result() == (False, data[::-1])
        print((run.directory / "pilotflow.log").read_text().count("(this Python was built without pidfd_open)"))
"""


def test_a_python_that_was_built_for_older_systems_will_do(tmp_path: Path) -> None:
    """Such as conda's: it lacks calls that the system has."""
    (tmp_path / "sitecustomize.py").write_text(LACKING)
    assert run_script(tmp_path, PROGRAM, path=tmp_path).stdout == "1\n"
