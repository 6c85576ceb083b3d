"""A file server that hangs, here a pipe that is full and that nobody reads, delays nothing but what is written there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
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
    write_in_background([log])
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


def test_a_mistake_in_a_line_costs_that_line(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log", "somebody", "test of a mistake in a log")
    write_in_background([log])
    log.info("%d", "no number")
    log.info("next")
    for handler in log.handlers[:]:
        log.removeHandler(handler)
        handler.close()
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
