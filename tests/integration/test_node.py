"""Measuring the machine that the tests run on, and programs that answer, fail, or hang."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from pilotflow.node import measure_node, run_tool, task_affinity
from tests.waiting import until


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_this_machine_is_measured() -> None:
    start = time.perf_counter()
    report = measure_node()
    print(f"measured in {(time.perf_counter() - start) * 1e3:.1f} ms: {report.summary()}", *report.notes, sep="\n")
    assert report.cpus_milli >= 1000
    assert report.memory_bytes is not None
    assert report.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert set(report.usable_cpus) <= os.sched_getaffinity(0)
    assert sorted(cpu for core in report.physical_cores for cpu in core) == list(report.usable_cpus)
    assert sorted(cpu for node in report.numa for cpu in node.cpus) == list(report.usable_cpus)


def test_a_process_can_be_pinned_to_a_seat_on_this_machine() -> None:
    report = measure_node(environ={})
    seat = report.book().take(1000)
    assert seat is not None
    cpus = task_affinity(seat, report)
    if cpus is not None:
        code = f"import os; os.sched_setaffinity(0, {set(cpus)}); print(sorted(os.sched_getaffinity(0)))"
        assert run_tool(python(code)).out == f"{sorted(cpus)}\n"


def test_a_program_that_ends_well_has_answered() -> None:
    answer = run_tool(python("import os; print(os.environ['LC_ALL'])"))
    assert (answer.out, answer.problem) == ("C\n", None)


def test_a_program_that_is_not_installed_is_no_problem() -> None:
    answer = run_tool(["pilotflow-no-such-program"])
    assert (answer.out, answer.problem) == (None, None)


def test_a_program_that_cannot_be_started_is_a_problem(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF rubbish")
    broken.chmod(0o755)
    assert run_tool([str(broken)]).problem == "cannot be started (Exec format error)"


def test_a_program_that_fails_keeps_its_output_and_says_why() -> None:
    answer = run_tool(python("import sys; print('GPU 0'); sys.exit('device is lost\\nmore')"))
    assert (answer.out, answer.problem) == ("GPU 0\n", "failed with exit code 1 (device is lost)")


def test_a_program_that_hangs_is_given_up_in_time_with_all_it_started(tmp_path: Path) -> None:
    code = f"""
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
print("GPU 0", flush=True)
time.sleep(600)
"""
    start = time.monotonic()
    answer = run_tool(python(code), timeout_s=3)
    assert (answer.out, answer.problem) == (None, "did not answer within 3 s")
    assert time.monotonic() - start < 20
    child = int((tmp_path / "child").read_text())
    until(lambda: not is_running(child), "the end of what it had started")


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except OSError:
        return False
