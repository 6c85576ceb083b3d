"""What the tests of faults run on workers. Imports little, because each new worker imports it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pilotflow as pf


def note(path: str) -> int:
    """Add a line with our process id and the time to a file; returns how many lines it has now."""
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{os.getpid()} {time.time()}\n")
    return count(path)


def count(path: str) -> int:
    """Lines that tasks have left in a file."""
    try:
        return len(Path(path).read_text(encoding="ascii").splitlines())
    except FileNotFoundError:
        return 0


def die(how: str) -> None:
    """End this process in one of the ways in which processes end."""
    if how == "SIGKILL":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        ctypes.string_at(0)
    else:
        os._exit(3)


@pf.python_app
def square(x: int) -> int:
    return x * x


@pf.python_app
def die_first(how: str, path: str) -> None:
    """Dies the first time."""
    if note(path) == 1:
        die(how)


@pf.python_app
def die_always(how: str, path: str) -> None:
    note(path)
    die(how)


@pf.python_app(crash_limit=1)
def die_once_and_for_all(how: str, path: str) -> None:
    note(path)
    die(how)


@pf.python_app
def linger(path: str, release: str, seconds: float = 60.0) -> tuple[float, int]:
    """Notes that it runs, waits for a file to appear, then says when it started and where.

    The file is `release` for all attempts, or `release.1` for the first, and so on.
    """
    now = time.time()
    number = note(path)
    until = time.monotonic() + seconds
    while not (os.path.exists(release) or os.path.exists(f"{release}.{number}")) and time.monotonic() < until:
        time.sleep(0.01)
    return now, os.getpid()


@pf.python_app
def ignore_sigterm(path: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path)
    while True:
        time.sleep(1)


@pf.python_app
def hang_at_exit(path: str, together: int = 1) -> None:
    """Leaves its process in a state in which Python would never end: a thread, and a function called at exit.

    It waits until so many of its kind have begun, and they are on as many workers.
    """
    import atexit
    import threading

    def for_ever() -> None:
        while True:
            time.sleep(1)

    threading.Thread(target=for_ever).start()
    atexit.register(for_ever)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(path)
    while count(path) < together:
        time.sleep(0.01)


@pf.python_app(crash_limit=2)
def abort_with_words(words: str) -> None:
    os.write(2, f"terminate called after {words}\n".encode())
    os.abort()


@pf.bash_app(crash_limit=2)
def command_that_kills_its_worker(words: str) -> str:
    return f"echo {words} >&2; kill -9 $PPID; sleep 60"


@pf.bash_app
def deaf_command(path: str) -> str:
    return f"trap '' TERM INT HUP; echo $$ 0 >> {path}; while true; do sleep 1; done"


@pf.bash_app
def detach(path: str) -> str:
    """Leaves behind a process in a session of its own, whose parent is gone."""
    return f"(setsid bash -c 'echo $$ 0 >> {path}; exec sleep 600' >/dev/null 2>&1 &) ; while true; do sleep 1; done"


@pf.python_app
def echo(value: Any) -> Any:
    return value


@pf.python_app
def sized(value: bytes, wait_for: str = "") -> int:
    """The length of a value, once a file is there."""
    while wait_for and not os.path.exists(wait_for):
        time.sleep(0.01)
    return len(value)


@pf.python_app
def blob(size: int, fill: int) -> bytes:
    return bytes([fill]) * size


@pf.python_app
def open_files_limit() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)


@pf.python_app(crash_limit=1)
def write_into_links(rubbish: bytes) -> None:
    """What a task does that writes to descriptors which are not its own."""
    for name in os.listdir("/proc/self/fd"):
        try:
            end = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        if end.type == socket.SOCK_SEQPACKET:
            end.send(rubbish)
    time.sleep(600)
