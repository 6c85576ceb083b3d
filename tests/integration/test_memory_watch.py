"""Memory and CPU time of real process trees, kills by the real kernel, and what watching 64 tasks costs."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow.ids import WORKER_VARIABLE
from pilotflow.node.oom import OomKills
from pilotflow.node.processes import ProcFiles
from pilotflow.runtime.memory_watch import SHARE_OF_CORE, MemoryWatch, TreeUse, Watched
from tests.integration.memory_groups import memory_group
from tests.waiting import until

MB = 1 << 20
PATIENCE = float(os.environ.get("PILOTFLOW_PATIENCE", "10"))
LIMIT_S = 30.0
PRELUDE = f"""
import array, mmap, os, pathlib, subprocess, sys, time
MB = {MB}
def say(text):
    print(text, flush=True)
def stay():
    while True:
        time.sleep(600)
"""


class Workers:
    """Real processes that stand in for workers, each the leader of its process group."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, code: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def ready(self, code: str, **environ: str) -> int:
        """The pid of a worker that has said that it is ready."""
        process = self.start(code, **environ)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid

    def end(self) -> None:
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def workers() -> Iterator[Workers]:
    found = Workers()
    yield found
    found.end()


def use(watch: MemoryWatch, pid: int, limit_mb: int | None = None, now: float = 0.0) -> TreeUse:
    return watch.sample({1: Watched(pid, None if limit_mb is None else limit_mb * MB)}, now)[1]


def test_what_a_worker_and_its_children_allocate_counts(workers: Workers) -> None:
    code = """
mine = bytearray(40 * MB)
child = "x = bytearray(60 * 1024 * 1024); print('ready', flush=True); import time; time.sleep(600)"
subprocess.Popen(["bash", "-c", f'{sys.executable} -c "{child}"; true'])
stay()
"""
    pid = workers.ready(code)
    found = use(MemoryWatch(), pid)
    assert 100 * MB <= found.memory_bytes < 160 * MB
    assert found.processes == 3


def test_a_map_of_a_file_does_not_count(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(80 * MB))
    code = f"""
file = open({str(tmp_path / "data")!r}, "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(mapped[::4096])
say("ready")
stay()
"""
    assert use(MemoryWatch(), workers.ready(code), limit_mb=60).memory_bytes < 60 * MB  # wherever the file is


SHARING = """
shared = mmap.mmap(-1, 80 * MB)
shared[:] = bytes(80 * MB)
for _ in range(4):
    if os.fork() == 0:
        sum(shared[::4096])
        say("ready")
        stay()
stay()
"""


def test_memory_that_processes_of_a_tree_share_counts_once(workers: Workers) -> None:
    process = workers.start(SHARING)
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    watch = MemoryWatch()
    assert 80 * MB <= use(watch, process.pid).memory_bytes < 180 * MB
    assert 80 * MB <= use(watch, process.pid, limit_mb=200).memory_bytes < 180 * MB


def test_pages_that_forked_processes_still_share_are_not_above_the_limit(workers: Workers) -> None:
    code = """
mine = bytearray(b"x") * (100 * MB)
for _ in range(3):
    if os.fork() == 0:
        stay()
say("ready")
stay()
"""
    pid = workers.ready(code)
    watch = MemoryWatch()
    assert use(watch, pid).memory_bytes > 400 * MB
    found = use(watch, pid, limit_mb=200)
    assert 100 * MB <= found.memory_bytes <= 200 * MB


MIXED = """
mine = bytearray(b"x") * (40 * MB)
shared = mmap.mmap(-1, 20 * MB)
shared[:] = bytes(20 * MB)
memory = os.memfd_create("x")
os.write(memory, bytes(10 * MB))
file = mmap.mmap(memory, 10 * MB)
sum(file[::4096])
if os.fork() == 0:
    mine[: 10 * MB] = bytes(10 * MB)
    say("ready")
    stay()
stay()
"""


def test_kernels_that_do_not_add_up_the_share_list_what_comes_to_the_same(workers: Workers, tmp_path: Path) -> None:
    """As before Linux 5.4, on RHEL 8: smaps_rollup adds up the maps of files as well."""
    pid = workers.ready(MIXED)
    folder = tmp_path / str(pid)
    folder.mkdir()
    (folder / "smaps_rollup").write_text("Rss: 1 kB\nPss: 1 kB\n")
    (folder / "smaps").write_bytes(Path(f"/proc/{pid}/smaps").read_bytes())
    exact = ProcFiles().share(pid)
    listed = ProcFiles(str(tmp_path)).share(pid)
    assert exact is not None
    assert listed is not None
    assert exact >= 40 * MB
    assert abs(listed - exact) < MB


