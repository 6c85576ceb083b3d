"""What /proc says about one process, read as cheaply as it goes.

Sources: proc_pid_stat(5), proc_pid_status(5) (RssAnon, RssShmem and VmSwap, Linux 4.5), the kernel's
Documentation/ABI/testing/procfs-smaps_rollup (Linux 4.14; Pss_Anon and Pss_Shmem came with 5.4), proc_pid_smaps(5),
kcmp(2).

Measured on one machine: stat costs 10 us, status 16 us, smaps_rollup 450 us for a process of 20 MB and
12 ms for each further GB, for as long as the process cannot change its memory map. smaps, which is read instead on
older kernels, costs about as much and some 30 us for each map.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
from typing import Final, NamedTuple

_KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD in include/linux/sched.h."""
_KCMP: Final = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}.get(platform.machine())
"""The system call's number, which the C library has no function for."""
_KCMP_VM: Final = 1
_MAP: Final = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ [-rwxsp]{4} [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ [0-9]+", re.MULTILINE)
"""Before the path in the first line of a map (proc_pid_maps(5))."""
_NO_FILES: Final = (b"\n", b"[", b"/dev/zero", b"/dev/shm/", b"/memfd:", b"/SYSV", b"/anon_hugepage")
"""How the paths of maps begin that are of memory, not of a file."""


class Process(NamedTuple):
    """A process as its `stat` has it.

    Attributes:
        pid, parent, group, session: ids.
        flags: the kernel's, of which one marks its own threads.
        start: when it started, in ticks since the machine did; with the pid it names a process for ever.
    """

    pid: int
    parent: int
    group: int
    session: int
    flags: int
    start: int

    @property
    def is_kernel_thread(self) -> bool:
        """Whether it is the kernel's own."""
        return bool(self.flags & _KERNEL_THREAD)


class Memory(NamedTuple):
    """A process's memory, in bytes, without file maps.

    Attributes:
        private: anonymous memory and what of it is swapped out; pages that are still shared with
            the parent since a fork count for both.
        shared: pages of tmpfs and shared anonymous maps that are mapped here.
        size: of its address space.
    """

    private: int
    shared: int
    size: int


NO_MEMORY: Final = Memory(0, 0, 0)


class ProcFiles:
    """Reads below one /proc. What has ended or is forbidden is None."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._libc = ctypes.CDLL(None, use_errno=True)

    def names(self) -> set[str]:
        """The names in /proc, which are process ids and some others."""
        try:
            return set(os.listdir(self._proc))
        except OSError:
            return set()

    def process(self, pid: int) -> Process | None:
        """Its ids, and when it started."""
        data = self._read(pid, "stat")
        try:
            fields = data[data.rindex(b")") + 2 :].split(b" ", 20)
            (_, parent, group, session, _, _, flags), start = fields[:7], fields[19]
            return Process(pid, int(parent), int(group), int(session), int(flags), int(start))
        except (ValueError, IndexError):
            return None

    def memory(self, pid: int) -> Memory:
        """Its memory; nothing if it has ended."""
        data = self._read(pid, "status")
        anonymous = data.find(b"RssAnon:")
        if anonymous < 0:
            return NO_MEMORY
        try:
            return Memory(
                _bytes(data, b"RssAnon:", anonymous) + _bytes(data, b"VmSwap:", anonymous),
                _bytes(data, b"RssShmem:", anonymous),
                _bytes(data, b"VmSize:"),
            )
        except ValueError:
            return NO_MEMORY

    def share(self, pid: int) -> int | None:
        """Its exact share of memory in bytes, each page divided by the number of processes that map it.

        Maps of files are not in it, also of those in a tmpfs, whose pages are there whether anybody maps them or not.
        None if the kernel does not tell.
        """
        data = self._read(pid, "smaps_rollup", 1 << 14)
        if b"Pss_Anon:" not in data:
            return self._share_of_maps(pid) if data else None
        try:
            if _bytes(data, b"Pss_Shmem:"):  # of files in a tmpfs, or of memory that has no name
                return self._share_of_maps(pid)
            return _bytes(data, b"Pss_Anon:") + _bytes(data, b"SwapPss:")
        except ValueError:
            return None

    def _share_of_maps(self, pid: int) -> int | None:
        """The same from the list of its maps, which takes longer."""
        try:
            with open(f"{self._proc}/{pid}/smaps", "rb") as file:
                return sum(map(_share_of_map, _MAP.split(file.read())[1:]))
        except (OSError, ValueError):
            return None

    def are_one_memory(self, one: int, other: int) -> bool | None:
        """Whether two processes have one address space, as parent and child have between vfork and exec.

        None if the kernel does not tell, as in some containers.
        """
        if _KCMP is None:
            return None
        answer = self._libc.syscall(_KCMP, one, other, _KCMP_VM, ctypes.c_ulong(0), ctypes.c_ulong(0))
        return None if answer < 0 else bool(answer == 0)

    def variable(self, pid: int, name: str) -> str | None:
        """A variable of the environment that it was started with."""
        wanted = name.encode() + b"="
        for entry in self._read(pid, "environ", 1 << 20).split(b"\0"):
            if entry.startswith(wanted):
                return entry[len(wanted) :].decode("utf-8", "replace")
        return None

    def _read(self, pid: int, name: str, most: int = 4096) -> bytes:
        try:
            file = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(file, most)
        except OSError:
            return b""
        finally:
            os.close(file)


def _share_of_map(text: bytes) -> int:
    """A map's share of memory, from its path on. Of a file's map only the pages that were written to are no file's."""
    share, swapped = _bytes(text, b"\nPss:"), _bytes(text, b"\nSwapPss:")
    if text.lstrip(b" ").startswith(_NO_FILES):
        return share + swapped
    resident = _bytes(text, b"\nRss:")
    return (share * _bytes(text, b"\nAnonymous:") // resident if resident else 0) + swapped


def _bytes(data: bytes, name: bytes, start: int = 0) -> int:
    """The number of kB behind a name, in bytes; 0 if the name is not there."""
    at = data.find(name, start)
    return 0 if at < 0 else 1024 * int(data[at + len(name) : data.index(b"kB", at)])
