"""A file server that hangs, or a pipe that is full and that nobody reads, delays nothing but what is written there."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import pilotflow as pf
from pilotflow.runtime.log_files import MOST_WAITING, log_to, write_in_background
from tests.integration.faults import config, nothing_left
from tests.waiting import until


class HungFile:
    """What looks like a file to those who open it, and takes nothing."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.fd, b"x" * 4096)

    def read(self) -> bytes:
        """What there is to be read; then there is room again."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.fd, 1 << 20)
        return b""


@pytest.fixture
def hung(tmp_path: Path) -> Iterator[HungFile]:
    file = HungFile(tmp_path / "log")
    yield file
    os.close(file.fd)


PROGRAM = """
import sys
from pathlib import Path
from pilotflow.runtime.log_files import log_to, write_in_background
log = log_to(Path(sys.argv[1]), "somebody")
log.info("before")
write_in_background([log])
for n in range(int(sys.argv[2])):
    log.info("line %d", n)
print("said")
"""


def say(path: Path, lines: int) -> str:
    argv = [sys.executable, "-c", PROGRAM, str(path), str(lines)]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_last_lines_of_a_process_are_there_when_it_has_ended_and_in_their_order(tmp_path: Path) -> None:
    assert say(tmp_path / "log", 100) == "said\n"
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.partition("INFO ")[2] for line in lines] == ["before", *(f"line {n}" for n in range(100))]


def test_who_logs_does_not_wait_and_what_waits_is_written_when_there_is_room(hung: HungFile, tmp_path: Path) -> None:
    log = log_to(tmp_path / "log", "somebody", "test of a hung log")
    writer = write_in_background([log])
    assert writer is not None
    for n in range(MOST_WAITING + 100):
        log.info("line %d", n)
    found: list[bytes] = []

    def has_all() -> bool:
        found.append(hung.read())
        return f"line {MOST_WAITING - 1}\n".encode() in b"".join(found)

    until(has_all, "the lines that waited")
    assert b"".join(found).index(b"line 0\n") < b"".join(found).index(b"line 1\n")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    writer.end()


def test_a_log_that_goes_on_after_its_thread_is_written_at_once(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log", "a workflow", "a workflow's")
    writer = write_in_background([log])
    assert writer is not None
    log.info("the run is closed")
    writer.end([log])
    log.info("the workflow has succeeded")
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert [line.partition("INFO ")[2] for line in lines] == ["the run is closed", "the workflow has succeeded"]
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def test_a_mistake_in_a_line_costs_that_line(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log", "somebody", "test of a mistake in a log")
    writer = write_in_background([log])
    assert writer is not None
    log.info("%d", "no number")
    log.info("next")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
    writer.end()
    assert (tmp_path / "log").read_text().endswith("INFO next\n")


def test_a_process_ends_although_its_log_hangs(hung: HungFile, tmp_path: Path) -> None:
    hung.read()
    with contextlib.suppress(BlockingIOError):
        os.write(hung.fd, b"x" * (65536 - 100))  # room for the line that it writes itself
    assert say(tmp_path / "log", 1000) == "said\n"


@pf.python_app(crash_limit=1)
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pf.python_app
def double(x: int) -> int:
    return 2 * x


def test_a_manager_whose_log_hangs_reports_deaths_and_goes_on(tmp_path: Path) -> None:
    with pf.load(config(tmp_path, init_blocks=0, workers=1)) as run:
        folder = run.directory / "blocks" / "cpu-0"
        folder.mkdir()
        path = folder / f"manager-{socket.gethostname()}.log"
        os.mkfifo(path)
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            assert double(1).result(timeout=60) == 2
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(fd, b"x")
            for n in range(3):
                error = die().exception(timeout=60)
                assert isinstance(error, pf.WorkerLost)
                assert "SIGKILL" in str(error), "its worker's death, not its manager's"
                assert double(n).result(timeout=60) == 2 * n
            assert b"registered as manager" in os.read(fd, 1 << 16), "this is the log that hung"
        finally:
            run.close(wait=False)
            os.close(fd)
    nothing_left(run)


@contextlib.contextmanager
def hung_file_system(directory: Path) -> Iterator[None]:
    """A file system over a directory, whose server answers nobody."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no file systems can be made here: {error}")
    options = f"fd={server},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()
    try:
        if libc.mount(b"hung", os.fsencode(directory), b"fuse", 0, options):
            pytest.skip(f"no file systems can be mounted here: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            libc.umount2(os.fsencode(directory), 2)  # MNT_DETACH
    finally:
        os.close(server)  # whoever waits gets an error


def closed_in_time(run: pf.Run) -> bool:
    closing = threading.Thread(target=run.close, daemon=True)
    closing.start()
    closing.join(60)
    return not closing.is_alive()


@pytest.mark.parametrize("where", ["shared", "."])
def test_a_run_whose_directory_hangs_is_closed_and_says_which_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    run = pf.load(config(tmp_path, workers=1))
    shared = pf.share(b"x" * 100_000)
    assert size(shared).result(timeout=60) == 100_000
    with hung_file_system(run.directory / where):
        in_time = closed_in_time(run)
        said = capfd.readouterr().err
    assert in_time
    assert f"pilotflow: {run.directory} does not answer" in said
    assert f"{run.directory}/shared/ is not removed" in said
    nothing_left(run)


def test_a_run_whose_log_hangs_is_closed(tmp_path: Path) -> None:
    run = pf.load(config(tmp_path, workers=1))
    assert double(1).result(timeout=60) == 2
    hung = HungFile(tmp_path / "hung")
    (log,) = [
        fd for fd in Path("/proc/self/fd").iterdir() if os.path.realpath(fd) == str(run.directory / "pilotflow.log")
    ]
    before = os.dup(int(log.name))
    blocking = os.open(tmp_path / "hung", os.O_WRONLY)
    os.dup2(blocking, int(log.name))
    try:
        assert closed_in_time(run)
        assert not run.is_open
    finally:
        hung.read()
        for fd in (before, blocking, hung.fd):
            os.close(fd)
    nothing_left(run)


@pf.python_app
def size(value: bytes) -> int:
    return len(value)
