"""Small trees of /proc and /sys files, as nodes of all kinds have them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pilotflow.node import Answer, NodeReport, Overrides, measure_node

GIB = 1 << 30


def no_tools(_: Sequence[str]) -> Answer:
    return Answer(None, None)


def tool(**outputs: str) -> Callable[[Sequence[str]], Answer]:
    """nvidia-smi, by what it answers to `-L` and to `--query-gpu`."""

    def run(argv: Sequence[str]) -> Answer:
        assert argv[0] == "nvidia-smi"
        return Answer(outputs.get("L" if argv[1] == "-L" else "query", ""), None)

    return run


def ranges(cpus: Collection[int]) -> str:
    return ",".join(map(str, sorted(cpus)))


class Tree:
    """The files of one node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts: list[str] = []
        self._groups: list[str] = []

    def write(self, name: str, text: str) -> Tree:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return self

    def link(self, name: str, target: str) -> Tree:
        path, end = self.root / name.lstrip("/"), self.root / target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        end.mkdir(parents=True, exist_ok=True)
        path.symlink_to(end)
        return self

    def machine(self, physical: int = 4, numa: int = 1, threads: int = 1, memory_gib: int = 16) -> Tree:
        """CPUs numbered as Linux does: one thread of each physical core first, domains in blocks."""
        self.write("/proc/meminfo", f"MemTotal:       {memory_gib * GIB // 1024} kB\nMemFree:  1 kB\n")
        for core in range(physical):
            siblings = [core + physical * thread for thread in range(threads)]
            for cpu in siblings:
                self.write(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", ranges(siblings) + "\n")
        for node in range(numa):
            mine = range(node * physical // numa, (node + 1) * physical // numa)
            cpus = [core + physical * thread for core in mine for thread in range(threads)]
            self.write(f"/sys/devices/system/node/node{node}/cpulist", ranges(cpus) + "\n")
        self.write("/sys/devices/system/node/online", "0\n")
        return self

    def cgroup2(self, path: str, files: Mapping[str, str], point: str = "/sys/fs/cgroup", root: str = "/") -> Tree:
        """A version 2 hierarchy with this process's group; files are named from the mount point on."""
        self._mounts.append(f"30 23 0:27 {root} {point} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n")
        return self._cgroup(f"0::{path}\n", point, files)

    def cgroup1(self, controllers: str, path: str, files: Mapping[str, str], root: str = "/") -> Tree:
        point = f"/sys/fs/cgroup/{controllers}"
        number = 40 + len(self._mounts)
        self._mounts.append(f"{number} 31 0:{number} {root} {point} rw,relatime - cgroup cgroup rw,{controllers}\n")
        return self._cgroup(f"{number}:{controllers}:{path}\n", point, files)

    def _cgroup(self, line: str, point: str, files: Mapping[str, str]) -> Tree:
        self._groups.append(line)
        self.write("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(self._mounts))
        self.write("/proc/self/cgroup", "".join(self._groups))
        for name, text in files.items():
            self.write(f"{point}/{name}", text + "\n")
        return self

    def numa_of(self, pci: str, numa: int) -> Tree:
        return self.write(f"/sys/bus/pci/devices/{pci}/numa_node", f"{numa}\n")

    def measure(
        self,
        environ: Mapping[str, str] | None = None,
        affinity: Collection[int] | None = None,
        run: Callable[[Sequence[str]], Answer] = no_tools,
        overrides: Overrides | None = None,
        now_unix_s: float = 0.0,
    ) -> NodeReport:
        cpus = range(4) if affinity is None else affinity
        return measure_node(self.root, environ or {}, cpus, run, overrides, now_unix_s)
