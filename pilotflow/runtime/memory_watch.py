"""Memory of each worker with everything it has started, in one pass over /proc.

`MemoryWatch.sample` costs about 40 us a process of the trees and 1.5 us any other process of the node.
Measured on a busy machine of 2 cores: 64 tasks of one process each take 3 ms, which is 0.3 % of a core
at one sample a second; of two processes each 6 ms; 2,000 other processes on the node add 4 ms. Where
it comes to more than 1 %, `interval_s` grows.

**Memory** is anonymous memory, swapped or not, and shared memory (/dev/shm, memory files, shared anonymous
maps); maps of files are not in it, since the kernel can drop their pages, or they are in a tmpfs and there
anyway. The cheap figure takes a tmpfs's for shared memory. It comes from
/proc/PID/status, and counts pages that forked processes still share once for each, and the largest shared
memory of one process for the tree. Before a tree with a limit is reported above it, the exact figure
is taken (each page divided by the number of its users, from /proc/PID/smaps_rollup or smaps). That is dear, 12 ms
a GB, so it is repeated only when the cheap figure has grown by what was left (at most 5 % of a core), or
after a while (1 %). A child between vfork and exec, which seems to have its parent's memory, is left out.

**A tree** is the worker, its descendants, and what was once seen to be one of them or is in a process
group or session that one of them leads: so a process is still counted when its parent has ended. What
leaves its group and is orphaned within one interval is recognised by the environment variable that
workers hand on (`ids.WORKER_VARIABLE`), if it has executed a program since. Not covered: what does so
without executing anything; a process that another user owns and hides (hidepid); and memory that no
process maps: files in tmpfs, the page cache, GPU memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pilotflow.ids import WORKER_VARIABLE
from pilotflow.node.oom import OomKills
from pilotflow.node.processes import Memory, Process, ProcFiles

INTERVAL_S: Final = 1.0
"""Between two samples, unless they cost too much."""
INTERVAL_MAX_S: Final = 10.0
"""Between two samples however dear they are."""
SHARE_OF_CORE: Final = 0.01
"""As much CPU time as samples may take together, and exact measurements of a tree that does not grow."""
EXACT_SHARE_OF_CORE: Final = 0.05
"""As much CPU time as exact measurements of one tree may take while it grows."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A worker to watch.

    Attributes:
        pid: its process.
        limit_bytes: what its tree may use, if there is a limit; the worker's own level included.
    """

    pid: int
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TreeUse:
    """What a worker and all that it has started use.

    Attributes:
        memory_bytes: memory without file maps; above the tree's limit only if measured exactly,
            unless the kernel cannot do that.
        processes: how many there are.
    """

    memory_bytes: int
    processes: int


@dataclass(slots=True)
class _Tree:
    """What is remembered of a tree between samples."""

    pid: int
    start: int | None = None  # when the worker started; its pid may be another process's one day
    exact_bytes: int = 0  # as measured last...
    cheap_bytes: int = 0  # ...when the cheap figure was this
    exact_if_grown_at: float = 0.0  # when it may be measured again
    exact_anyway_at: float = 0.0


class MemoryWatch:
    """Watches the workers of one manager.

    Args:
        reaper: the process to which orphans of workers are handed, a child subreaper, if there is one.
        root: where /proc and /sys are; another one than "/" in tests.
    """

    def __init__(self, reaper: int | None = None, root: Path = Path("/")) -> None:
        self._proc = ProcFiles(str(root / "proc"))
        self._oom = OomKills(root)
        self._reaper = reaper
        self._trees: dict[int, _Tree] = {}
        self._members: dict[int, tuple[int, int]] = {}  # pid -> worker, start; as of the last sample
        self._groups: dict[int, int] = {}  # process group or session that one of a tree leads -> worker
        self._strangers: set[str] = set()  # names in /proc of processes that are in no tree, as far as is known...
        self._others: set[str] = set()  # ...and of what never will be: kernel threads, and files
        self._samples = 0
        self._cost_s = 0.0

    @property
    def interval_s(self) -> float:
        """How long to wait before the next sample, so that all of them take at most 1 % of a core."""
        return min(INTERVAL_MAX_S, max(INTERVAL_S, self._cost_s / SHARE_OF_CORE))

    def oom_kills(self) -> int:
        """Processes that the kernel has killed for lack of memory since the last call."""
        return self._oom.new()

    def level(self, pid: int) -> int:
        """Memory of one process now, by the cheap figure: a worker's level as its task starts."""
        memory = self._proc.memory(pid)
        return memory.private + memory.shared

    def sample(self, workers: Mapping[int, Watched], now: float) -> dict[int, TreeUse]:
        """What each worker's tree uses now, by the workers' keys; workers that have ended are missing.

        Args:
            workers: by the number that each has in its environment as `ids.WORKER_VARIABLE`.
            now: monotonic time in seconds.
        """
        started = time.thread_time()
        self._follow(workers)
        trees = self._assign(self._read())
        memories = {worker: self._memories(members) for worker, members in trees.items()}
        self._samples += 1
        self._cost_s = time.thread_time() - started
        self._members = {process.pid: (worker, process.start) for worker in trees for process in trees[worker]}
        return {
            worker: self._use(self._trees[worker], workers[worker].limit_bytes, trees[worker], memories[worker], now)
            for worker in trees
        }

    def _follow(self, workers: Mapping[int, Watched]) -> None:
        """Take note of workers that have come or gone."""
        gone = {
            worker for worker, tree in self._trees.items() if worker not in workers or workers[worker].pid != tree.pid
        }
        if gone:
            self._trees = {worker: tree for worker, tree in self._trees.items() if worker not in gone}
            self._members = {pid: member for pid, member in self._members.items() if member[0] not in gone}
            self._groups = {group: worker for group, worker in self._groups.items() if worker not in gone}
        for worker, watched in workers.items():
            if worker not in self._trees:
                self._trees[worker] = _Tree(watched.pid)
                self._strangers.clear()  # its children may be among them, if it is not so new

    def _read(self) -> dict[int, Process]:
        """Every process that is, or may be, in one of the trees."""
        names = self._proc.names()
        # Each of the ignored is looked at again every 100th time: its pid may be another process's by now.
        turn = f"{self._samples % 100:02}"
        for ignored in (self._strangers, self._others):
            ignored &= names
            ignored.difference_update([name for name in ignored if name[-2:] == turn], [turn[1:]])
        found: dict[int, Process] = {}
        for name in names - self._strangers - self._others:
            process = self._proc.process(int(name)) if name.isdecimal() else None
            if not name.isdecimal() or (process is not None and process.is_kernel_thread):
                self._others.add(name)
            elif process is not None:
                found[process.pid] = process
        return found

    def _assign(self, processes: dict[int, Process]) -> dict[int, list[Process]]:
        """The processes of each tree that lives; all others are remembered as strangers."""
        roots: dict[int, int] = {}
        for worker, tree in self._trees.items():
            root = processes.get(tree.pid)
            if root is not None and tree.start in {None, root.start}:
                tree.start = root.start
                roots[root.pid] = worker
                if root.group == root.pid:
                    self._groups[root.pid] = worker
        owners: dict[int, int | None] = {}
        for process in processes.values():
            self._find_owner(process, processes, roots, owners)
        trees: dict[int, list[Process]] = {worker: [] for worker in roots.values()}
        groups: dict[int, int] = {}
        for pid, owner in owners.items():
            process = processes[pid]
            if owner is None or owner not in trees:
                self._strangers.add(str(pid))
                continue
            trees[owner].append(process)
            for led in (process.group, process.session):
                if led == pid or led in self._groups:  # by this one, or by another of the tree that may be gone
                    groups[led] = owner
        self._groups = groups
        return trees

    def _find_owner(
        self, process: Process, processes: dict[int, Process], roots: dict[int, int], owners: dict[int, int | None]
    ) -> None:
        """Note whose a process is, and whose those above it are."""
        path: list[Process] = []
        above: Process | None = process
        owner: int | None = None
        while above is not None and owner is None:
            if above.pid in owners:
                owner = owners[above.pid]
                break
            path.append(above)
            owners[above.pid] = None  # which also ends a loop, such as reused pids can make
            owner = self._known_owner(above, roots)
            above = processes.get(above.parent)
        for passed in reversed(path):
            owner = self._marked_owner(passed) if owner is None else owner
            owners[passed.pid] = owner

    def _known_owner(self, process: Process, roots: dict[int, int]) -> int | None:
        if process.pid in roots:
            return roots[process.pid]
        member = self._members.get(process.pid)
        if member is not None and member[1] == process.start:
            return member[0]
        for led in (process.group, process.session):
            # A new leader's group is new: the kernel gives no pid that still names a group.
            if led != process.pid and led in self._groups:
                return self._groups[led]
        return None

    def _marked_owner(self, process: Process) -> int | None:
        """The owner of an orphan that has left its group, by its environment; orphans of others are not ours."""
        if self._reaper is None or process.parent != self._reaper:
            return None
        value = self._proc.variable(process.pid, WORKER_VARIABLE)
        worker = int(value) if value is not None and value.isdecimal() else None
        return worker if worker in self._trees else None

    def _memories(self, members: list[Process]) -> dict[int, Memory]:
        """The memory of each process; one between vfork and exec has none of its own."""
        memories = {process.pid: self._proc.memory(process.pid) for process in members}
        for process in members:
            mine, parents = memories[process.pid], memories.get(process.parent)
            if parents is not None and mine.size == parents.size and mine.size:
                one = self._proc.are_one_memory(process.pid, process.parent)
                if process.pid not in self._members if one is None else one:
                    del memories[process.pid]
        return memories

    def _use(
        self, tree: _Tree, limit: int | None, members: list[Process], memories: dict[int, Memory], now: float
    ) -> TreeUse:
        private = sum(memory.private for memory in memories.values())
        shared = [memory.shared for memory in memories.values()]
        most = private + sum(shared)
        memory_bytes = private + max(shared, default=0)
        if limit is not None and most > limit:
            memory_bytes = self._exact(tree, limit, memories, most, now)
        return TreeUse(memory_bytes, len(members))

    def _exact(self, tree: _Tree, limit: int, pids: Iterable[int], most: int, now: float) -> int:
        """A tree's memory where it may be above its limit: measured, or judged by what was measured last."""
        likely = max(0, tree.exact_bytes + most - tree.cheap_bytes)
        if now < (tree.exact_if_grown_at if likely > limit else tree.exact_anyway_at):
            return min(likely, limit)
        started = time.thread_time()
        exact = self._shares(pids)
        cost_s = time.thread_time() - started
        if exact is None:
            return most
        tree.exact_bytes, tree.cheap_bytes = exact, most
        tree.exact_if_grown_at = now + cost_s / EXACT_SHARE_OF_CORE
        tree.exact_anyway_at = now + cost_s / SHARE_OF_CORE
        return exact

    def _shares(self, pids: Iterable[int]) -> int | None:
        total = 0
        for pid in pids:
            share = self._proc.share(pid)
            if share is None and self._proc.process(pid) is not None:
                return None  # the kernel does not tell; else it has ended meanwhile
            total += share or 0
        return total
