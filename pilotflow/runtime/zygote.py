"""The manager's zygote: a small single-threaded process that forks workers and buries them.

The manager forks it before it opens any socket or thread, so that workers are born in a
millisecond, share its memory, and inherit nothing else. It reports each worker's death with its
exit status, kills workers with all they started, and ends, with all of them, when the manager is
gone.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import gc
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pilotflow.errors import ConfigError
from pilotflow.ids import WORKER_VARIABLE
from pilotflow.runtime import worker
from pilotflow.runtime.process_name import name_process

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_ORDER = struct.Struct("<cq")
_REPORT = struct.Struct("<cqq")

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
CLEAR_AWAY_S: Final = 2.0
"""Workers that are killed with their manager are waited for so long, and until their files are tidied up."""

SPAWN, KILL, WARN, ASK, TRIM, BORN, UNBORN, DIED, HERE = b"S", b"K", b"W", b"A", b"T", b"B", b"U", b"D", b"H"


class Tidy(NamedTuple):
    """What is done about files of workers, each by pid, in a process that may take its time."""

    dead: Callable[[int], None]
    """Removes what a dead one has left."""
    living: Callable[[int], None]
    """Cuts what one that runs a long task has written."""


class Zygote:
    """The manager's side: orders out, reports in."""

    def __init__(self, channel: socket.socket, pid: int) -> None:
        self.channel = channel
        self.pid = pid
        self._asked_at: float | None = None

    def spawn(self, number: int, end: socket.socket) -> None:
        """Fork a worker with this number and this end of a link."""
        rights = array.array("i", [end.fileno()])
        self.channel.sendmsg([_ORDER.pack(SPAWN, number)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    def kill(self, number: int) -> None:
        """Kill a worker and everything it started."""
        self.channel.send(_ORDER.pack(KILL, number))

    def warn(self, number: int) -> None:
        """Send SIGTERM to a worker and everything it started."""
        self.channel.send(_ORDER.pack(WARN, number))

    def trim(self) -> None:
        """Have files of living workers cut that have become too long."""
        with contextlib.suppress(OSError):  # it is dead, or stands still
            self.channel.send(_ORDER.pack(TRIM, 0), socket.MSG_DONTWAIT)

    def silent_for(self, now: float) -> float:
        """Seconds since it was asked for a sign of life that has not come; asks, if none is due.

        A stopped zygote reports no death and starts no worker, and nothing else would show it.
        """
        if self._asked_at is not None:
            return now - self._asked_at
        with contextlib.suppress(OSError):  # it is dead, which its channel says
            self.channel.send(_ORDER.pack(ASK, 0), socket.MSG_DONTWAIT)
            self._asked_at = now
        return 0.0

    def reports(self) -> list[tuple[bytes, int, int]] | None:
        """(BORN, number, pid), (UNBORN, number, errno) and (DIED, number, wait status) so far; None if the zygote is gone."""
        found: list[tuple[bytes, int, int]] = []
        while True:
            try:
                packet = self.channel.recv(_REPORT.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return found
            except ConnectionError:
                return found or None
            if not packet:
                return found or None
            report = _REPORT.unpack(packet)
            if report[0] == HERE:
                self._asked_at = None
            else:
                found.append(report)


def start(max_bytes: int, tidy: Tidy | None = None, path: Sequence[str] = ()) -> Zygote:
    """Fork the zygote. Call it before anything opens threads or sockets.

    Args:
        max_bytes: largest result that the run's links carry.
        tidy: what is done about their files.
        path: where workers import from, if not from where this process does.

    Raises:
        ConfigError: this node gives us no more processes.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid = os.fork()
    except OSError as error:
        ours.close()
        theirs.close()
        raise ConfigError(
            f"No worker can be started: {error.strerror}. Raise the limits that processes have on this node (ulimit -u, "
            "ulimit -v, the pids and memory of its container)."
        ) from None
    if pid:
        theirs.close()
        return Zygote(ours, pid)
    ours.close()
    name_process("pf-zygote")
    try:
        _Server(theirs, max_bytes, tidy, path).run()
    finally:
        os._exit(0)


class _Server:
    """The zygote's own side."""

    def __init__(self, channel: socket.socket, max_bytes: int, tidy: Tidy | None, path: Sequence[str]) -> None:
        self._channel = channel
        self._max_bytes = max_bytes
        self._pids: dict[int, int] = {}  # worker number -> pid
        self._numbers: dict[int, int] = {}
        self._killed: dict[int, float] = {}  # workers that are not dead yet: when that was
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._dead: list[int] = []  # workers after whom nobody has tidied up
        self._trim: list[int] = []  # living workers whose files are to be cut
        self._tidier = 0  # the process that does so now
        self._tidy = tidy
        self._path = path

    def run(self) -> None:
        self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the manager decides when to end
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        gc.freeze()
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake_read, 4096)
            self._bury()
            if not self._obey(wake_read, wake_write):
                break
            if (self._dead or self._trim) and not self._tidier:
                self._start_tidying()
        for number in self._pids:
            self._kill(number)
        self._clear_away()

    def _obey(self, *inherited: int) -> bool:
        """Carry out the manager's orders; False when it is gone."""
        while True:
            try:
                packet, ancillary, _, _ = self._channel.recvmsg(64, socket.CMSG_SPACE(4), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            except ConnectionError:
                return False
            if not packet:
                return False
            order, number = _ORDER.unpack(packet)
            if order == SPAWN:
                if ancillary:
                    self._fork(number, int.from_bytes(ancillary[0][2][:4], "little"), inherited)
                else:  # this process has too many files to take one more
                    self._report(UNBORN, number, errno.EMFILE)
            elif order == ASK:
                self._report(HERE, 0, 0)
            elif order == TRIM:
                self._trim = list(self._pids.values())
            elif number in self._pids:
                if order == WARN:
                    kill_tree(self._pids[number], signal.SIGTERM)
                else:
                    self._kill(number)

    def _fork(self, number: int, fd: int, inherited: tuple[int, ...]) -> None:
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory: later there may be room
            os.close(fd)
            self._report(UNBORN, number, error.errno or 0)
            return
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            os.setpgid(0, 0)
            self._channel.close()
            for other in inherited:
                os.close(other)
            os.environ[WORKER_VARIABLE] = str(number)
            worker.main(socket.socket(fileno=fd), self._max_bytes, self._path)
        os.close(fd)
        self._pids[number] = pid
        self._numbers[pid] = number
        self._report(BORN, number, pid)

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._tidier:
                self._tidier = 0
            number = self._numbers.pop(pid, None)
            if number is not None:  # else an orphan of some task
                del self._pids[number]
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what it left behind
                self._kill_strays(number)
                self._report(DIED, number, status)
                self._dead.append(pid)

    def _kill(self, number: int) -> None:
        self._killed.setdefault(number, time.clock_gettime(time.CLOCK_BOOTTIME))
        kill_tree(self._pids[number])

    def _kill_strays(self, number: int) -> None:
        """End what a killed worker has started after its descendants were listed: it is a child of this process now."""
        since = self._killed.pop(number, None)
        if since is None:
            return  # it has ended by itself, and what goes on was meant to
        mark = f"{WORKER_VARIABLE}={number}".encode()
        for child in _children(os.getpid()):
            with contextlib.suppress(OSError):
                if child not in self._numbers and mark in _environment(child) and _started_at(child) >= since - TICK_S:
                    kill_tree(child)

    def _start_tidying(self) -> None:
        """Have files of workers removed or cut by a process that nobody waits for: their file system may hang."""
        dead, trim = self._dead, self._trim
        self._dead, self._trim = [], []
        if self._tidy is None:
            return
        try:
            self._tidier = os.fork()
        except OSError:
            self._dead = dead  # later there may be room
            return
        if self._tidier == 0:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            self._channel.close()
            try:
                for pid in dead:
                    self._tidy.dead(pid)
                for pid in trim:
                    self._tidy.living(pid)
            finally:
                os._exit(0)

    def _clear_away(self) -> None:
        """Tidy up after the workers that have just been killed, as soon as they are dead, if that is soon."""
        deadline = time.monotonic() + CLEAR_AWAY_S
        while time.monotonic() < deadline:
            self._bury()
            if not self._pids and not self._tidier:
                if not self._dead:
                    return
                self._start_tidying()
            time.sleep(0.01)

    def _report(self, kind: bytes, number: int, value: int) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(_REPORT.pack(kind, number, value))


def in_words(status: int) -> str:
    """How a process ended, by its wait status, as the end of a sentence about it."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        return f"was killed by signal {number} ({name})"
    return f"exited with code {os.WEXITSTATUS(status)}"


def kill_tree(pid: int, signum: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process and all its descendants; SIGKILL also to the others of its group."""
    victims = [pid, *_descendants(pid)]
    if signum == signal.SIGKILL:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signum)
    for victim in victims:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(victim, signum)


def _descendants(pid: int) -> list[int]:
    """Parents come before their children: a shell whose command ends before itself goes on with the next one."""
    found: list[int] = []
    for child in _children(pid):
        found += [child, *_descendants(child)]
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


def _environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def _started_at(pid: int) -> float:
    """Seconds after boot, as the kernel counts them, `TICK_S` by `TICK_S` (proc_pid_stat(5))."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat[stat.rindex(b")") + 2 :].split()[19]) * TICK_S
