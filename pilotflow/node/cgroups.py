"""What control groups allow a process: CPUs, CPU time and memory, in either version and in containers.

A process is in one group of each hierarchy. A limit of any group between it and the root of what
can be seen holds, so all of them are read. Where a container shows only its own part of the
hierarchy, the mount's root is that part, and paths are relative to it.

Sources: cgroups(7), cgroup_namespaces(7), proc(5) on /proc/self/mountinfo; the kernel's
Documentation/admin-guide/cgroup-v2.rst (cpu.max, memory.max, memory.high, cpuset.cpus.effective,
memory.events), cgroup-v1/memory.rst and cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst (cfs quota).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pilotflow.node.files import Files, cpu_list, number

_NO_LIMIT: Final = 1 << 60
"""Version 1 says "no limit" with the largest number of whole pages, 2^63 less a page or so."""
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and the file that states it.

    Attributes:
        amount: bytes, or thousandths of a CPU.
        file: the file's path.
    """

    amount: int
    file: str


@dataclass(frozen=True, slots=True)
class Group:
    """A process's group in one hierarchy.

    Attributes:
        version: 1 or 2.
        controllers: of version 1, those of the hierarchy; of version 2 what there is depends on the group.
        directories: its directory and all above it up to the mount point, its own first.
    """

    version: int
    controllers: frozenset[str]
    directories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The limits of a process's groups; None for what is not limited or cannot be read.

    Attributes:
        cpus: ids of the CPUs that may be used.
        quota: CPU time, in thousandths of a CPU.
        memory: bytes.
    """

    cpus: frozenset[int] | None
    quota: Limit | None
    memory: Limit | None


def read_limits(files: Files) -> CgroupLimits:
    """The limits that hold for this process."""
    groups = read_groups(files)
    return CgroupLimits(
        cpus=_cpus(files, groups),
        quota=_least(limit for group in groups for limit in _quotas(files, group)),
        memory=_least(limit for group in groups for limit in _memory_limits(files, group)),
    )


def read_groups(files: Files) -> list[Group]:
    """The groups of this process, one for each hierarchy that is mounted."""
    paths = _paths(files.text("/proc/self/cgroup") or "")
    groups: list[Group] = []
    for line in (files.text("/proc/self/mountinfo") or "").splitlines():
        mount = _mount(line)
        if mount is None:
            continue
        version, controllers, root, point = mount
        for names, path in paths:
            if (not names) if version == 2 else bool(names & controllers):
                groups.append(Group(version, names, _directories(point, root, path)))
                break
    return groups or _guessed_groups(paths)


def _paths(text: str) -> list[tuple[frozenset[str], str]]:
    """Controllers (none for version 2) and path of each line of /proc/self/cgroup."""
    found: list[tuple[frozenset[str], str]] = []
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[2].startswith("/"):
            found.append((frozenset(parts[1].split(",")) - {""}, parts[2]))
    return found


def _mount(line: str) -> tuple[int, frozenset[str], str, str] | None:
    """Version, options (which name a version 1 hierarchy's controllers), root and point of a cgroup mount."""
    before, separator, after = line.partition(" - ")
    front, back = before.split(), after.split()
    if not separator or len(front) < 5 or len(back) < 3 or back[0] not in {"cgroup", "cgroup2"}:
        return None
    root, point = (_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text) for text in front[3:5])
    return (2 if back[0] == "cgroup2" else 1), frozenset(back[2].split(",")), root, point


def _directories(point: str, root: str, path: str) -> tuple[str, ...]:
    """The group's directory and those above it, as far as they can be seen."""
    parts = [part for part in path.split("/") if part]
    base = [part for part in root.split("/") if part]
    if parts[: len(base)] == base:
        parts = parts[len(base) :]
    if ".." in parts or ".." in base:  # the group is outside of this cgroup namespace
        parts = []
    point = point.rstrip("/")
    return tuple("/".join([point, *parts[:depth]]) for depth in range(len(parts), -1, -1))


def _guessed_groups(paths: list[tuple[frozenset[str], str]]) -> list[Group]:
    """Where hierarchies usually are, for when mountinfo cannot be read."""
    return [
        Group(2, names, _directories("/sys/fs/cgroup", "/", path))
        if not names
        else Group(1, names, _directories("/sys/fs/cgroup/" + ",".join(sorted(names)), "/", path))
        for names, path in paths
    ]


def _cpus(files: Files, groups: list[Group]) -> frozenset[int] | None:
    """CPUs of the nearest group that says any: a group's effective CPUs are among those of the one above."""
    for group in groups:
        if group.version == 2:
            names = ["cpuset.cpus.effective"]
        elif "cpuset" in group.controllers:
            names = ["cpuset.effective_cpus", "cpuset.cpus"]
        else:
            continue
        for directory in group.directories:
            for name in names:
                cpus = cpu_list(files.text(f"{directory}/{name}"))
                if cpus:
                    return cpus
    return None


def _quotas(files: Files, group: Group) -> Iterator[Limit]:
    for directory in group.directories:
        if group.version == 2:
            file = f"{directory}/cpu.max"
            quota_us, _, period_us = (files.text(file) or "").strip().partition(" ")
        elif "cpu" in group.controllers:
            file = f"{directory}/cpu.cfs_quota_us"
            quota_us = files.text(file) or ""
            period_us = files.text(f"{directory}/cpu.cfs_period_us") or ""
        else:
            return
        quota, period = number(quota_us), number(period_us)  # "max" and -1 are no limit
        if quota is not None and quota > 0 and period is not None and period > 0:
            yield Limit(max(1, 1000 * quota // period), file)


def _memory_limits(files: Files, group: Group) -> Iterator[Limit]:
    if group.version == 2:
        names = ["memory.max", "memory.high"]  # above "high" processes are slowed down until they hardly run
    elif "memory" in group.controllers:
        names = ["memory.limit_in_bytes"]
    else:
        return
    for directory in group.directories:
        for name in names:
            amount = files.number(f"{directory}/{name}")
            if amount is not None and 0 < amount < _NO_LIMIT:
                yield Limit(amount, f"{directory}/{name}")


def _least(limits: Iterator[Limit]) -> Limit | None:
    return min(limits, key=lambda limit: limit.amount, default=None)
