"""Which process is whose, how much memory counts, and when it is measured exactly: on trees of made-up files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pilotflow.node.oom import OomKills
from pilotflow.runtime.memory_watch import INTERVAL_S, MemoryWatch, Watched
from tests.core.node_trees import Tree

MB = 1 << 20
BASE = 5_000_000
"""Pids that no real process has: Linux ends at 4,194,304."""
WORKER, OTHER_WORKER, REAPER, INIT = BASE + 10, BASE + 20, BASE + 5, 1


class Node:
    """A made-up /proc with a reaper, and a watch over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.process(REAPER, INIT)
        self.watch = MemoryWatch(REAPER, root)

    def process(
        self,
        pid: int,
        parent: int,
        *,
        group: int | None = None,
        session: int = 1,
        mb: int = 0,
        shared_mb: int = 0,
        swap_mb: int = 0,
        share_mb: int | None = None,
        start: int = 7,
        flags: int = 0x400000,
        environ: str = "",
        size_mb: int | None = None,
    ) -> None:
        directory = f"proc/{pid}"
        tail = f"20 0 1 0 {start} 3133440 394 18446744073709551615\n"
        self.write(
            f"{directory}/stat",
            f"{pid} (a (b) c) S {parent} {group or pid} {session} 0 -1 {flags} 100 0 0 0 1 2 3 4 {tail}",
        )
        size = pid if size_mb is None else 1024 * size_mb
        self.write(
            f"{directory}/status",
            f"Name:\tx\nVmSize:\t{size} kB\nVmRSS:\t999999 kB\nRssAnon:\t{1024 * mb} kB\nRssFile:\t    999999 kB\n"
            f"RssShmem:\t{1024 * shared_mb} kB\nVmSwap:\t{1024 * swap_mb} kB\n",
        )
        if share_mb is not None:
            text = f"Rss: 1 kB\nPss: 1 kB\nPss_Anon: {1024 * share_mb} kB\nPss_File: 5 kB\nPss_Shmem: 0 kB\nSwapPss: 0 kB\n"
            self.write(f"{directory}/smaps_rollup", text)
        if environ:
            self.write(f"{directory}/environ", environ)

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def end(self, *pids: int) -> None:
        for pid in pids:
            shutil.rmtree(self.root / f"proc/{pid}")

    def megabytes(self, now: float = 0.0, limit_mb: int | None = None, **workers: int) -> dict[int, float]:
        pids = {int(name[1:]): pid for name, pid in workers.items()} or {1: WORKER}
        watched = {worker: Watched(pid, None if limit_mb is None else limit_mb * MB) for worker, pid in pids.items()}
        return {worker: use.memory_bytes / MB for worker, use in self.watch.sample(watched, now).items()}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


# ---- which process is whose -----------------------------------------------------------------


def test_a_tree_is_the_worker_and_all_its_descendants(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, WORKER, mb=2)
    node.process(BASE + 12, BASE + 11, mb=4)
    node.process(OTHER_WORKER, REAPER, mb=8)
    node.process(BASE + 21, OTHER_WORKER, mb=16)
    node.process(BASE + 30, INIT, mb=32)
    assert node.megabytes(_1=WORKER, _2=OTHER_WORKER) == {1: 7, 2: 24}


