"""Whether the kernel has killed processes of ours for lack of memory."""

from __future__ import annotations

import re
from pathlib import Path

from pilotflow.node.cgroups import read_groups
from pilotflow.node.files import Files


class OomKills:
    """Counts kills by the kernel's out-of-memory killer in this process's control group.

    In version 2 the group's `memory.events` counts victims in it and in groups below it, whichever
    limit was hit, the machine's too. In version 1 `memory.oom_control` counts those of the group
    alone. Where neither can be read /proc/vmstat counts those of the whole machine. The counter is
    raised before the victim gets its SIGKILL, so who sees a process dead sees the new count.

    Sources: memory.events in the kernel's Documentation/admin-guide/cgroup-v2.rst; oom_kill in
    memory.oom_control (mm/memcontrol-v1.c) and in vmstat, both since Linux 4.13; for the order
    __oom_kill_process in mm/oom_kill.c.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = Files(root)
        self._file = next((file for file in _candidates(self._files) if self._count(file) is not None), None)
        self._seen = self.total()

    def total(self) -> int:
        """Kills so far; 0 for ever where the kernel does not count them."""
        return (self._count(self._file) if self._file is not None else None) or 0

    def new(self) -> int:
        """Kills since the last call, or since this object was made."""
        total = self.total()
        new, self._seen = max(0, total - self._seen), total
        return new

    def _count(self, file: str) -> int | None:
        match = re.search(r"^oom_kill ([0-9]{1,18})$", self._files.text(file) or "", re.MULTILINE)
        return int(match[1]) if match else None


def _candidates(files: Files) -> list[str]:
    found: list[str] = []
    for group in read_groups(files):
        if group.version == 2:  # a group without the memory controller is counted in one above it
            found += [f"{directory}/memory.events" for directory in group.directories]
        elif "memory" in group.controllers:
            found.append(f"{group.directories[0]}/memory.oom_control")
    return [*found, "/proc/vmstat"]
