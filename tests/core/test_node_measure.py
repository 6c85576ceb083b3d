"""Cores, memory, topology and time of a node: what is measured, Slurm's figures, what the user says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.core.placement import Place
from pilotflow.errors import ConfigError
from pilotflow.node import Core, NodeReport, NumaNode, Overrides
from tests.core.node_trees import GIB, Tree
from tests.core.test_node_gpus import driver_files, drm, kfd

JOB = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": "node1", "SLURM_JOB_NODELIST": "node[1-2]"}


def real_cpus(report: NodeReport) -> list[tuple[int, ...]]:
    return [core.cpus for core in report.cores]


# ---- cores ----------------------------------------------------------------------------------


def test_every_usable_cpu_is_a_core_with_a_cpu_of_its_own(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure()
    assert (report.cpus_milli, real_cpus(report), report.pinned) == (4000, [(0,), (1,), (2,), (3,)], True)
    assert report.notes == ()


def test_only_cpus_that_this_process_may_use_count(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(physical=8).measure(affinity={1, 5, 6})
    assert (report.usable_cpus, real_cpus(report)) == ((1, 5, 6), [(1,), (5,), (6,)])


def test_a_cpuset_narrows_the_cpus(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine(physical=8).cgroup2("/a", {"a/cpuset.cpus.effective": "2-5"})
    assert tree.measure(affinity=range(4)).usable_cpus == (2, 3)


def test_a_cpuset_that_contradicts_the_kernel_is_ignored(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine().cgroup2("/a", {"a/cpuset.cpus.effective": "100-103"})
    assert tree.measure().usable_cpus == (0, 1, 2, 3)


def test_a_quota_limits_cpu_time_and_turns_pinning_off(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().cgroup2("/a/b", {"a/cpu.max": "250000 100000"}).measure()
    assert (report.cpus_milli, report.quota_milli, len(report.cores), report.pinned) == (2500, 2500, 3, False)
    assert real_cpus(report) == [()] * 3
    assert report.notes == (
        "4 CPUs can be used, but /sys/fs/cgroup/a/cpu.max allows the time of 2.5: 2.5 cores are offered.",
        "Tasks are not pinned to cores: /sys/fs/cgroup/a/cpu.max limits CPU time, not which CPUs are used.",
    )


def test_a_quota_of_more_than_the_cpus_changes_nothing(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().cgroup2("/", {"cpu.max": "400000 100000"}).measure()
    assert (report.cpus_milli, report.pinned, report.notes) == (4000, True, ())


def test_a_node_offers_a_whole_core_even_if_a_quota_gives_it_less(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().cgroup2("/", {"cpu.max": "50000 100000"}).measure()
    assert (report.cpus_milli, report.quota_milli, len(report.cores)) == (1000, 500, 1)


def test_a_bare_directory_is_a_node_of_unrelated_cores(tmp_path: Path) -> None:
    report = Tree(tmp_path).measure(affinity={3, 4})
    assert (report.cpus_milli, report.memory_bytes) == (2000, None)
    assert report.numa == (NumaNode(0, (3, 4)),)
    assert report.physical_cores == ((3,), (4,))


# ---- topology -------------------------------------------------------------------------------


def test_numa_domains_and_hyperthreads_are_known(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(physical=4, numa=2, threads=2).measure(affinity=range(8))
    assert report.numa == (NumaNode(0, (0, 1, 4, 5)), NumaNode(1, (2, 3, 6, 7)))
    assert report.physical_cores == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert report.cores[6] == Core((6,), Place(1, 2))


def test_domains_and_hyperthreads_that_may_not_be_used_are_left_out(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(physical=4, numa=2, threads=2).measure(affinity={2, 3, 6})
    assert report.numa == (NumaNode(1, (2, 3, 6)),)
    assert report.physical_cores == ((2, 6), (3,))


def test_domains_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(physical=12, numa=12).measure(affinity=range(12))
    assert [node.id for node in report.numa] == list(range(12))


@pytest.mark.parametrize("text", ["", "x", "0-", "\x00"])
def test_rubbish_about_topology_is_no_relation(tmp_path: Path, text: str) -> None:
    tree = Tree(tmp_path).machine(physical=2)
    tree.write("/sys/devices/system/node/node0/cpulist", text).write("/sys/devices/system/node/nodex/cpulist", "0-1")
    tree.write("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list", text)
    report = tree.measure(affinity={0, 1})
    assert (report.numa, report.physical_cores) == ((NumaNode(0, (0, 1)),), ((0,), (1,)))


def test_a_cpu_that_no_domain_lists_is_in_the_first(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine(physical=4, numa=2).write("/sys/devices/system/node/node1/cpulist", "3")
    assert tree.measure().numa == (NumaNode(0, (0, 1, 2)), NumaNode(1, (3,)))


def test_a_book_of_seats_knows_the_nodes_domains(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(physical=4, numa=2, threads=2).measure(affinity=range(8))
    seat = report.book().take(2000)
    assert seat is not None
    assert [report.cores[core].cpus for core in seat.cores] == [(0,), (4,)]


# ---- in an allocation of Slurm --------------------------------------------------------------


def test_slurms_figure_is_the_capacity_and_few_real_cores_turn_pinning_off(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure({**JOB, "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}, affinity={0, 1})
    assert (report.cpus_milli, len(report.cores), report.pinned) == (4000, 4, False)
    assert report.notes == (
        "Tasks are not pinned to cores: Slurm's figure for this node is 4 CPUs, but this process may use only 2.",
    )


def test_as_many_real_cores_as_slurm_says_are_pinned_in_their_order(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(8).measure({**JOB, "SLURM_JOB_CPUS_PER_NODE": "2(x2)"}, affinity={5, 7})
    assert (real_cpus(report), report.pinned) == ([(5,), (7,)], True)


def test_where_slurm_counts_cores_each_has_all_its_hyperthreads(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine(physical=4, threads=2)
    report = tree.measure({**JOB, "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}, affinity=range(8))
    assert (real_cpus(report), report.pinned) == ([(0, 4), (1, 5), (2, 6), (3, 7)], True)


def test_which_of_more_real_cores_are_the_jobs_is_unknown_so_pinning_is_off(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine(8).measure({**JOB, "SLURM_JOB_CPUS_PER_NODE": "2(x2)"}, affinity=range(8))
    assert (report.cpus_milli, report.pinned) == (2000, False)
    (note,) = report.notes
    assert note.startswith("Tasks are not pinned to cores: Slurm's figure for this node is 2 CPUs, and which of the 8")


def test_a_quota_below_slurms_figure_is_said_and_not_enforced(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine().cgroup2("/", {"cpu.max": "200000 100000"})
    report = tree.measure({**JOB, "SLURM_JOB_CPUS_PER_NODE": "4(x2)"})
    assert report.cpus_milli == 4000
    assert report.notes == (
        "Slurm's figure for this node is 4 CPUs, but /sys/fs/cgroup/cpu.max allows the time of 2: tasks will be slower.",
    )


def test_a_login_nodes_shell_with_a_jobs_variables_uses_none_of_them_and_says_so(tmp_path: Path) -> None:
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_CPUS_PER_NODE": "2", "SLURM_MEM_PER_NODE": "1"}
    report = Tree(tmp_path).machine().measure(environ)
    assert (report.cpus_milli, report.memory_bytes, report.allocation) == (4000, 16 * GIB, None)
    assert "runs on none of its nodes" in report.notes[0]


def test_the_time_left_is_known_where_slurm_says_the_end(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert tree.measure({**JOB, "SLURM_JOB_END_TIME": "1000"}, now_unix_s=400.0).time_left_s == 600.0
    assert tree.measure({**JOB, "SLURM_JOB_END_TIME": "1000"}, now_unix_s=2000.0).time_left_s == 0.0
    assert tree.measure(JOB).time_left_s is None
    assert tree.measure({"SLURM_JOB_END_TIME": "1000"}).time_left_s is None


# ---- memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "slurm_mib", "gib"),
    [(None, None, 16), (4, None, 4), (None, "8192", 8), (4, "8192", 4), (12, "8192", 8), (64, "65536", 16)],
)
def test_memory_is_the_least_of_machine_control_groups_and_slurm(
    tmp_path: Path, group: int | None, slurm_mib: str | None, gib: int
) -> None:
    tree = Tree(tmp_path).machine()
    if group is not None:
        tree.cgroup2("/a", {"a/memory.max": str(group * GIB)})
    environ = {} if slurm_mib is None else {**JOB, "SLURM_MEM_PER_NODE": slurm_mib}
    assert tree.measure(environ).memory_bytes == gib * GIB


def test_a_limit_of_memory_is_said_with_the_file_that_states_it(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine().cgroup2("/a", {"a/memory.max": str(4 * GIB)})
    assert tree.measure().notes == ("/sys/fs/cgroup/a/memory.max limits memory to 4 GiB; the machine has 16 GiB.",)


@pytest.mark.parametrize("text", ["", "MemTotal: lots", "MemTotal: 0 kB", "\xff"])
def test_rubbish_about_memory_leaves_it_unknown(tmp_path: Path, text: str) -> None:
    assert Tree(tmp_path).write("/proc/meminfo", text).measure().memory_bytes is None


# ---- what the user says ---------------------------------------------------------------------


def test_the_users_cores_go_before_everything(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine().cgroup2("/", {"cpu.max": "200000 100000"})
    report = tree.measure({**JOB, "SLURM_JOB_CPUS_PER_NODE": "2(x2)"}, overrides=Overrides(num_cpus=9))
    assert (report.cpus_milli, len(report.cores), report.pinned) == (9000, 9, False)
    assert report.notes == ("Tasks are not pinned to cores: the user said 9 cores, but this process may use only 4.",)


def test_as_many_cores_as_there_are_stay_pinned_when_the_user_says_so(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine(physical=2, threads=2)
    assert tree.measure(overrides=Overrides(num_cpus=4)).pinned
    assert real_cpus(tree.measure(overrides=Overrides(num_cpus=2))) == [(0, 2), (1, 3)]


def test_the_user_may_turn_pinning_off(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure(overrides=Overrides(pin=False))
    assert (report.cpus_milli, report.pinned) == (4000, False)
    assert report.notes == ("Tasks are not pinned to cores: the user said so.",)


def test_the_users_memory_goes_before_everything_and_too_much_is_said(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine()
    assert tree.measure(overrides=Overrides(memory_bytes=2 * GIB)).memory_bytes == 2 * GIB
    report = tree.measure(overrides=Overrides(memory_bytes=32 * GIB))
    assert report.memory_bytes == 32 * GIB
    assert report.notes == ("32 GiB of memory are offered as the user said, but no more than 16 GiB can be used.",)


@pytest.mark.parametrize("bad", [{"num_cpus": 0}, {"memory_bytes": 0}, {"num_gpus": -1}, {"num_cpus": 10**9}])
def test_impossible_numbers_are_refused_with_words(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="of a node is"):
        Overrides(**bad)  # type: ignore[arg-type]


# ---- rubbish --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "\x00\xff\n", "-1", "9" * 30, "max max max", "a: b\n" * 50, None])
def test_no_file_can_make_measuring_fail(tmp_path: Path, text: str | None) -> None:
    tree = drm(kfd(driver_files(Tree(tmp_path).machine(numa=2, threads=2))), "0000:18:00.0", tiles=2)
    tree.cgroup1("memory", "/a", {"a/memory.limit_in_bytes": str(GIB)})
    tree.cgroup1("cpu,cpuacct", "/a", {"a/cpu.cfs_quota_us": "100", "a/cpu.cfs_period_us": "100"})
    tree.cgroup2("/a/b", {"a/b/cpu.max": "1 1", "a/memory.max": "1", "cpuset.cpus.effective": "0-3"}, "/sys/fs/unified")
    environ = {**JOB, "SLURM_JOB_CPUS_PER_NODE": "2,4", "CUDA_VISIBLE_DEVICES": "0", "SLURM_MEM_PER_CPU": "100"}
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()):
        kept = path.read_bytes()
        path.unlink()
        if text is None:
            path.mkdir()  # it is there and cannot be read, not even by root
        else:
            path.write_text(text)
        assert tree.measure(environ).cores
        assert tree.measure({}).cores
        if text is None:
            path.rmdir()
        path.write_bytes(kept)


@pytest.mark.parametrize("text", ["", "-1", "\x00", "9" * 30, "999999999", "(x2),", "[", ",,,", "ünï"])
def test_no_variable_can_make_measuring_fail(tmp_path: Path, text: str) -> None:
    tree = kfd(driver_files(Tree(tmp_path).machine()))
    for name in (
        *("SLURM_JOB_ID", "SLURM_JOB_NODELIST", "SLURM_JOB_CPUS_PER_NODE", "SLURM_CPUS_ON_NODE", "SLURM_NODEID"),
        *("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_JOB_END_TIME", "SLURM_GPUS_ON_NODE"),
        *("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
        *("ZE_AFFINITY_MASK", "ZE_FLAT_DEVICE_HIERARCHY", "GPU_DEVICE_ORDINAL", "SLURMD_NODENAME", "OMP_NUM_THREADS"),
    ):
        assert tree.measure({**JOB, name: text}).cores
        assert Tree(tmp_path / "bare").measure({**JOB, name: text}).cores
        assert tree.measure({name: text}).cores


# ---- the log --------------------------------------------------------------------------------


def test_a_node_is_one_line_in_the_log(tmp_path: Path) -> None:
    tree = Tree(tmp_path).machine(physical=4, numa=2)
    report = tree.measure(overrides=Overrides(num_gpus=2))
    assert report.summary() == "4 cores, pinned, 2 NUMA domains; 16 GiB; 2 GPUs (0, 1)"
    assert Tree(tmp_path / "bare").measure(affinity={0}).summary() == "1 core, pinned; unknown memory; no GPU"


def test_numbers_of_threads_that_are_exported_for_all_tasks_are_said(tmp_path: Path) -> None:
    report = Tree(tmp_path).machine().measure({"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"})
    assert report.notes == ("OMP_NUM_THREADS=2, MKL_NUM_THREADS=1 of the environment hold for all tasks.",)
