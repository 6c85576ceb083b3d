"""What a task is told of its share of a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.core.placement import Seat
from pilotflow.node import NodeReport, Overrides, task_affinity, task_environment
from pilotflow.node.environment import DEVICE_VARIABLES, THREAD_VARIABLES
from tests.core.node_trees import Tree, tool
from tests.core.test_node_gpus import LIST, MIG, drm, kfd

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def seat(report: NodeReport, cpus_milli: int = 1000, gpus_milli: int = 0) -> Seat:
    found = report.book().take(cpus_milli, gpus_milli)
    assert found is not None
    return found


@pytest.mark.parametrize(("milli", "threads"), [(250, "1"), (1000, "1"), (1500, "1"), (3000, "3"), (0, "1")])
def test_libraries_start_as_many_threads_as_the_task_has_whole_cores(tmp_path: Path, milli: int, threads: str) -> None:
    report = Tree(tmp_path).machine().measure()
    assert task_environment(seat(report, milli), report, {}) == dict.fromkeys(THREADS, threads)


def test_what_the_user_wrote_for_the_task_is_not_touched(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure(run=tool(L=LIST))
    written = {"OMP_NUM_THREADS": "7", "CUDA_VISIBLE_DEVICES": "3", "HOME": "/x"}
    environ = task_environment(seat(report, 2000, 1000), report, written)
    assert not set(environ) & set(written)
    assert environ["MKL_NUM_THREADS"] == "2"


def test_numbers_of_threads_exported_on_the_node_hold_for_all_tasks(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure({"OMP_NUM_THREADS": "2"})
    assert "OMP_NUM_THREADS" not in task_environment(seat(report), report, {})


def test_a_task_sees_its_nvidia_gpus_by_nvidia_smis_numbers(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure({"CUDA_VISIBLE_DEVICES": "2,3,1"}, run=tool(L=LIST))
    environ = task_environment(seat(report, 1000, 2000), report, {})
    assert (environ["CUDA_VISIBLE_DEVICES"], environ["CUDA_DEVICE_ORDER"]) == ("2,3", "PCI_BUS_ID")


def test_a_task_sees_its_mig_instance(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure(run=tool(L=MIG))
    environ = task_environment(seat(report, 1000, 1000), report, {})
    assert environ["CUDA_VISIBLE_DEVICES"] == "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"


def test_a_task_with_a_part_of_a_gpu_sees_that_gpu(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure(run=tool(L=LIST))
    assert task_environment(seat(report, 1000, 250), report, {})["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_task_without_gpus_sees_none_of_a_node_that_offers_some(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure(run=tool(L=LIST))
    assert task_environment(seat(report), report, {})["CUDA_VISIBLE_DEVICES"] == ""


def test_on_a_node_that_offers_no_gpu_nothing_is_said_of_them(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure(run=tool(L=LIST), overrides=Overrides(num_gpus=0))
    assert set(task_environment(seat(report), report, {})) == set(THREADS)


def test_gpus_that_only_the_user_knows_are_told_as_nvidias(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure(overrides=Overrides(num_gpus=2))
    assert task_environment(seat(report, 1000, 1000), report, {})["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_task_sees_its_amd_gpus(tmp_path: Path) -> None:
    report = kfd(Tree(tmp_path).machine()).measure()
    environ = task_environment(seat(report, 1000, 1000), report, {})
    assert set(environ) == {*THREADS, "ROCR_VISIBLE_DEVICES"}
    assert environ["ROCR_VISIBLE_DEVICES"] == "0"
    assert task_environment(seat(report), report, {})["ROCR_VISIBLE_DEVICES"] == ""


def test_lists_for_the_whole_node_that_come_after_rocms_count_from_zero(tmp_path: Path) -> None:
    node = dict.fromkeys(("ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"), "2,3")
    report = kfd(Tree(tmp_path).machine(), gpus=4).measure(node)
    environ = task_environment(seat(report, 1000, 2000), report, {})
    assert environ["ROCR_VISIBLE_DEVICES"] == "2,3"
    assert environ["CUDA_VISIBLE_DEVICES"] == environ["GPU_DEVICE_ORDINAL"] == "0,1"
    assert "HIP_VISIBLE_DEVICES" not in environ


def test_a_task_sees_its_intel_gpus_in_the_order_of_their_addresses(tmp_path: Path) -> None:
    report = drm(Tree(tmp_path).machine(), "0000:18:00.0", "0000:9a:00.0").measure()
    environ = task_environment(seat(report, 1000, 2000), report, {})
    assert (environ["ZE_AFFINITY_MASK"], environ["ZE_ENABLE_PCI_ID_DEVICE_ORDER"]) == ("0,1", "1")
    assert set(task_environment(seat(report), report, {})) == set(THREADS)


def test_a_task_is_pinned_to_the_real_cpus_of_its_cores(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(physical=8).measure(affinity={4, 6, 7})
    assert task_affinity(seat(report, 2000), report) == frozenset({4, 6})
    assert task_affinity(seat(report, 500), report) == frozenset({4})


def test_a_core_that_is_counted_as_one_has_all_its_hyperthreads(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(physical=4, threads=2).measure(affinity=range(8), overrides=Overrides(num_cpus=4))
    assert task_affinity(seat(report, 2000), report) == frozenset({0, 4, 1, 5})


def test_without_pinning_or_cores_a_task_may_run_anywhere(tmp_path: Path) -> None:
    off = Tree(tmp_path).machine().measure(overrides=Overrides(num_cpus=9))
    assert task_affinity(seat(off), off) is None
    on = Tree(tmp_path).machine().measure()
    assert task_affinity(seat(on, 0), on) is None


def test_the_page_about_nodes_names_every_variable_that_is_read_or_set() -> None:
    page = (Path(__file__).parents[2] / "docs" / "nodes.md").read_text(encoding="utf-8")
    for name in (*THREAD_VARIABLES, *DEVICE_VARIABLES):
        assert f"`{name}`" in page, name
