"""Hosts of a test cluster: namespaces kept alive by one process, wired to a bridge on the login host.

Every host has its own network, host name, mounts, pids and /dev/shm; the rest of the file system is this
machine's. When the first process of a host dies, everything on the host dies with it, as in a power failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_INIT: Final = """\
set -e
host=$1 state=$2 private_tmp=$3
hostname "$host"
mount --bind "$state/etc/hosts" /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount --bind "$state/host/$host/run" "$state/run"
mount --bind "$state/host/$host/local" "$state/local"
if [ "$private_tmp" = yes ]; then
  own=$state/host/$host/tmp
  mkdir -p -m 1777 "$own"
  case $state in /tmp/*) mkdir -p "$own${state#/tmp}"; mount --rbind "$state" "$own${state#/tmp}" ;; esac
  mount --rbind "$own" /tmp
fi
ip link set lo up
: > "$state/run/ready"
while :; do sleep 86400 & wait $! || :; done  # bash, as the first process, buries the orphans of the host
"""
_NAMESPACES: Final = ("--net", "--uts", "--mount", "--ipc", "--pid")


class HostError(AssertionError):
    """A host of the cluster does not do what it should."""


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 30.0, every_s: float = 0.03) -> None:
    """Wait until this holds, or fail with the words."""
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        if now >= deadline:
            raise HostError(f"not within {timeout_s:g} s: {what}")
        time.sleep(max(every_s, now - began))  # looks take no more than half of the time


def start_time(pid: int) -> str:
    """When a process started, or nothing if there is none: with it, a pid that was given away is no danger."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


class Host:
    """One host: where its first process is written down, and what can be done with it."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self._state = state
        self._file = state / "pid" / name
        self._outer: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The pid, on this machine, of the host's first process; None if the host is down."""
        try:
            words = self._file.read_text().split()
        except OSError:
            return None
        return int(words[0]) if len(words) == 4 and start_time(int(words[0])) == words[1] else None

    def boot(self, *, private_tmp: bool = False) -> None:
        """Start it, empty, with its cable not plugged in."""
        folder = self._state / "host" / self.name
        for name in ("run", "local"):
            subprocess.run(["rm", "-rf", str(folder / name)], check=True)
            (folder / name).mkdir(parents=True)
        (folder / "local").chmod(0o1777)
        log = (self._state / "log" / f"{self.name}.log").open("ab")
        flags = [*_NAMESPACES, "--propagation", "private", "--fork", "--kill-child=KILL", "--mount-proc"]
        argv = ["unshare", *flags, "--", "bash", "-c", _INIT, "init", self.name, str(self._state)]
        argv.append("yes" if private_tmp else "no")
        with log:
            outer = self._outer = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        wait_for(lambda: (folder / "run" / "ready").exists() or outer.poll() is not None, f"{self.name} boots")
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        inner = children.read_text().split() if children.exists() else []
        if len(inner) != 1:
            raise HostError(f"{self.name} did not boot: {log_tail(Path(log.name))}")
        first = int(inner[0])
        self._file.write_text(f"{first} {start_time(first)} {outer.pid} {start_time(outer.pid)}\n")

    def kill(self) -> None:
        """Take its power away."""
        try:
            words = self._file.read_text().split()
        except OSError:
            return
        for pid, start in ((int(words[0]), words[1]), (int(words[2]), words[3])):
            if start_time(pid) == start:
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not start_time(int(words[0])), f"{self.name} is dead")
        if self._outer is not None:
            self._outer.wait()
        self._file.unlink(missing_ok=True)

    def enter(self, argv: Sequence[str], *, only_network: bool = False) -> list[str]:
        """The command that runs `argv` on the host.

        Args:
            argv: the command.
            only_network: in its network, but with the files, the name and the pids of this machine.
        """
        pid = self.pid
        if pid is None:
            raise HostError(f"{self.name} is down")
        if only_network:
            return ["nsenter", "--target", str(pid), "--net", "--", *argv]
        return ["nsenter", "--target", str(pid), *_NAMESPACES, f"--wd={os.getcwd()}", "--", *argv]


def wire(switch: Host, host: Host, address: str) -> None:
    """Connect a host to the bridge on another, as its eth0."""
    pid = host.pid
    last = int(address.rpartition(".")[2])
    mac = f"02:77:00:00:00:{last:02x}"  # the same after each boot, so that neighbours find it at once
    port = port_of(host)
    shell(
        switch,
        f"ip link del {port} 2>/dev/null || :\n"
        f"ip link add {port} type veth peer name eth0 address {mac} netns {pid}\n"
        f"ip link set {port} master br0 up",
    )
    shell(host, f"ip addr add {address}/24 dev eth0\nip link set eth0 up")


def port_of(host: Host) -> str:
    """The name of a host's port on the bridge."""
    return f"p-{host.name}"[:15]


def shell(host: Host, text: str) -> None:
    """Run shell text in a host's network."""
    done = subprocess.run(
        host.enter(["sh", "-ec", text], only_network=True), capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        raise HostError(f"on {host.name}: {text}: {done.stderr}")


def log_tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"