def test_a_worker_that_has_ended_is_missing(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(OTHER_WORKER, REAPER, mb=8)
    assert node.megabytes(_1=WORKER, _2=OTHER_WORKER) == {1: 1, 2: 8}
    node.end(WORKER)
    assert node.megabytes(_1=WORKER, _2=OTHER_WORKER) == {2: 8}
    assert node.megabytes(_2=OTHER_WORKER) == {2: 8}


def test_a_process_whose_parent_has_ended_is_still_counted(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, WORKER)
    node.process(BASE + 12, BASE + 11, mb=4)
    assert node.megabytes() == {1: 5}
    node.end(BASE + 11)
    node.process(BASE + 12, REAPER, mb=4, session=BASE + 12)
    assert node.megabytes() == {1: 5}


def test_an_orphan_in_the_workers_process_group_is_counted_though_never_seen_before(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 12, REAPER, group=WORKER, mb=4)
    assert node.megabytes() == {1: 5}
    node.process(BASE + 13, REAPER, group=WORKER, mb=8)
    assert node.megabytes() == {1: 13}


def test_an_orphan_in_a_session_that_one_of_the_tree_led_is_counted(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, WORKER, session=BASE + 11)
    node.process(BASE + 12, BASE + 11, session=BASE + 11, mb=2)
    assert node.megabytes() == {1: 3}
    node.end(BASE + 11)
    node.process(BASE + 12, REAPER, session=BASE + 11, mb=2)
    node.process(BASE + 13, REAPER, session=BASE + 11, mb=4)
    assert node.megabytes() == {1: 7}


def test_an_orphan_that_has_left_everything_is_known_by_its_environment(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 12, REAPER, mb=4, environ="A=b\0PILOTFLOW_WORKER=1\0C=d")
    node.process(BASE + 13, BASE + 12, mb=8)
    assert node.megabytes() == {1: 13}


def test_an_orphan_of_another_manager_is_not_taken_for_ours(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 12, INIT, mb=4, environ="PILOTFLOW_WORKER=1")
    node.process(BASE + 13, REAPER, mb=8, environ="PILOTFLOW_WORKER=99")
    node.process(BASE + 14, REAPER, mb=16, environ="PILOTFLOW_WORKER=x")
    node.process(BASE + 15, REAPER, mb=32)
    assert node.megabytes() == {1: 1}


def test_kernel_threads_are_nobodys(node: Node) -> None:
    node.process(2, 0, flags=0x208040)
    node.process(WORKER, REAPER, mb=1)
    assert node.megabytes() == {1: 1}


def test_a_pid_that_is_used_again_is_another_process(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, WORKER, mb=2)
    assert node.megabytes() == {1: 3}
    node.process(BASE + 11, INIT, mb=2, start=99)
    assert node.megabytes() == {1: 1}


def test_a_workers_pid_that_is_used_again_is_not_the_worker(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    assert node.megabytes() == {1: 1}
    node.process(WORKER, INIT, mb=2, start=99)
    assert node.megabytes() == {}


def test_a_strangers_pid_that_is_used_again_is_noticed_after_a_while(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, INIT, mb=2)
    assert node.megabytes() == {1: 1}
    node.process(BASE + 11, WORKER, mb=2, start=99)
    samples = [node.megabytes() for _ in range(100)]
    assert samples[0] == {1: 1}
    assert samples[-1] == {1: 3}


def test_children_of_a_worker_that_is_told_of_late_are_found(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(OTHER_WORKER, REAPER, mb=2)
    node.process(BASE + 21, OTHER_WORKER, mb=4)
    assert node.megabytes(_1=WORKER) == {1: 1}
    assert node.megabytes(_1=WORKER, _2=OTHER_WORKER) == {1: 1, 2: 6}


def test_a_worker_with_the_number_of_an_earlier_one_begins_anew(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, WORKER, mb=2, session=BASE + 11)
    assert node.megabytes(_1=WORKER) == {1: 3}
    node.end(WORKER)
    node.process(BASE + 11, REAPER, mb=2, session=BASE + 11)
    node.process(OTHER_WORKER, REAPER, mb=8)
    assert node.megabytes(_1=OTHER_WORKER) == {1: 8}


def test_without_a_reaper_trees_are_found_by_parents_and_groups(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, REAPER, mb=2, environ="PILOTFLOW_WORKER=1")
    assert MemoryWatch(None, tmp_path).sample({1: Watched(WORKER)}, 0.0)[1].memory_bytes == MB


def test_parents_in_a_circle_end_the_search(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1)
    node.process(BASE + 11, BASE + 12)
    node.process(BASE + 12, BASE + 11)
    assert node.megabytes() == {1: 1}


# ---- how much counts ------------------------------------------------------------------------


def test_anonymous_swapped_and_shared_memory_counts_and_file_maps_do_not(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1, swap_mb=2, shared_mb=4)
    assert node.megabytes() == {1: 7}
    assert node.watch.level(WORKER) == 7 * MB


def test_shared_memory_counts_once_for_the_tree(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1, shared_mb=100)
    for child in range(4):
        node.process(BASE + 11 + child, WORKER, mb=1, shared_mb=100)
    assert node.megabytes() == {1: 105}


def test_a_child_that_seems_to_have_all_its_parents_memory_waits_for_its_second_sample(node: Node) -> None:
    node.process(WORKER, REAPER, mb=100, size_mb=500)
    node.process(BASE + 11, WORKER, mb=100, size_mb=500)
    assert node.megabytes() == {1: 100}
    assert node.megabytes() == {1: 200}


def test_a_sample_is_due_every_second_while_it_is_cheap(node: Node) -> None:
    node.process(WORKER, REAPER)
    node.megabytes()
    assert node.watch.interval_s == INTERVAL_S


# ---- above the limit ------------------------------------------------------------------------


def test_above_its_limit_a_tree_is_measured_exactly(node: Node) -> None:
    node.process(WORKER, REAPER, mb=60, share_mb=40)
    node.process(BASE + 11, WORKER, mb=60, share_mb=30)
    assert node.megabytes(limit_mb=200) == {1: 120}
    assert node.megabytes(limit_mb=100) == {1: 70}
    assert node.megabytes(limit_mb=50, now=1e6) == {1: 70}


def test_maps_of_files_in_a_tmpfs_do_not_count_where_it_matters(node: Node) -> None:
    def a_map(path: str, mb: int) -> str:
        return f"7f0000000000-7f0001000000 r--s 00000000 00:1b 77{'  ' + path if path else ''}\nRss: {1024 * mb} kB\nPss: {1024 * mb} kB\n"

    node.process(WORKER, REAPER, mb=10, shared_mb=130)
    node.write(f"proc/{WORKER}/smaps_rollup", f"Pss_Anon: {1024 * 10} kB\nPss_Shmem: {1024 * 130} kB\nSwapPss: 0 kB\n")
    maps = [("", 10), ("/tmp/runs/0001/shared/8d9f", 100), ("/dev/shm/psm_1", 20), ("/memfd:pilotflow (deleted)", 10)]
    node.write(f"proc/{WORKER}/smaps", "".join(a_map(path, mb) for path, mb in maps))
    assert node.megabytes(limit_mb=60) == {1: 40}


def test_shared_memory_of_several_processes_is_a_reason_to_measure(node: Node) -> None:
    node.process(WORKER, REAPER, mb=1, shared_mb=60, share_mb=80)
    node.process(BASE + 11, WORKER, mb=1, shared_mb=60, share_mb=80)
    assert node.megabytes(limit_mb=100) == {1: 160}


def test_after_an_exact_measurement_growth_is_added_until_it_may_pass_the_limit(node: Node) -> None:
    node.process(WORKER, REAPER, mb=60, share_mb=30)
    node.process(BASE + 11, WORKER, mb=60, share_mb=30)
    assert node.megabytes(limit_mb=100) == {1: 60}
    node.process(WORKER, REAPER, mb=80, share_mb=99)
    assert node.megabytes(limit_mb=100) == {1: 80}, "60 measured and 20 grown"
    node.process(WORKER, REAPER, mb=110, share_mb=90)
    assert node.megabytes(limit_mb=100, now=10.0) == {1: 120}, "measured, for it may be 110"


def test_growth_above_the_limit_is_not_reported_before_it_may_be_measured_again(node: Node) -> None:
    node.process(WORKER, REAPER, mb=60, share_mb=30)
    node.process(BASE + 11, WORKER, mb=60, share_mb=30)
    assert node.megabytes(limit_mb=100) == {1: 60}
    node.process(WORKER, REAPER, mb=160, share_mb=160)
    assert node.megabytes(limit_mb=100) == {1: 100}
    assert node.megabytes(limit_mb=100, now=10.0) == {1: 190}


def test_pages_that_stop_being_shared_are_found_after_a_while(node: Node) -> None:
    node.process(WORKER, REAPER, mb=60, share_mb=30)
    node.process(BASE + 11, WORKER, mb=60, share_mb=30)
    assert node.megabytes(limit_mb=100) == {1: 60}
    for pid, parent in ((WORKER, REAPER), (BASE + 11, WORKER)):
        node.process(pid, parent, mb=60, share_mb=60)
    assert node.megabytes(limit_mb=100) == {1: 60}
    assert node.megabytes(limit_mb=100, now=100.0) == {1: 120}


def test_where_the_kernel_does_not_tell_exactly_the_cheap_figure_stands(node: Node) -> None:
    node.process(WORKER, REAPER, mb=60)
    node.process(BASE + 11, WORKER, mb=60)
    assert node.megabytes(limit_mb=100) == {1: 120}


# ---- rubbish --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "\x00", "1 (x) S", "x" * 5000, "RssAnon:", "RssAnon: x kB", "Pss_Anon: x kB", ")"]
)
@pytest.mark.parametrize("name", ["stat", "status", "smaps_rollup", "environ"])
def test_rubbish_in_a_processs_files_is_never_an_error(node: Node, name: str, text: str) -> None:
    node.process(WORKER, REAPER, mb=1, share_mb=1)
    node.process(BASE + 11, WORKER, mb=2, share_mb=2)
    node.process(BASE + 12, REAPER, mb=4, environ="PILOTFLOW_WORKER=1")
    for pid in (BASE + 11, BASE + 12):
        node.write(f"proc/{pid}/{name}", text)
    node.write("proc/not-a-process", "")
    assert node.megabytes(limit_mb=1)[1] >= 1


def test_a_machine_without_proc_has_no_trees(tmp_path: Path) -> None:
    assert MemoryWatch(None, tmp_path / "nothing").sample({1: Watched(WORKER)}, 0.0) == {}


# ---- kills by the kernel --------------------------------------------------------------------


def test_kills_are_counted_in_a_group_of_version_2(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cgroup2("/a", {"a/memory.events": "low 0\noom 4\noom_kill 3\noom_group_kill 1"})
    kills = OomKills(tmp_path)
    assert (kills.total(), kills.new()) == (3, 0)
    tree.write("/sys/fs/cgroup/a/memory.events", "oom 9\noom_kill 5\n")
    assert (kills.new(), kills.new()) == (2, 0)


def test_a_group_without_the_memory_controller_is_counted_above(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup2("/a/b", {"a/memory.events": "oom_kill 3"})
    assert OomKills(tmp_path).total() == 3


def test_kills_are_counted_in_a_group_of_version_1(tmp_path: Path) -> None:
    text = "oom_kill_disable 0\nunder_oom 0\noom_kill 2"
    Tree(tmp_path).cgroup1("memory", "/a", {"a/memory.oom_control": text})
    assert OomKills(tmp_path).total() == 2


def test_kills_of_the_whole_machine_are_counted_where_groups_say_nothing(tmp_path: Path) -> None:
    Tree(tmp_path).cgroup1("memory", "/a", {"a/memory.oom_control": "under_oom 0"}).write(
        "/proc/vmstat", "nr_free_pages 5\noom_kill 4\n"
    )
    assert OomKills(tmp_path).total() == 4


@pytest.mark.parametrize("text", ["", "oom_kill x", "oom_kill", "\x00"])
def test_rubbish_counts_nothing(tmp_path: Path, text: str) -> None:
    Tree(tmp_path).cgroup2("/a", {"a/memory.events": text}).write("/proc/vmstat", text)
    kills = OomKills(tmp_path)
    assert (kills.total(), kills.new()) == (0, 0)


def test_a_watch_tells_new_kills_once(tmp_path: Path) -> None:
    tree = Tree(tmp_path).cgroup2("/a", {"a/memory.events": "oom_kill 3"})
    watch = MemoryWatch(None, tmp_path)
    tree.write("/sys/fs/cgroup/a/memory.events", "oom_kill 4\n")
    assert (watch.oom_kills(), watch.oom_kills()) == (1, 0)
