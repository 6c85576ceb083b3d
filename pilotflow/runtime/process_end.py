"""The end of a process as a descriptor that can be read from then on, and signals to this very process.

From Linux 5.3 on that is a pidfd (pidfd_open(2)). Where there is none (RHEL 8 has Linux 4.18, some containers forbid
the call, and a Python that was built on an old system lacks it) a thread waits: for a child in one system call,
waitid(2), which leaves it to be reaped by others, and for any other process by a look at its /proc/PID/stat every
`LOOK_S`. That file is kept open, and an open one belongs to its process for ever: who gets the same id later is not
taken for it. A zombie has ended, either way.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading

LOOK_S = 0.25
"""Between two looks at a process that is no child, where there are no pidfds. One costs some 20 us."""
DESCRIPTORS = 3
"""So many files a process that is watched takes at most."""
_REFUSED = frozenset({errno.ENOSYS, errno.EPERM})
_WORDS = 4096
"""Bytes of a /proc/PID/stat: it is shorter."""


class ProcessEnd:
    """The end of a process, to be waited for. Close it when it is not wanted any more.

    Args:
        pid: the process.
        start: when it started, in ticks since the machine did, to be sure that no other one has its id now.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: too many files are open.
        RuntimeError: a thread is needed, and none can be started.
    """

    def __init__(self, pid: int, start: int | None = None) -> None:
        self.pid = pid
        fd = _pidfd(pid)
        self._is_pidfd = fd is not None
        self._fd = _watched(pid) if fd is None else fd
        if start is not None and _start_of(pid) != start:
            self.close()
            raise ProcessLookupError(errno.ESRCH, f"no process {pid} has started at {start}")

    def fileno(self) -> int:
        """A descriptor that can be read from the end of the process on. Do not read it."""
        return self._fd

    def detach(self) -> int:
        """The same, for somebody who closes it with `os.close`."""
        fd, self._fd = self._fd, -1
        return fd

    def has_come(self, timeout_s: float | None = 0.0) -> bool:
        """Whether the process has ended, or does so within this time; None waits for it."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(None if timeout_s is None else 1000 * timeout_s))

    def send(self, number: signal.Signals) -> None:
        """Send this very process a signal.

        Raises:
            ProcessLookupError: it has ended.
            PermissionError: it is not ours.
        """
        if self._is_pidfd:
            signal.pidfd_send_signal(self._fd, number)
        elif self.has_come():
            raise ProcessLookupError(errno.ESRCH, f"process {self.pid} has ended")
        else:  # a child keeps its id until it is reaped; anybody else had it when looked at last
            os.kill(self.pid, number)

    def close(self) -> None:
        """Release the descriptor. May be called again."""
        if self._fd >= 0:
            os.close(self.detach())


def why_threads() -> str:
    """Why threads watch for the ends of processes here; empty if the system itself shows them."""
    if not _has_pidfds():
        return "this Python was built without pidfd_open"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return f"pidfd_open: {error.strerror}"
    return ""


def _has_pidfds() -> bool:
    """Whether Python has; that is decided where it is built."""
    return hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")


def _pidfd(pid: int) -> int | None:
    """The process's pidfd; None if there are none here."""
    if not _has_pidfds():
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in _REFUSED:
            return None
        raise


def _watched(pid: int) -> int:
    """Start to watch a process by a thread; the descriptor by which it tells, and sees that nobody listens any more."""
    try:
        stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, f"no process {pid}") from None
    opened = [stat]
    try:
        end, bell = os.pipe2(os.O_CLOEXEC)
        opened += end, bell
        name = f"pilotflow-end-{pid}"
        threading.Thread(target=_watch, args=(pid, stat, bell), name=name, daemon=True).start()
    except (OSError, RuntimeError):  # no others: once it runs, two of them are the thread's
        for fd in opened:
            os.close(fd)
        raise
    return end


def _watch(pid: int, stat: int, bell: int) -> None:
    """Return when the process has ended, having said so, or when nobody wants to know any more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for others; SIGPIPE is for nobody
    try:
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            pass  # no child of ours, or reaped already
        listeners = select.poll()
        listeners.register(bell, 0)  # there is an event when the last has closed its end
        while not _has_ended(stat):
            if listeners.poll(1000 * LOOK_S):
                return
        os.write(bell, b"!")  # closing would not do: who was forked from us in the meantime may have this end, too
    except BrokenPipeError:
        pass
    finally:
        os.close(stat)
        os.close(bell)


def _has_ended(stat: int) -> bool:
    """Whether the process of this open /proc/PID/stat is no more, or a zombie.

    One whose first thread has ended seems to be a zombie, but goes on with the others, which are counted in field 20.
    """
    try:
        fields = os.pread(stat, _WORDS, 0).rpartition(b") ")[2].split()
    except ProcessLookupError:
        return True
    except OSError:  # no memory, for instance: it is looked at again
        return False
    return fields[0] in (b"Z", b"X", b"x") and int(fields[17]) <= 1


def _start_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read(_WORDS).rpartition(b") ")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
