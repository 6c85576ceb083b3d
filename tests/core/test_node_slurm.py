"""What the environment of a Slurm job says about its share of a node."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotflow.node.slurm import Allocation, count_at, expand_hosts, read_allocation

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NODELIST": "node[1-2,4]",
    "SLURM_JOB_CPUS_PER_NODE": "4(x2),2",
    "SLURMD_NODENAME": "node2",
    "SLURM_NODEID": "1",
}


def allocation(**more: str) -> Allocation:
    found = read_allocation({**JOB, **more})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", ["node1"]),
        ("a,b", ["a", "b"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("node[08-10,12]", ["node08", "node09", "node10", "node12"]),
        ("r[1-2]c[1,3],login", ["r1c1", "r1c3", "r2c1", "r2c3", "login"]),
        ("n[1-2]-ib", ["n1-ib", "n2-ib"]),
        ("", None),
        ("n[", None),
        ("n[]", None),
        ("n[3-1]", None),
        ("n[a-b]", None),
        ("n[1-2]]", None),
        ("a,,b", None),
        ("n[0-999999999]", None),
        ("n[0-99999][0-99999]", None),
    ],
)
def test_a_list_of_hosts_is_expanded_or_refused(text: str, names: list[str] | None) -> None:
    assert expand_hosts(text) == names


@pytest.mark.parametrize(
    ("text", "index", "count"),
    [
        ("4", 0, 4),
        ("72(x2),36", 0, 72),
        ("72(x2),36", 1, 72),
        ("72(x2),36", 2, 36),
        ("72(x2),36", 3, None),
        ("72(x2),36", None, None),
        ("4(x3)", None, 4),
        ("4,4", None, 4),
        ("", 0, None),
        ("x", 0, None),
        ("4(2)", 0, None),
    ],
)
def test_the_count_of_one_node_is_found_by_its_place(text: str, index: int | None, count: int | None) -> None:
    assert count_at(text, index) == count


@settings(derandomize=True, deadline=None)
@given(st.text(alphabet="n01-9[],()x ", max_size=30))
def test_rubbish_lists_are_never_an_error(text: str) -> None:
    expand_hosts(text)
    count_at(text, 0)
    read_allocation({**JOB, "SLURM_JOB_NODELIST": text, "SLURM_JOB_CPUS_PER_NODE": text, "SLURM_JOB_GPUS": text})


def test_outside_of_slurm_there_is_no_allocation() -> None:
    assert read_allocation({}) is None


def test_a_shell_of_salloc_on_a_login_node_is_in_no_allocation() -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1", "SLURM_JOB_CPUS_PER_NODE": "4"}
    assert read_allocation(environ) is None


def test_cpus_are_those_of_this_node_by_its_name() -> None:
    assert allocation(SLURMD_NODENAME="node4").cpus == 2
    assert allocation(SLURMD_NODENAME="node2").cpus == 4


def test_the_place_within_a_step_does_not_count_when_the_name_is_known() -> None:
    assert allocation(SLURMD_NODENAME="node4", SLURM_NODEID="0", SLURM_STEP_NODELIST="node4").cpus == 2


def test_without_a_name_the_place_counts_unless_the_step_has_other_nodes() -> None:
    environ = {name: value for name, value in JOB.items() if name != "SLURMD_NODENAME"} | {"SLURM_NODEID": "2"}
    found = read_allocation(environ)
    assert found is not None
    assert found.cpus == 2
    other = read_allocation({**environ, "SLURM_STEP_NODELIST": "node4", "SLURM_CPUS_ON_NODE": "3"})
    assert other is not None
    assert other.cpus == 3


def test_the_jobs_figure_goes_before_the_steps() -> None:
    assert allocation(SLURM_CPUS_ON_NODE="1", SLURM_CPUS_PER_TASK="64").cpus == 4


def test_the_steps_figure_serves_where_there_is_no_other() -> None:
    assert allocation(SLURM_JOB_CPUS_PER_NODE="", SLURM_CPUS_ON_NODE="3").cpus == 3
    assert allocation(SLURM_JOB_CPUS_PER_NODE="").cpus is None


@pytest.mark.parametrize(
    ("environ", "mib"),
    [
        ({"SLURM_MEM_PER_NODE": "4000"}, 4000),
        ({"SLURM_MEM_PER_CPU": "1000"}, 4000),
        ({"SLURM_MEM_PER_GPU": "500", "SLURM_GPUS_ON_NODE": "2"}, 1000),
        ({"SLURM_MEM_PER_NODE": "2G"}, 2048),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_MEM_PER_CPU": "1000"}, None),
        ({"SLURM_MEM_PER_NODE": "lots"}, None),
        ({}, None),
    ],
)
def test_memory_is_in_mebibytes_per_node_or_cpu_or_gpu(environ: dict[str, str], mib: int | None) -> None:
    assert allocation(**environ).memory_bytes == (None if mib is None else mib << 20)


def test_the_end_of_the_job_is_known_where_slurm_says_it() -> None:
    assert allocation(SLURM_JOB_END_TIME="1700000000").end_unix_s == 1.7e9
    assert allocation().end_unix_s is None
    assert allocation(SLURM_JOB_END_TIME="soon").end_unix_s is None


def test_gpus_of_a_step_go_before_those_of_the_batch_script() -> None:
    assert allocation(SLURM_JOB_GPUS="0,1").gpu_ids == ("0", "1")
    assert allocation(SLURM_JOB_GPUS="0-2,5").gpu_ids == ("0", "1", "2", "5")
    assert allocation(SLURM_JOB_GPUS="0,1", SLURM_STEP_ID="3", SLURM_STEP_GPUS="2").gpu_ids == ("2",)
    assert allocation(SLURM_JOB_GPUS="0,1", SLURM_STEP_ID="3").gpu_ids is None


def test_the_number_of_gpus_is_said_or_counted() -> None:
    assert allocation(SLURM_JOB_GPUS="0,1").gpus == 2
    assert allocation(SLURM_GPUS_ON_NODE="3").gpus == 3
    assert allocation().gpus is None
