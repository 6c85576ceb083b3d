"""What failed jobs ask for the next time."""

from __future__ import annotations

from pilotflow.core.advice import Fact, advise, fitting
from pilotflow.resources import Request

MIB = 1 << 20


def test_a_job_that_used_too_much_memory_asks_for_half_as_much_again_as_it_used() -> None:
    advice = advise(Request(memory_bytes=100 * MIB), Fact("memory", 137, 200 * MIB, 5.0))
    assert advice.kind == "memory"
    assert advice.request == Request(memory_bytes=320 * MIB)
    assert "200 MiB" in advice.why
    assert "100 MiB" in advice.why


def test_a_kill_near_the_limit_is_one_for_memory_and_one_far_from_it_is_not() -> None:
    request = Request(memory_bytes=100 * MIB)
    assert advise(request, Fact("exit", 137, 90 * MIB, 5.0)).kind == "memory"
    assert advise(request, Fact("exit", 137, 10 * MIB, 5.0)).kind == "unknown"


def test_a_job_whose_time_was_over_asks_for_half_as_much_again() -> None:
    advice = advise(Request(runtime_s=60.0), Fact("runtime", 152, 0, 60.5))
    assert advice.request == Request(runtime_s=91.0)
    cut = advise(Request(), Fact("walltime", 152, 0, 600.0))
    assert cut.request == Request(runtime_s=900.0), "now it only starts where it can end"


def test_a_lost_node_changes_nothing_and_an_exit_code_is_not_explained() -> None:
    assert advise(Request(), Fact("lost", None, 0, 5.0))[:2] == ("lost", None)
    assert advise(Request(), Fact("exit", 3, 0, 5.0))[:2] == ("unknown", None)


def test_a_request_fits_what_was_measured_with_some_room() -> None:
    wide = Request(memory_bytes=64 << 30, runtime_s=36_000.0)
    facts = [Fact("", 0, 900 * MIB, 100.0), Fact("", 0, 1000 * MIB, 200.0)]
    assert fitting(wide, facts) == Request(memory_bytes=1216 * MIB, runtime_s=240.0)
    assert fitting(wide, []) == wide


def test_a_request_fits_the_cores_that_were_busy() -> None:
    def cores(*busy: float, num_nodes: int = 1) -> int:
        request = Request(cpus_milli=8000, num_nodes=num_nodes)
        return fitting(request, [Fact("", 0, 0, 10.0, each) for each in busy]).cpus_milli

    assert cores(0.97, 2.6) == 3000
    assert cores(0.2) == 1000
    assert cores(4.05) == 4000, "starting costs, too"
    assert cores(9.5) == 10_000
    assert cores(0.0) == 8000, "too short to tell"
    assert cores(2.0, num_nodes=2) == 8000, "of several nodes only one is measured"