def test_a_child_between_vfork_and_exec_has_no_memory_of_its_own(workers: Workers, tmp_path: Path) -> None:
    # The child opens its input before it executes its program: a pipe that nobody writes to.
    os.mkfifo(tmp_path / "pipe")
    code = f"""
mine = bytearray(b"x") * (100 * MB)
say("ready")
opening = (os.POSIX_SPAWN_OPEN, 0, {str(tmp_path / "pipe")!r}, os.O_RDONLY, 0)
os.posix_spawn("/bin/true", ["true"], {{}}, file_actions=[opening])
"""
    pid = workers.ready(code)
    watch = MemoryWatch()
    until(lambda: use(watch, pid).processes == 2)
    assert use(watch, pid).memory_bytes < 160 * MB
    assert use(watch, pid, limit_mb=50).memory_bytes < 160 * MB


def test_a_process_that_detaches_itself_is_still_counted_if_it_was_seen_before(workers: Workers) -> None:
    code = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        mine = bytearray(b"x") * (50 * MB)
        say("ready")
    stay()
stay()
"""
    pid = workers.ready(code)
    watch = MemoryWatch()
    assert use(watch, pid).processes == 3
    (middle,) = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    (last,) = [int(text) for text in Path(f"/proc/{middle}/task/{middle}/children").read_text().split()]
    try:
        os.kill(middle, signal.SIGKILL)
        until(lambda: Path(f"/proc/{last}/stat").read_text().rpartition(")")[2].split()[1] != str(middle))
        found = use(watch, pid)
        assert found.memory_bytes > 50 * MB
    finally:
        os.kill(last, signal.SIGKILL)


def test_a_program_that_detached_itself_unseen_is_known_by_its_environment(workers: Workers, tmp_path: Path) -> None:
    orphan = f"import os, pathlib, time; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(600)"
    code = f"""
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # a reaper of orphans, as a manager's zygote is
worker = os.fork()
if worker == 0:
    os.setpgid(0, 0)
    os.environ["{WORKER_VARIABLE}"] = "1"
    subprocess.run(["setsid", "--fork", sys.executable, "-c", {orphan!r}])
    stay()
while not pathlib.Path({str(tmp_path / "pid")!r}).exists():
    time.sleep(0.01)
print(worker, flush=True)
stay()
"""
    process = workers.start(code)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    until(lambda: (tmp_path / "pid").read_text().isdecimal())
    try:
        assert use(MemoryWatch(reaper=process.pid), worker).processes == 2
        assert use(MemoryWatch(), worker).processes == 1
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)


def test_a_worker_that_ended_is_missing(workers: Workers) -> None:
    pid = workers.ready("say('ready'); stay()")
    watch = MemoryWatch()
    assert use(watch, pid).processes == 1
    workers.end()
    assert watch.sample({1: Watched(pid)}, 0.0) == {}


@pytest.fixture
def small_group() -> Iterator[Path]:
    with memory_group(64 * MB) as group:
        yield group


def test_a_kill_by_the_kernel_is_counted_before_its_victim_is_seen_dead(small_group: Path) -> None:
    code = f"""
import pathlib, subprocess, sys
from pilotflow.node.oom import OomKills
from pilotflow.node.processes import ProcFiles
pathlib.Path({str(small_group / "cgroup.procs")!r}).write_text("0")
kills = OomKills()
victim = subprocess.run([sys.executable, "-c", "x = bytearray(b'x') * (200 * 1024 * 1024)"])
print(victim.returncode, kills.new(), kills.new())
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["-9", "1", "0"]


def test_this_machines_kills_can_be_counted() -> None:
    assert OomKills().total() >= 0


def test_watching_64_tasks_takes_at_most_one_percent_of_a_core(workers: Workers) -> None:
    pids = [workers.start("say('ready'); stay()") for _ in range(64)]
    for process in pids:
        assert process.stdout is not None
        process.stdout.readline()
    watch = MemoryWatch()
    watched = {number: Watched(process.pid) for number, process in enumerate(pids)}
    costs: list[float] = []
    for _ in range(20):
        start = time.thread_time()
        assert len(watch.sample(watched, 0.0)) == 64
        costs.append(time.thread_time() - start)
    share = statistics.median(costs[1:]) / watch.interval_s
    print(f"64 tasks: {costs[0] * 1e3:.1f} ms at first, then {statistics.median(costs[1:]) * 1e3:.1f} ms a sample")
    assert share < SHARE_OF_CORE * PATIENCE
