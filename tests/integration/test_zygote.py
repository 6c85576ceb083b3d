"""The manager's side of its zygote, with the test at the other end of the channel."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotflow.errors import ConfigError
from pilotflow.runtime import zygote
from pilotflow.runtime.zygote import Zygote
from tests.waiting import until

REPORT = struct.Struct("<cqq")
ORDER = struct.Struct("<cq")


@pytest.fixture
def pair() -> Iterator[tuple[Zygote, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Zygote(ours, 4711), theirs


def test_an_unanswered_question_is_not_asked_again_and_grows_older(pair: tuple[Zygote, socket.socket]) -> None:
    ours, theirs = pair
    assert [ours.silent_for(now) for now in (10.0, 12.5, 17.0)] == [0.0, 2.5, 7.0]
    assert ORDER.unpack(theirs.recv(64)) == (zygote.ASK, 0)
    with pytest.raises(BlockingIOError):
        theirs.recv(64, socket.MSG_DONTWAIT)


def test_an_answer_is_no_report_and_the_next_question_is_new(pair: tuple[Zygote, socket.socket]) -> None:
    ours, theirs = pair
    ours.silent_for(10.0)
    theirs.send(REPORT.pack(zygote.BORN, 0, 99))
    theirs.send(REPORT.pack(zygote.HERE, 0, 0))
    assert ours.reports() == [(zygote.BORN, 0, 99)]
    assert [ours.silent_for(now) for now in (20.0, 21.0)] == [0.0, 1.0]


def test_a_dead_zygote_is_not_silent_because_its_channel_tells(pair: tuple[Zygote, socket.socket]) -> None:
    ours, theirs = pair
    theirs.close()
    assert [ours.silent_for(now) for now in (10.0, 99.0)] == [0.0, 0.0]
    assert ours.reports() is None


def test_a_real_one_answers() -> None:
    ours = zygote.start(1000)
    try:
        assert ours.silent_for(10.0) == 0.0
        assert ours.channel.recv(64) == REPORT.pack(zygote.HERE, 0, 0)
    finally:
        ours.channel.close()


def test_a_zygote_that_was_sent_no_link_for_a_worker_says_so_and_lives_on() -> None:
    """The system drops a descriptor when a process has too many files."""
    real = zygote.start(1 << 20)
    try:
        real.channel.send(ORDER.pack(zygote.SPAWN, 7))
        assert until(real.reports) == [(zygote.UNBORN, 7, errno.EMFILE)]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            real.spawn(8, theirs)
            [(kind, number, _)] = until(real.reports) or []
            assert (kind, number) == (zygote.BORN, 8)
    finally:
        real.channel.close()
        os.waitpid(real.pid, 0)


def test_deaths_are_reported_and_workers_born_while_the_run_directory_hangs() -> None:
    """What removes a dead worker's files waits here for a pipe into which nobody writes, as for a file server."""
    hung, nobody = os.pipe()
    real = zygote.start(1 << 20, zygote.Tidy(lambda _: (os.read(hung, 1), None)[1], lambda _: None))
    try:
        for number in (1, 2, 3):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs:
                real.spawn(number, theirs)
                [(kind, _, pid)] = until(real.reports, f"the birth of worker {number}") or []
                assert kind == zygote.BORN
                os.kill(pid, signal.SIGKILL)
                [died] = until(real.reports, f"the death of worker {number}") or []
                assert died == (zygote.DIED, number, signal.SIGKILL)
    finally:
        real.channel.close()
        until(lambda: os.waitpid(real.pid, os.WNOHANG)[0], "the end of the zygote, which waits for no file server")
        os.close(hung)
        os.close(nobody)


def test_the_files_of_dead_workers_are_tidied_up_also_of_those_that_end_with_the_zygote(tmp_path: Path) -> None:
    real = zygote.start(1 << 20, zygote.Tidy(lambda pid: (tmp_path / str(pid)).touch(), lambda _: None))
    pids: list[int] = []
    links: list[socket.socket] = []
    for number in (1, 2, 3):
        links += socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        real.spawn(number, links[-1])
        [(_, _, pid)] = until(real.reports, "a birth") or []
        pids.append(pid)
    os.kill(pids[0], signal.SIGKILL)
    until((tmp_path / str(pids[0])).exists, "tidying up after the first")
    assert len(list(tmp_path.iterdir())) == 1
    real.channel.close()
    os.waitpid(real.pid, 0)
    assert {path.name for path in tmp_path.iterdir()} == set(map(str, pids))
    for link in links:
        link.close()


def test_files_of_living_workers_are_cut_when_that_is_asked_for_and_the_zygote_goes_on(tmp_path: Path) -> None:
    real = zygote.start(1 << 20, zygote.Tidy(lambda _: None, lambda pid: (tmp_path / str(pid)).touch()))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        real.spawn(1, theirs)
        [(_, _, pid)] = until(real.reports, "a birth") or []
        for _ in range(2):
            real.trim()
            until((tmp_path / str(pid)).exists, "the cut")
            (tmp_path / str(pid)).unlink()
        real.channel.close()
        os.waitpid(real.pid, 0)


def test_a_node_that_gives_no_more_processes_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(ConfigError, match=r"No worker can be started: Resource temporarily unavailable.*ulimit -u"):
        zygote.start(1 << 20)
