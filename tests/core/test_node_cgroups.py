"""Limits of control groups: both versions, both at once, nested, in containers, and rubbish."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotflow.node.cgroups import read_limits
from pilotflow.node.files import Files, cpu_list, number
from tests.core.node_trees import GIB, Tree


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0", {0}),
        ("0-3\n", {0, 1, 2, 3}),
        ("1,3-4, 8", {1, 3, 4, 8}),
        ("", None),
        ("3-1", None),
        ("a", None),
        ("0-99999999", None),
        ("0,,1", None),
    ],
)
def test_a_list_of_cpus_is_read_or_refused_as_a_whole(text: str, cpus: set[int] | None) -> None:
    assert cpu_list(text) == cpus


@pytest.mark.parametrize(
    ("text", "value"),
    [("12\n", 12), ("-1", -1), ("max", None), ("", None), (None, None), ("1_0", None), ("1 2", None), ("٣", None)],
)
def test_a_number_is_plain_digits(text: str | None, value: int | None) -> None:
    assert number(text) == value


def test_without_any_control_group_nothing_is_limited(tmp_path: Path) -> None:
    limits = read_limits(Files(tmp_path))
    assert (limits.cpus, limits.quota, limits.memory) == (None, None, None)


def test_in_version_2_the_least_limit_on_the_whole_path_holds(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup2(
        "/slurm/job_7/step_0",
        {
            "slurm/job_7/step_0/cpu.max": "max 100000",
            "slurm/job_7/step_0/memory.max": str(8 * GIB),
            "slurm/job_7/cpu.max": "400000 100000",
            "slurm/job_7/memory.max": str(4 * GIB),
            "slurm/job_7/memory.high": "max",
            "slurm/cpu.max": "250000 100000",
            "slurm/memory.max": "max",
        },
    )
    limits = read_limits(Files(tmp_path))
    assert limits.quota is not None
    assert limits.memory is not None
    assert (limits.quota.amount, limits.quota.file) == (2500, "/sys/fs/cgroup/slurm/cpu.max")
    assert (limits.memory.amount, limits.memory.file) == (4 * GIB, "/sys/fs/cgroup/slurm/job_7/memory.max")


def test_what_slows_processes_down_is_a_limit_too(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup2("/a", {"a/memory.max": str(8 * GIB), "a/memory.high": str(6 * GIB)})
    limit = read_limits(Files(tmp_path)).memory
    assert limit is not None
    assert limit.amount == 6 * GIB


def test_cpus_of_the_nearest_group_that_says_any_hold(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup2(
        "/a/b/c", {"a/cpuset.cpus.effective": "0-7", "a/b/cpuset.cpus.effective": "2-3", "a/b/c/cpu.max": "max 100000"}
    )
    assert read_limits(Files(tmp_path)).cpus == frozenset({2, 3})


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.cgroup1("cpu,cpuacct", "/docker/x", {"docker/x/cpu.cfs_quota_us": "150000"})
    tree.write("/sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us", "100000\n")
    tree.cgroup1("cpuset", "/docker/x", {"docker/x/cpuset.cpus": "1-2", "cpuset.cpus": "0-7"})
    tree.cgroup1("memory", "/docker/x", {"docker/x/memory.limit_in_bytes": str(2 * GIB)})
    limits = read_limits(Files(tmp_path))
    assert limits.quota is not None
    assert limits.memory is not None
    assert (limits.cpus, limits.quota.amount, limits.memory.amount) == (frozenset({1, 2}), 1500, 2 * GIB)


def test_version_1_says_no_limit_by_minus_one_and_by_huge_numbers(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cgroup1("cpu", "/", {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000"})
    tree.cgroup1("memory", "/", {"memory.limit_in_bytes": "9223372036854771712"})
    limits = read_limits(Files(tmp_path))
    assert (limits.quota, limits.memory) == (None, None)


def test_a_memory_limit_at_a_parent_holds_in_version_1(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup1(
        "memory",
        "/slurm/uid_0/job_7/step_0",
        {
            "slurm/uid_0/job_7/step_0/memory.limit_in_bytes": "9223372036854771712",
            "slurm/uid_0/job_7/memory.limit_in_bytes": str(3 * GIB),
        },
    )
    limit = read_limits(Files(tmp_path)).memory
    assert limit is not None
    assert limit.amount == 3 * GIB


def test_both_versions_at_once_are_both_read(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cgroup1("memory", "/job", {"job/memory.limit_in_bytes": str(2 * GIB)})
    tree.cgroup2("/job", {"job/cpu.max": "50000 100000"}, point="/sys/fs/cgroup/unified")
    limits = read_limits(Files(tmp_path))
    assert limits.memory is not None
    assert limits.quota is not None
    assert (limits.memory.amount, limits.quota.amount) == (2 * GIB, 500)


def test_a_container_with_a_namespace_of_its_own_sees_its_group_as_the_root(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup2("/", {"cpu.max": "200000 100000", "memory.max": str(GIB), "cpuset.cpus.effective": "4-5"})
    limits = read_limits(Files(tmp_path))
    assert limits.memory is not None
    assert limits.quota is not None
    assert (limits.cpus, limits.quota.amount, limits.memory.amount) == (frozenset({4, 5}), 2000, GIB)


def test_a_container_without_a_namespace_sees_its_part_under_a_path_of_the_host(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup1("memory", "/docker/abc/sub", {"memory.limit_in_bytes": str(GIB)}, root="/docker/abc")
    limit = read_limits(Files(tmp_path)).memory
    assert limit is not None
    assert limit.file == "/sys/fs/cgroup/memory/memory.limit_in_bytes"


@pytest.mark.parametrize("path", ["/../../outside", "/nowhere/at/all"])
def test_a_group_that_cannot_be_seen_leaves_what_is_above_it(tmp_path: Path, path: str) -> None:
    Tree(tmp_path).cgroup2(path, {"memory.max": str(GIB)})
    limit = read_limits(Files(tmp_path)).memory
    assert limit is not None
    assert limit.amount == GIB


def test_a_mount_point_with_a_blank_in_it_is_found(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cgroup2("/a", {}, point="/sys/fs/c\\040g")
    tree.write("/sys/fs/c g/a/memory.max", str(GIB))
    limit = read_limits(Files(tmp_path)).memory
    assert limit is not None
    assert limit.amount == GIB


def test_without_a_list_of_mounts_the_usual_places_are_read(tmp_path: Path) -> None:
    tree = Tree(tmp_path).write("/proc/self/cgroup", "5:memory:/a\n0::/b\n")
    tree.write("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", str(GIB))
    tree.write("/sys/fs/cgroup/b/cpu.max", "100000 100000")
    limits = read_limits(Files(tmp_path))
    assert limits.memory is not None
    assert limits.quota is not None
    assert (limits.memory.amount, limits.quota.amount) == (GIB, 1000)


RUBBISH = ["", "\n", "x y z", "max", "-5 100000", "0 0", "100000 0", "9" * 40, "\x00\xff", ":::", "0::relative"]


@pytest.mark.parametrize("text", RUBBISH)
def test_rubbish_in_a_limit_is_no_limit(tmp_path: Path, text: str) -> None:
    names = ("cpu.max", "memory.max", "memory.high", "cpuset.cpus.effective")
    Tree(tmp_path).cgroup2("/a", {f"a/{name}": text for name in names})
    limits = read_limits(Files(tmp_path))
    assert (limits.cpus, limits.quota, limits.memory) == (None, None, None)


@pytest.mark.parametrize("text", [*RUBBISH, "30 23 0:27 / - cgroup2", "a b c d e f - cgroup2 x y\n" * 3])
def test_rubbish_in_the_lists_of_mounts_and_groups_is_skipped(tmp_path: Path, text: str) -> None:
    Tree(tmp_path).write("/proc/self/cgroup", text).write("/proc/self/mountinfo", text)
    read_limits(Files(tmp_path))


def test_directories_where_files_should_be_are_no_limit(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup2("/a", {"a/memory.max/x": "1", "a/cpu.max/x": "1"})
    limits = read_limits(Files(tmp_path))
    assert (limits.quota, limits.memory) == (None, None)
