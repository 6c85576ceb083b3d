"""The end of a process is seen by a descriptor, with pidfds, and without them on old kernels and old builds of Python."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow.providers import processes
from pilotflow.runtime.process_end import ProcessEnd, why_threads
from tests.processes import is_alive
from tests.waiting import until

LONG_S = 60.0


@pytest.fixture(params=["as it is", errno.ENOSYS, errno.EPERM, "not built in"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether there are pidfds."""

    def refuse(_: int, __: int = 0) -> int:
        raise OSError(request.param, os.strerror(request.param))

    if isinstance(request.param, int):
        monkeypatch.setattr(os, "pidfd_open", refuse)
    elif request.param == "not built in":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        monkeypatch.delattr(signal, "pidfd_send_signal", raising=False)
        monkeypatch.setattr(subprocess, "_CAN_USE_PIDFD_OPEN", False, raising=False)  # Python 3.15 has looked before
    return bool(request.param == "as it is")


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that is not our child."""
    shell = subprocess.run(["sh", "-c", "sleep 600 >&- 2>&- & echo $!"], stdout=subprocess.PIPE, check=True)
    pid = int(shell.stdout)
    yield pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def watchers() -> int:
    return sum(thread.name.startswith("pilotflow-end-") for thread in threading.enumerate())


def test_it_is_said_why_threads_are_needed(kernel: bool) -> None:
    assert not why_threads() if kernel else "pidfd_open" in why_threads()


def test_the_end_of_a_child_is_seen_which_others_can_reap_then(child: subprocess.Popen[bytes]) -> None:
    end = ProcessEnd(child.pid)
    assert not end.has_come()
    end.send(signal.SIGTERM)
    assert end.has_come(LONG_S)
    assert end.has_come(), "it stays readable"
    assert child.wait() == -signal.SIGTERM
    assert end.has_come(), "it stays readable"
    end.close()


def test_the_end_of_a_child_that_is_reaped_by_another_at_once_is_seen(child: subprocess.Popen[bytes]) -> None:
    end = ProcessEnd(child.pid)
    child.kill()
    child.wait()
    assert end.has_come(LONG_S)
    with pytest.raises(ProcessLookupError):
        end.send(signal.SIGKILL)
    end.close()


def test_the_end_of_a_process_that_is_no_child_is_seen(stranger: int) -> None:
    end = ProcessEnd(stranger, processes.read(stranger).start)  # type: ignore[union-attr]
    assert not end.has_come(0.6)
    end.send(signal.SIGKILL)
    assert end.has_come(LONG_S)
    end.close()


def test_a_child_that_is_a_zombie_already_has_ended(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    until(lambda: not is_alive(child.pid))
    end = ProcessEnd(child.pid)
    assert end.has_come(LONG_S)
    end.close()


def test_who_is_gone_or_has_the_id_of_another_is_not_found(child: subprocess.Popen[bytes]) -> None:
    start = processes.read(child.pid).start  # type: ignore[union-attr]
    ProcessEnd(child.pid, start).close()
    with pytest.raises(ProcessLookupError):
        ProcessEnd(child.pid, start - 1)
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        ProcessEnd(child.pid)
    with pytest.raises(ProcessLookupError):
        ProcessEnd(child.pid, start)


def test_a_descriptor_that_is_closed_ends_its_thread_and_leaves_no_file(stranger: int) -> None:
    until(lambda: not watchers())
    before = len(os.listdir("/proc/self/fd"))
    os.close(ProcessEnd(stranger).detach())
    end = ProcessEnd(stranger)
    end.close()
    end.close()
    until(lambda: not watchers())
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_thread_that_cannot_be_had_leaves_no_file(
    kernel: bool, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(threading.Thread, "start", start)
    with contextlib.nullcontext() if kernel else pytest.raises(RuntimeError, match="new thread"):
        ProcessEnd(stranger).close()
    assert len(os.listdir("/proc/self/fd")) == before


ENDS_ITS_FIRST_THREAD = f"""
import ctypes, os, threading
def go_on():
    os.read(0, 1)
    os._exit(0)
threading.Thread(target=go_on).start()
print(flush=True)
ctypes.CDLL(None).syscall({93 if platform.machine() == "aarch64" else 60}, 0)
"""


def test_a_program_goes_on_whose_first_thread_has_ended() -> None:
    """It seems to be a zombie (proc_pid_stat(5))."""
    command = [sys.executable, "-c", ENDS_ITS_FIRST_THREAD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: not is_alive(process.pid), "the end of the first thread")
        end = ProcessEnd(process.pid)
        assert not end.has_come(0.6)
        process.stdin.write(b"!")
        process.stdin.flush()
        assert end.has_come(LONG_S)
        end.close()


FORKS = """
import os, signal, sys, time
from pilotflow.runtime.process_end import ProcessEnd
if sys.argv[1] != "True":
    del os.pidfd_open
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
child = os.fork()
if not child:
    time.sleep(600)
end = ProcessEnd(child)
closed = ProcessEnd(os.getppid())
other = os.fork()
if not other:
    time.sleep(600)
closed.close()
os.kill(child, 9)
assert end.has_come(60)
os.kill(other, 9)
time.sleep(0.6)
"""


def test_processes_that_are_forked_meanwhile_and_sigpipe_change_nothing(kernel: bool, tmp_path: Path) -> None:
    """A fork has copies of all descriptors; a program may have set that SIGPIPE ends it."""
    command = [sys.executable, "-c", FORKS, str(kernel)]
    assert subprocess.run(command, check=False, timeout=LONG_S).returncode == 0
